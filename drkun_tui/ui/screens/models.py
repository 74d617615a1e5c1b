"""The models on disk, what fits this machine, which one answers; downloads on their way."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import OptionList, Static

from drkun_tui import hardware, paths
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import adapters, aliases, inspection, inventory, manage, speed
from drkun_tui.library.fit import Wish
from drkun_tui.library.held import freed
from drkun_tui.library.hub.downloads import Download
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.overview import Entry
from drkun_tui.library.plan import folders
from drkun_tui.library.scanner import Scanner
from drkun_tui.library.speed import Known
from drkun_tui.settings import Settings
from drkun_tui.ui import model_rows
from drkun_tui.ui.room import held
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.choose import Choice, Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.table import size
from drkun_tui.ui.widgets.download_list import DownloadList
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.model_details import ModelDetails
from drkun_tui.ui.widgets.model_table import ModelTable
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.row_list import RowList

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp


class ModelsScreen(Screen[None]):
    """Models over downloads; details of the highlighted model beside them."""

    app: DrkunApp
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        # First, or the list takes the key and the bottom line does not show it.
        Binding("enter", "use", "keys.use", id="models.use", priority=True),
        Binding("d", "fetch", "keys.get_model", id="models.fetch"),
        Binding("v", "view", "keys.view", id="models.view"),
        Binding("c", "card", "keys.card", id="models.card", show=False),
        Binding("i", "import", "keys.import", id="models.import"),
        Binding("n", "rename", "keys.rename_model", id="models.rename", show=False),
        Binding("s", "scale", "keys.scale", id="models.scale", show=False),
        Binding("e", "export", "keys.export_model", id="models.export"),
        Binding("p", "publish", "keys.publish", id="models.publish", show=False),
        Binding("t", "evaluate", "keys.evaluate", id="models.evaluate"),
        Binding("l", "evaluations", "keys.evaluations", id="models.evaluations", show=False),
        Binding("delete,x", "remove", "keys.remove", id="models.remove"),
        Binding("space", "pause", "keys.pause", id="models.pause"),
        Binding("tab", "app.focus_next", "keys.switch", id="models.switch", show=False),
        Binding("r", "scan", "keys.scan", id="models.scan", show=False),
        Binding("escape", "app.go('consult')", "keys.back", id="models.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[Entry] = []
        self._rows: model_rows.Rows | None = None
        self._machine = hardware.read()
        self._room = freed(self._machine, held(self.app.session))
        """The machine for the model that is chosen here: the one that answers makes room for it."""
        self._known: Known | None = None
        self._scanner = Scanner()

    def compose(self) -> ComposeResult:
        """Table, downloads, how models are loaded; details."""
        yield Header()
        with Horizontal(id="body"):
            with Vertical(id="tables"):
                yield ModelTable(id="model-table")
                yield DownloadList(id="download-list")
                yield Static("", id="profile", markup=False)
            yield ModelDetails(id="details")
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Fill the tables."""
        self.query_one(Header).here = "models"
        self._show_machine()
        if (plan := self.app.session.plan) is not None:
            self.query_one("#profile", Static).update(f"{t('models.profiles')}  {plan.reason}")
        self.query_one(RowList).focus()
        self.show_downloads(self.app.downloads_now)
        self.app.watch_downloads()
        self.action_scan()
        self._measure()

    def _show_machine(self) -> None:
        free = t("models.memory_free", free=size(self._machine.ram_available))
        self.query_one(Header).status = (self._machine.cpu[:32], free)

    async def on_unmount(self) -> None:
        """Nobody looks any more."""
        await self._scanner.close()

    @work(group="measure", exclusive=True)
    async def _measure(self) -> None:
        """Find out how fast this machine is, once, while nobody is being answered."""
        if self.app.session.turn is not None or (await self._speeds()).rates is not None:
            return
        with contextlib.suppress(DrkunError):  # what is not known is not shown
            threads = self.app.settings.threads
            log = paths.home() / "probe.log"
            self._known = await speed.measure(paths.machine_file(), self._machine, log, threads)
            self.action_scan()

    async def _speeds(self) -> Known:
        """How fast this machine is, as far as that is known by now."""
        threads = self.app.settings.threads
        known = await asyncio.to_thread(speed.known, paths.machine_file(), self._machine, threads)
        if known.rates is None and self._known is not None:
            # Measured while others were busy: good for this screen, not worth keeping.
            known = replace(known, rates=self._known.rates)
        return known

    # Models

    @work(group="scan", exclusive=True)
    async def action_scan(self) -> None:
        """Look through the model folders again."""
        settings = self.app.settings
        wish = Wish(settings.context_length, settings.kv_cache)
        # Memory is not as free as it was.
        self._machine = await asyncio.to_thread(hardware.read)
        self._room = freed(self._machine, held(self.app.session))
        try:
            found = await self._scanner.look(folders(settings), self._room, await self._speeds(), wish)
        except DrkunError as error:
            for notice in self.query(Notice):  # none where it has died of being left
                notice.fail(error)
            return
        rows = self._rows = await asyncio.to_thread(model_rows.rows, found.entries, self._rows)
        # Left meanwhile, it loses its parts one after the other.
        if not all(self.query(part) for part in (Header, ModelTable, ModelDetails, Notice)):
            return
        self._entries = found.entries
        settings = self.app.settings
        self._show_machine()
        self.query_one(ModelTable).show(found.entries, rows, {settings.model, settings.adapter or ""})
        self.query_one(ModelDetails).show(self.query_one(ModelTable).highlighted)
        if not self._entries:
            self.query_one(Notice).say(t("models.none", folder=str(paths.model_store())))
        for folder in found.unreadable[:1]:
            told = t("inventory.unreadable", folder=str(folder.path), reason=folder.reason)
            self.query_one(Notice).say(told, "warning")

    @on(RowList.Highlighted)
    def _highlighted(self) -> None:
        self.query_one(ModelDetails).show(self.query_one(ModelTable).highlighted)
        # What can be done depends on what it is.
        self.refresh_bindings()

    @property
    def highlighted(self) -> str:
        """Name of the highlighted model, "" when there is none."""
        entry = self.query_one(ModelTable).highlighted
        return entry.model.name if entry else ""

    @property
    def _chosen(self) -> Entry | None:
        """The highlighted model, while the table has the focus."""
        table = self.query_one(ModelTable)
        return table.highlighted if table.has_focus_within else None

    @property
    def _download(self) -> Download | None:
        """The highlighted download, while the downloads have the focus."""
        listing = self.query_one(DownloadList)
        if not listing.has_focus_within:
            return None
        return next((d for d in self.app.downloads_now if d.id == listing.highlighted), None)

    @on(RowList.Selected)
    def _selected(self) -> None:
        if (entry := self._chosen) is not None:
            self._consult_with(entry)

    def action_use(self) -> None:
        """Use what is highlighted in the list that has the focus."""
        if isinstance(self.focused, OptionList | RowList):
            self.focused.action_select()

    def _consult_with(self, entry: Entry) -> None:
        """Choose a model, or an adapter with its base, and go back to ask it."""
        model = entry.model
        if model.is_adapter and entry.base is None:
            self._offer_base(model)
            return
        if model.problems:
            self.query_one(Notice).say(str(model.problems[0]), "warning")
            return
        answering = entry.base or model
        try:
            inventory.ensure_loadable(answering)
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return
        # An adapter belongs to the model that it was chosen with.
        adapter = model.name if model.is_adapter else None
        changes: dict[str, str | float | None] = {"model": answering.name, "adapter": adapter}
        if adapter != self.app.settings.adapter:
            # And a scale to the adapter.
            changes["adapter_scale"] = 1.0
        self._use(**changes)

    def _use(self, **changes: str | float | None) -> None:
        if self.app.session.turn is not None:
            self.query_one(Notice).say(t("consult.busy"), "warning")
            return
        self.app.change_settings(**changes)
        self.app.action_go("consult")
        self.app.load_model()

    @work(group="dialog", exclusive=True)
    async def _offer_base(self, adapter: Model) -> None:
        """An adapter without its base: fetch that, if it is known which it is."""
        wanted = adapters.missing_base(adapter, [entry.model for entry in self._entries])
        if wanted is None:
            said = str(adapter.problems[0]) if adapter.problems else t("models.no_base")
            self.query_one(Notice).say(said, "warning")
        elif await self.app.push_screen_wait(
            Confirm(t("models.fetch_base", adapter=adapter.name, base=wanted), t("models.fetch_base_keys"))
        ):
            self.app.find_model(wanted)

    def action_fetch(self) -> None:
        """Find a model on a hub."""
        self.app.find_model("")

    @work(group="dialog", exclusive=True)
    async def action_view(self) -> None:
        """Read what the model's files say, and its chat template."""
        if (entry := self._chosen) is None:
            return
        found = await asyncio.to_thread(inspection.details, entry.model)
        lines = [f"{key}: {value}" for key, value in found.metadata.items()]
        if found.chat_template:
            lines += ["", t("models.chat_template"), "", found.chat_template]
        text = "\n".join(lines) or t("models.nothing_to_view")
        await self.app.push_screen_wait(Reader(entry.model.name, text, markdown=False))

    @work(group="dialog", exclusive=True)
    async def action_card(self) -> None:
        """Read the model's card."""
        if (entry := self._chosen) is None:
            return
        text = await asyncio.to_thread(inspection.card, entry.model)
        await self.app.push_screen_wait(
            Reader(entry.model.name, text or t("models.no_card"), markdown=bool(text))
        )

    @work(group="dialog", exclusive=True)
    async def action_import(self) -> None:
        """Bring in a file or folder."""
        path = (await self.app.push_screen_wait(AskText(t("models.import_path"), ""))).strip()
        if not path:
            return
        modes = [
            Choice(mode, (t(f"models.import_{mode}"), t(f"models.import_{mode}_help")))
            for mode in ("copy", "link", "move")
        ]
        if (mode := await self.app.push_screen_wait(Choose(t("models.import_how"), modes))) is None:
            return
        notice = self.query_one(Notice)
        notice.say(t("models.importing", path=path))
        try:
            model = await asyncio.to_thread(manage.import_model, _expanded(path), manage.Mode(mode))
        except DrkunError as error:
            notice.fail(error)
            return
        notice.say(t("models.imported", name=model.name))
        self.action_scan()

    @work(group="dialog", exclusive=True)
    async def action_rename(self) -> None:
        """Give the model another name."""
        if (entry := self._chosen) is None:
            return
        old = entry.model.name
        new = (await self.app.push_screen_wait(AskText(t("models.rename_question"), old))).strip()
        if not new or new == old:
            return
        try:
            await asyncio.to_thread(aliases.rename, entry.model, new, [e.model for e in self._entries])
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return
        renamed = {name: new for name in ("model", "adapter") if getattr(self.app.settings, name) == old}
        self.app.change_settings(**renamed)
        self.action_scan()

    def action_export(self) -> None:
        """Make another kind of file of the model."""
        # Imported late: nobody else needs it.
        from drkun_tui.ui.screens.export import ExportScreen

        if (entry := self._chosen) is not None:
            self.app.push_screen(ExportScreen(entry.model))

    @work(group="dialog", exclusive=True)
    async def action_publish(self) -> None:
        """Upload the model to a hub."""
        from drkun_tui.publishing.faults import PublishingError, error_of
        from drkun_tui.publishing.release import draft
        from drkun_tui.ui.screens.publish import PublishScreen

        if (entry := self._chosen) is None:
            return
        models = [each.model for each in self._entries]
        try:
            made = await asyncio.to_thread(draft, entry.model, models)
        except PublishingError as error:
            self.query_one(Notice).fail(error_of(error.kind, error.values))
            return
        self.app.push_screen(PublishScreen(made))

    def action_evaluate(self) -> None:
        """Measure the model on a suite."""
        if (entry := self._chosen) is None:
            return
        model = entry.model
        if model.is_adapter and entry.base is None:
            self._offer_base(model)
        else:
            answering = entry.base or model
            self.app.evaluate(answering.name, model.name if model.is_adapter else "")

    def action_evaluations(self) -> None:
        """What was measured so far."""
        self.app.show_evaluations()

    @work(group="dialog", exclusive=True)
    async def action_scale(self) -> None:
        """Ask how strongly the adapter changes its base."""
        old = f"{self.app.settings.adapter_scale:g}"
        new = await self.app.push_screen_wait(AskText(t("models.scale_question"), old))
        if new == old:
            return
        try:
            scale = msgspec.convert({"adapter_scale": float(new)}, Settings).adapter_scale
        except (ValueError, msgspec.ValidationError):
            self.query_one(Notice).say(t("models.scale_bad"), "warning")
            return
        self._use(adapter_scale=scale)

    @work(group="dialog", exclusive=True)
    async def action_remove(self) -> None:
        """Remove the model, or cancel the download, after asking."""
        notice = self.query_one(Notice)
        try:
            if (download := self._download) is not None:
                await self._cancel(download)
            elif (entry := self._chosen) is not None:
                await self._remove(entry.model)
        except DrkunError as error:
            notice.fail(error)
        self.action_scan()

    async def _cancel(self, download: Download) -> None:
        question = Confirm(
            t("downloads.cancel_question", repo=download.request.repo), t("models.remove_keys")
        )
        # A finished one is only taken off the list.
        if download.phase == "done" or await self.app.push_screen_wait(question):
            await self.app.downloads.cancel(download.id)
        self.app.watch_downloads()

    async def _remove(self, model: Model) -> None:
        models = [entry.model for entry in self._entries]
        removal = await asyncio.to_thread(manage.removal, model, models)
        question = t("models.remove_question", name=model.name, size=size(removal.frees_bytes))
        if removal.note:
            question += f"\n{removal.note}"
        if await self.app.push_screen_wait(Confirm(question, t("models.remove_keys"))):
            await asyncio.to_thread(manage.remove, model)
            self.query_one(Notice).say(t("models.removed", size=size(removal.frees_bytes)))

    # Downloads

    def show_downloads(self, downloads: list[Download]) -> None:
        """Show how far they are."""
        if self.query("#downloads"):
            self.query_one(DownloadList).show(downloads)
            self.refresh_bindings()

    @work(group="pause")
    async def action_pause(self) -> None:
        """Pause the download, or go on with it."""
        if (download := self._download) is None:
            return
        try:
            if download.running:
                await self.app.downloads.pause(download.id)
            elif download.phase != "done":
                await self.app.downloads.resume(download.id)
        except DrkunError as error:
            self.query_one(Notice).fail(error)
        self.app.watch_downloads()

    @on(OptionList.OptionSelected, "#downloads")
    def _download_selected(self) -> None:
        self.action_pause()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer only what can be done with what is highlighted."""
        if action == "pause":
            return self._download is not None
        if action in ("view", "card", "rename", "publish", "evaluate"):
            return self._chosen is not None
        if action == "export":
            return self._chosen is not None and self._chosen.model.kind in (Kind.LORA, Kind.BASE)
        if action == "scale":
            return self.app.settings.adapter is not None
        return True


def _expanded(path: str) -> Path:
    """A path as people write it."""
    with contextlib.suppress(RuntimeError):  # ~somebody without a home
        return Path(path).expanduser()
    return Path(path)
