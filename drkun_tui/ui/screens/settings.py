"""What can be chosen: language, theme, sampling, the system prompt, the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from rich.cells import cell_len
from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from drkun_tui.i18n import t
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from drkun_tui.ui.keys import display
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.choose import Choose
from drkun_tui.ui.screens.compare import CompareScreen
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.contestants import ChooseContestants
from drkun_tui.ui.screens.evaluations import EvaluationsScreen
from drkun_tui.ui.screens.export import ExportScreen
from drkun_tui.ui.screens.fetch import FetchScreen
from drkun_tui.ui.screens.help import HelpScreen
from drkun_tui.ui.screens.models import ModelsScreen
from drkun_tui.ui.screens.new_evaluation import NewEvaluationScreen
from drkun_tui.ui.screens.new_run import NewRunScreen
from drkun_tui.ui.screens.pages import Pages
from drkun_tui.ui.screens.publish import PublishScreen
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.screens.recipe_editor import RecipeEditor
from drkun_tui.ui.screens.training import TrainingScreen
from drkun_tui.ui.table import GAP, cell
from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.widgets.conversation_list import ConversationList
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.prompt import Prompt
from drkun_tui.ui.widgets.row_list import RowList

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

SAMPLING = ("temperature", "top_p", "top_k", "repeat_penalty", "max_tokens", "seed")
NUMBERS = ("context_length", "threads")
REMOTE = ("remote_url", "remote_model")
GENERAL: dict[str, tuple[str, ...]] = {
    "language": ("auto", "zh", "en"),
    "think": ("True", "False"),
    "reasoning": ("shown", "collapsed", "hidden"),
    "hub": ("auto", "hf", "modelscope"),
}
LOADING: dict[str, tuple[str, ...]] = {
    "kv_cache": ("f16", "q8_0", "q4_0"),
    "flash_attention": ("auto", "on", "off"),
}
CHOICES = GENERAL | LOADING
RELOADS = (*NUMBERS, *LOADING)
VALUE_WIDTH = 12
"""Cells; a longer value pushes its explanation to the right."""


@dataclass
class Row:
    """One line of the screen; `kind` says what Enter does."""

    kind: str
    name: str
    value: str


class SettingsScreen(Screen[None]):
    """A list; Enter changes the highlighted line."""

    app: DrkunApp
    BINDINGS: ClassVar[list[BindingType]] = [
        # First, or the list takes the key and the bottom line does not show it.
        Binding("enter", "change", "keys.change", id="settings.change", priority=True),
        Binding("delete,backspace", "reset", "keys.reset", id="settings.reset"),
        Binding("escape", "app.go('consult')", "keys.back", id="settings.back"),
    ]

    def compose(self) -> ComposeResult:
        """The list."""
        yield Header()
        yield OptionList(compact=True, id="settings")
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Fill it."""
        self.query_one(Header).here = "settings"
        self._fill()
        self.query_one(OptionList).focus()
        # Later: the application keeps the new theme when it hears of it itself.
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_later(self._fill))

    def _rows(self) -> list[Row | str]:
        settings = self.app.settings
        sampling = msgspec.to_builtins(settings.sampling)
        rows: list[Row | str] = [t("settings.general")]
        rows += [Row("choice", name, str(getattr(settings, name))) for name in GENERAL]
        rows += [Row("theme", "theme", settings.theme), t("settings.sampling")]
        rows += [Row("sampling", name, _shown(sampling[name])) for name in SAMPLING]
        rows += [t("settings.model"), Row("text", "system", settings.system)]
        rows += [Row("number", name, str(getattr(settings, name))) for name in NUMBERS]
        rows += [Row("choice", name, str(getattr(settings, name))) for name in LOADING]
        rows += [Row("text", name, getattr(settings, name)) for name in REMOTE]
        rows.append(t("settings.keys"))
        return [*rows, *(Row("key", name, keys) for name, keys in self._keys().items())]

    def _owners(self) -> tuple[type[DOMNode], ...]:
        """Whatever has keys."""
        places = (ConsultScreen, ModelsScreen, FetchScreen, TrainingScreen, NewRunScreen, CompareScreen)
        dialogs = (
            SettingsScreen,
            ChooseContestants,
            HelpScreen,
            Confirm,
            AskText,
            Choose,
            Reader,
            Pages,
            RecipeEditor,
            ExportScreen,
            PublishScreen,
            EvaluationsScreen,
            NewEvaluationScreen,
        )
        return (type(self.app), Prompt, ConversationList, LineView, RowList, *places, *dialogs)

    def _keys(self) -> dict[str, str]:
        """Every action that has an id, with the keys it has now."""
        bindings = [
            binding
            for owner in self._owners()
            for binding in owner.BINDINGS
            if isinstance(binding, Binding) and binding.id
        ]
        chosen = self.app.settings.keys
        return {binding.id or "": chosen.get(binding.id or "", binding.key) for binding in bindings}

    def _fill(self) -> None:
        listing = self.query_one(OptionList)
        at = listing.highlighted
        listing.clear_options()
        self._shown: list[Row | str] = self._rows()
        for index, row in enumerate(self._shown):
            if isinstance(row, str):
                if index:
                    listing.add_option(Option("", disabled=True))
                listing.add_option(Option(Text(row, "bold"), disabled=True))
                continue
            label, value = self._label(row), row.value
            if row.kind == "key":
                value = ", ".join(display(key) for key in value.split(","))
            elif row.kind == "choice":
                value = t(f"settings.{row.name}_{row.value.lower()}")
            text = Text(f"  {cell(label, 30)}{GAP}", no_wrap=True, overflow="ellipsis")
            shown = one_line(value, 60)
            text.append(shown + " " * (VALUE_WIDTH - cell_len(shown)), "bold")
            text.append(GAP + self._explanation(row), "dim")
            listing.add_option(Option(text, id=str(index)))
        listing.highlighted = at if at is not None else 1

    def _label(self, row: Row) -> str:
        return t(self._description(row.name)) if row.kind == "key" else t(f"settings.{row.name}")

    def _explanation(self, row: Row) -> str:
        return row.name if row.kind == "key" else t(f"settings.{row.name}_help")

    def _description(self, action_id: str) -> str:
        for owner in self._owners():
            for binding in owner.BINDINGS:
                if isinstance(binding, Binding) and binding.id == action_id:
                    return binding.description
        return "keys.none"

    def _highlighted(self) -> Row | None:
        listing = self.query_one(OptionList)
        if listing.highlighted is None:
            return None
        option = listing.get_option_at_index(listing.highlighted)
        row = self._shown[int(option.id)] if option.id else None
        return row if isinstance(row, Row) else None

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self.action_change()

    @work(exclusive=True, exit_on_error=False)
    async def action_change(self) -> None:
        """Change the highlighted line."""
        if (row := self._highlighted()) is None:
            return
        if row.kind == "choice":
            values = CHOICES[row.name]
            value = values[(values.index(row.value) + 1) % len(values)]
            self._set(row, value)
        elif row.kind == "theme":
            self.app.action_change_theme()
        elif row.kind == "key":
            if key := await self.app.push_screen_wait(AskKey(self._label(row))):
                self._set(row, key)
        else:
            value = await self.app.push_screen_wait(AskText(self._label(row), row.value))
            if value != row.value:
                self._set(row, value.strip())

    def action_reset(self) -> None:
        """Back to the default."""
        if (row := self._highlighted()) is None:
            return
        if row.kind == "key":
            keys = {k: v for k, v in self.app.settings.keys.items() if k != row.name}
            self._apply_keys(keys)
        else:
            default = Sampling() if row.kind == "sampling" else Settings()
            self._set(row, _shown(getattr(default, row.name)))

    def _set(self, row: Row, value: str) -> None:
        """Check and keep one value; a wrong one is told and changes nothing."""
        if row.kind == "key":
            self._apply_keys({**self.app.settings.keys, row.name: value})
            return
        try:
            changes = _checked(self.app.settings, row, value)
        except (msgspec.ValidationError, ValueError) as error:
            self.query_one(Notice).say(f"{t(f'settings.{row.name}')}: {error}", "warning")
            return
        self.query_one(Notice).clear()
        if row.name == "language":
            self.app.change_language(value)
            return
        self.app.change_settings(**changes)
        reloads = row.name in RELOADS or (row.name in REMOTE and self.app.settings.profile == "remote")
        if reloads and self.app.session.turn is None:
            self.app.load_model()
        self._fill()

    def _apply_keys(self, keys: dict[str, str]) -> None:
        taken = next((n for n, k in self._keys().items() if n not in keys and k in keys.values()), None)
        if taken:
            self.query_one(Notice).say(t("settings.key_taken", action=t(self._description(taken))), "warning")
        self.app.change_settings(keys=keys)
        self.app.set_keymap(keys)
        self._fill()


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def _checked(settings: Settings, row: Row, value: str) -> dict[str, Any]:
    """The change of settings that `value` means.

    Raises:
        msgspec.ValidationError: it is not allowed.
        ValueError: it is no number.
    """
    if row.kind == "sampling":
        raw = msgspec.to_builtins(settings.sampling)
        number = None if not value and row.name == "seed" else float(value) if "." in value else int(value)
        return {"sampling": msgspec.convert({**raw, row.name: number}, Sampling)}
    plain: Any = value
    if row.kind == "number":
        plain = int(value or 0)
    elif row.name == "think":
        plain = value == "True"
    msgspec.convert({row.name: plain}, Settings)
    return {row.name: plain}


class AskKey(ModalScreen[str]):
    """The next key pressed; "" for Escape."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        """Title."""
        with Vertical(id="dialog"):
            yield Static(t("settings.press_key", action=self._title), markup=False)

    def on_key(self, event: events.Key) -> None:
        """Take the key."""
        event.stop()
        self.dismiss("" if event.key == "escape" else event.key)
