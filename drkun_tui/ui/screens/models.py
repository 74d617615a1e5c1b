"""The models on disk, what fits this machine, and which one answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from drkun_tui import hardware, paths, profiles
from drkun_tui.i18n import t
from drkun_tui.library import inventory
from drkun_tui.library.fit import size_text
from drkun_tui.library.model import Model
from drkun_tui.library.plan import folders, loadable
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp


class ModelsScreen(Screen[None]):
    """A table of models over the profiles; details of the highlighted model beside it."""

    app: DrkunApp
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        # First, or the list takes the key and the bottom line does not show it.
        Binding("enter", "use", "keys.use", id="models.use", priority=True),
        Binding("tab", "app.focus_next", "keys.switch", id="models.switch"),
        Binding("r", "scan", "keys.scan", id="models.scan"),
        Binding("escape", "app.go('consult')", "keys.back", id="models.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._models: list[Model] = []
        self._machine = hardware.read()

    def compose(self) -> ComposeResult:
        """Table, profiles, details."""
        yield Header()
        with Horizontal(id="body"):
            with Vertical(id="tables"):
                yield Static("", id="columns")
                yield OptionList(compact=True, id="models")
                yield Static(t("models.profiles"), id="profiles-title")
                yield OptionList(compact=True, id="profiles")
            yield Static("", id="details", markup=False)
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Fill the tables."""
        header = self.query_one(Header)
        header.here = "models"
        free = size(self._machine.ram_available)
        header.status = (self._machine.cpu[:32], t("models.memory_free", free=free))
        self._show_profiles()
        self.query_one("#models", OptionList).focus()
        self.action_scan()

    @work(exclusive=True, exit_on_error=False)
    async def action_scan(self) -> None:
        """Look through the model folders again."""
        self._models = await asyncio.to_thread(inventory.scan, folders(self.app.settings))
        self._show_models()

    def _show_models(self) -> None:
        names = [
            t(f"models.column_{name}") for name in ("name", "kind", "quantization", "size", "context", "fits")
        ]
        rows = [self._row(model) for model in self._models]
        widths = fit_columns([names, *rows], (40, 12, 12, 10, 10, 24))
        right = (False, False, False, True, True, False)

        def line(row: list[str]) -> str:
            cells = (cell(text, width, right=r) for text, width, r in zip(row, widths, right, strict=True))
            return GAP.join(cells)

        self.query_one("#columns", Static).update(Text("  " + line(names), no_wrap=True))
        table = self.query_one("#models", OptionList)
        table.clear_options()
        current = 0
        for index, (model, row) in enumerate(zip(self._models, rows, strict=True)):
            used = model.name == self.app.settings.model
            current = index if used else current
            text = Text(("* " if used else "  ") + line(row), no_wrap=True, overflow="ellipsis")
            if not loadable(model):
                text.stylize(Style(dim=True))
            table.add_option(Option(text, id=str(index)))
        table.highlighted = current if self._models else None
        if not self._models:
            self.query_one("#details", Static).update(t("models.none", folder=str(paths.model_store())))

    def _row(self, model: Model) -> list[str]:
        if model.problems:
            state = one_line(model.problems[0].text, 24)
        else:
            fits = model.fits(self._machine)["cpu"]
            state = t("models.fits_yes" if fits.fits else "models.fits_no", need=size_text(fits.need_bytes))
        kind = t(f"models.kind_{model.kind.replace('-', '_')}")
        context = f"{model.context_length}" if model.context_length else ""
        return [
            one_line(model.name, 60),
            kind,
            model.quantization or "",
            size(model.size_bytes),
            context,
            state,
        ]

    def _show_profiles(self) -> None:
        if (plan := self.app.session.plan) is not None:
            self.query_one("#profiles-title", Static).update(Text(f"{t('models.profiles')}   {plan.reason}"))
        listing = self.query_one("#profiles", OptionList)
        for profile in profiles.LOCAL:
            possible, reason = profiles.availability(profile, self._machine)
            used = profile == self.app.settings.profile
            mark = "* " if used else "  "
            text = Text(mark + cell(t(f"profile.{profile}"), 12) + GAP + reason, no_wrap=True)
            listing.add_option(Option(text, id=str(profile), disabled=not possible))

    @on(OptionList.OptionHighlighted, "#models")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        model = self._models[int(event.option_id or 0)]
        machine = self._machine
        facts = [
            (t("models.column_kind"), t(f"models.kind_{model.kind.replace('-', '_')}")),
            (t("models.architecture"), model.architecture or "?"),
            (t("models.parameters"), f"{model.parameters / 1e6:,.1f} M" if model.parameters else "?"),
            (t("models.column_context"), str(model.context_length or "?")),
            (t("models.base"), model.base_model or ""),
        ]
        text = Text(one_line(model.name, 80) + "\n", style="bold")
        if model.demonstration:
            text.append(t("consult.demonstration") + "\n", "not bold")
        text.append("\n")
        width = max(len(cell(label, 0)) for label, _ in facts) or 12
        for label, value in facts:
            if value:
                text.append(cell(label, max(10, width)) + GAP, "not bold dim").append(
                    f"{clean(value)}\n", "not bold"
                )
        text.append("\n")
        for problem in model.problems:
            text.append(f"! {clean(str(problem))}\n", "not bold")
        for profile, fit in model.fits(machine).items():
            text.append(cell(t(f"profile.{profile}"), 10) + GAP, "not bold dim").append(
                f"{fit.reason}\n", "not bold"
            )
        text.append("\n" + clean(str(model.path)), "not bold dim")
        self.query_one("#details", Static).update(text)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        if self.app.session.turn is not None:
            self.query_one(Notice).say(t("consult.busy"), "warning")
            return
        if event.option_list.id == "profiles":
            self.app.change_settings(profile=event.option_id)
        else:
            model = self._models[int(event.option_id or 0)]
            if not loadable(model):
                problem = str(model.problems[0]) if model.problems else t("models.not_loadable")
                self.query_one(Notice).say(problem, "warning")
                return
            # An adapter belongs to the model that it was chosen with.
            self.app.change_settings(model=model.name, adapter=None)
        self.app.action_go("consult")
        self.app.load_model()

    def action_use(self) -> None:
        """Use what is highlighted in the list that has the focus."""
        if isinstance(self.focused, OptionList):
            self.focused.action_select()
