"""A line of text."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input, Static

from drkun_tui.ui.widgets.key_hints import KeyHints


class AskText(ModalScreen[str]):
    """One line of text; the old one when it was left with Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "keys.leave", id="ask.leave")]

    def __init__(self, title: str, value: str, suggester: Suggester | None = None) -> None:
        super().__init__()
        self._title, self._value, self._suggester = title, value, suggester

    def compose(self) -> ComposeResult:
        """Title and field."""
        with Vertical(id="dialog"):
            yield Static(self._title, markup=False)
            yield Input(self._value, compact=True, suggester=self._suggester)
        yield KeyHints()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        """Change nothing."""
        self.dismiss(self._value)
