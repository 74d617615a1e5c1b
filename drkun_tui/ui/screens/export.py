"""An export: which kind of file, what it takes, how far it is, how near to its source it came."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.library.model import Kind, Model
from drkun_tui.publishing import targets
from drkun_tui.publishing.preflight import Preflight, check, is_matrix
from drkun_tui.ui.data_paths import ExistingPath
from drkun_tui.ui.publishing_text import progress_text, proved_text
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.table import GAP, cell, size
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp
    from drkun_tui.publishing.exports import Export


class ExportScreen(ModalScreen[None]):
    """The kinds of file that a model can become; below them, the export that is at work or was last.

    Args:
        model: an adapter, or a base.
    """

    CSS_PATH = "../styles/publishing.tcss"

    app: DrkunApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "keys.export_file", id="export.start", priority=True),
        Binding("i", "imatrix", "keys.imatrix", id="export.imatrix"),
        Binding("x", "stop", "keys.stop_export", id="export.stop"),
        Binding("escape", "leave", "keys.close", id="export.leave"),
    ]

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._targets = [target for target in targets.COMMON if _possible(model, target)]
        self._begun = ""
        self._matrix = ""

    def compose(self) -> ComposeResult:
        """Title, kinds, how far it is."""
        with Vertical(id="dialog", classes="-list"):
            name = one_line(self._model.name, 60)
            yield Static(t("publishing.export_title", name=name), id="dialog-title", markup=False)
            yield OptionList(*(Option(_line(target)) for target in self._targets), compact=True, id="targets")
            yield Static(_matrix_row(""), id="matrix", markup=False)
            yield Static("", id="progress", markup=False)
            yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """The usual one is highlighted."""
        listing = self.query_one(OptionList)
        listing.highlighted = 0
        listing.focus()
        self.show_publishing()

    @property
    def _export(self) -> Export | None:
        """The newest export of this model, if it was begun here or is at work."""
        own = (export for export in self.app.exports_now if export.request.model == self._model.name)
        return next((export for export in own if export.running or export.id == self._begun), None)

    def show_publishing(self) -> None:
        """Show how far it is."""
        export = self._export
        self.query_one("#progress", Static).update("" if export is None else clean(_told(export)))
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """One at a time; what does not run cannot be stopped."""
        running = (export := self._export) is not None and export.running
        return {"start": not running, "stop": running}.get(action, True)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_start()

    @work(group="export", exclusive=True)
    async def action_start(self) -> None:
        """Look whether it can be done, tell what it takes, and begin."""
        notice = self.query_one(Notice)
        target = self._targets[self.query_one(OptionList).highlighted or 0]
        notice.say(t("publishing.checking"))
        try:
            found = await asyncio.to_thread(self._check, target)
            notice.clear()
            if await self.app.push_screen_wait(Confirm(_question(found), t("publishing.export_keys"))):
                self._begun = (await self.app.exports.start(found.request)).id
                self.app.watch_publishing()
        except DrkunError as error:
            notice.fail(error)

    def _check(self, target: str) -> Preflight:
        """With the matrix where one is of use; whether it is one already, the file says."""
        given = self._matrix if targets.is_quantised(target) else ""
        kind = "imatrix" if given and is_matrix(Path(given).expanduser()) else "imatrix_from"
        return check(self._model.name, target, self.app.settings, **{kind: given})

    @work(group="imatrix", exclusive=True)
    async def action_imatrix(self) -> None:
        """Ask what the importance matrix is computed on."""
        asked = AskText(t("publishing.imatrix_question"), self._matrix, ExistingPath())
        self._matrix = (await self.app.push_screen_wait(asked)).strip()
        self.query_one("#matrix", Static).update(_matrix_row(self._matrix))

    @work(group="stop")
    async def action_stop(self) -> None:
        """End it; nothing is left of it."""
        if (export := self._export) is not None:
            try:
                await self.app.exports.stop(export.id)
            except DrkunError as error:
                self.query_one(Notice).fail(error)
            self.app.watch_publishing()

    def action_leave(self) -> None:
        """Close; what has begun goes on."""
        self.dismiss(None)


def _possible(model: Model, target: str) -> bool:
    return model.kind is Kind.LORA or targets.is_gguf(target)


def _matrix_row(path: str) -> str:
    return t("publishing.imatrix_row", file=one_line(Path(path).name, 60) or t("publishing.imatrix_none"))


def _line(target: str) -> str:
    return "  " + cell(target, 12) + GAP + t(f"publishing.about_{target.lower()}")


def _question(found: Preflight) -> str:
    told = t(
        "publishing.before",
        name=found.request.name,
        size=size(found.result_bytes),
        disk=size(found.disk_bytes),
        memory=size(found.memory_bytes),
    )
    return clean("\n".join([told, *found.warnings]))


def _told(export: Export) -> str:
    if export.finished is not None:
        done = t("publishing.exported", name=export.finished.name, size=size(export.finished.size))
        return f"{proved_text(export.proved)}\n{done}" if export.proved else done
    if export.progress is not None and export.progress.stage == export.phase:
        return progress_text(export.progress)
    return t(f"publishing.phase_{export.phase}")
