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
from drkun_tui.publishing.preflight import Preflight, check, fitting_bases, is_matrix
from drkun_tui.ui.data_paths import ExistingPath
from drkun_tui.ui.publishing_text import progress_text, proved_text
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.choose import Choice, Choose
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
        Binding("t", "type", "keys.other_type", id="export.type"),
        Binding("b", "base", "keys.export_base", id="export.base"),
        Binding("n", "name", "keys.export_name", id="export.name"),
        Binding("i", "imatrix", "keys.imatrix", id="export.imatrix"),
        Binding("x", "stop", "keys.stop_export", id="export.stop"),
        Binding("escape", "leave", "keys.close", id="export.leave"),
    ]

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._targets = [target for target in targets.COMMON if _possible(model, target)]
        self._begun = ""
        self._base = ""
        """Name of the one that somebody has chosen; "" for the one that the adapter names."""
        self._called = ""
        self._matrix = ""

    def compose(self) -> ComposeResult:
        """Title, kinds, how far it is."""
        with Vertical(id="dialog", classes="-list"):
            name = one_line(self._model.name, 60)
            yield Static(t("publishing.export_title", name=name), id="dialog-title", markup=False)
            yield OptionList(*(Option(_line(target)) for target in self._targets), compact=True, id="targets")
            yield Static("", id="options", markup=False)
            yield Static("", id="progress", markup=False)
            yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """The usual one is highlighted."""
        listing = self.query_one(OptionList)
        listing.highlighted = 0
        listing.focus()
        self._show_options()
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
        """One at a time; what does not run cannot be stopped; only an adapter has a base."""
        running = (export := self._export) is not None and export.running
        adapter = self._model.kind is Kind.LORA
        return {"start": not running, "stop": running, "base": adapter}.get(action, True)

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
            found = await self._checked(target)
            notice.clear()
            if await self.app.push_screen_wait(Confirm(_question(found), t("publishing.export_keys"))):
                self._begun = (await self.app.exports.start(found.request)).id
                self.app.watch_publishing()
        except DrkunError as error:
            notice.fail(error)

    async def _checked(self, target: str) -> Preflight:
        """Where several bases would do, after asking for one.

        Raises:
            DrkunError: it cannot begin.
        """
        try:
            return await asyncio.to_thread(self._check, target)
        except DrkunError as error:
            several = error.kind == "no_base" and not self._model.problems
            if not several or not await self._choose_base():
                raise
        return await asyncio.to_thread(self._check, target)

    def _check(self, target: str) -> Preflight:
        """With the matrix where one is of use; whether it is one already, the file says."""
        given = self._matrix if targets.is_quantised(target) else ""
        kind = "imatrix" if given and is_matrix(Path(given).expanduser()) else "imatrix_from"
        settings = self.app.settings
        return check(self._model.name, target, settings, base=self._base, name=self._called, **{kind: given})

    @work(group="options", exclusive=True)
    async def action_type(self) -> None:
        """Choose among the types that are seldom asked for."""
        listing = self.query_one(OptionList)
        current = self._targets[listing.highlighted or 0]
        choices = [Choice(target, (target, _about(target))) for target in targets.OTHERS]
        taken = await self.app.push_screen_wait(Choose(t("publishing.type_question"), choices, current))
        if taken is not None:
            if taken not in self._targets:
                self._targets.append(taken)
                listing.add_option(Option(_line(taken)))
            listing.highlighted = self._targets.index(taken)

    @work(group="options", exclusive=True)
    async def action_base(self) -> None:
        """Choose what the adapter is merged with."""
        await self._choose_base()

    async def _choose_base(self) -> bool:
        found = await asyncio.to_thread(fitting_bases, self._model, self.app.settings)
        if not found:
            self.query_one(Notice).say(t("publishing.no_bases"), "warning")
            return False
        choices = [Choice(m.name, (one_line(m.name, 48), m.quantization or "?")) for m in found]
        taken = await self.app.push_screen_wait(Choose(t("publishing.base_question"), choices, self._base))
        if taken is not None:
            self._base = taken
            self._show_options()
        return taken is not None

    @work(group="options", exclusive=True)
    async def action_name(self) -> None:
        """Ask what the result is called."""
        self._called = (
            await self.app.push_screen_wait(AskText(t("publishing.name_question"), self._called))
        ).strip()
        self._show_options()

    @work(group="options", exclusive=True)
    async def action_imatrix(self) -> None:
        """Ask what the importance matrix is computed on."""
        asked = AskText(t("publishing.imatrix_question"), self._matrix, ExistingPath())
        self._matrix = (await self.app.push_screen_wait(asked)).strip()
        self._show_options()

    def _show_options(self) -> None:
        name = one_line(self._called, 60) or t("publishing.name_usual")
        rows = [t("publishing.name_row", name=name)]
        if self._model.kind is Kind.LORA:
            base = one_line(self._base, 60) or t("publishing.base_usual")
            rows.insert(0, t("publishing.base_row", name=base))
        matrix = one_line(Path(self._matrix).name, 60) or t("publishing.imatrix_none")
        rows.append(t("publishing.imatrix_row", file=matrix))
        self.query_one("#options", Static).update("\n".join(rows))

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


def _line(target: str) -> str:
    return "  " + cell(target, 12) + GAP + _about(target)


def _about(target: str) -> str:
    if target in targets.COMMON:
        return t(f"publishing.about_{target.lower()}")
    return t("publishing.about_needs_imatrix") if target in targets.NEEDS_IMATRIX else ""


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
