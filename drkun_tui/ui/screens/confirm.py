"""A question with yes and no."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from drkun_tui.ui.widgets.key_hints import KeyHints


class Confirm(ModalScreen[bool]):
    """Gives True for yes. Enter is not yes: nothing is lost by habit.

    Args:
        question: a sentence or two.
        keys: what the two keys do.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "keys.yes", id="confirm.yes"),
        Binding("n,escape", "answer(False)", "keys.no", id="confirm.no"),
    ]

    def __init__(self, question: str, keys: str) -> None:
        super().__init__()
        self._question, self._keys = question, keys

    def compose(self) -> ComposeResult:
        """The question and the two keys."""
        with Vertical(id="dialog"):
            yield Static(self._question, markup=False)
            yield Static(self._keys, markup=False, id="dialog-hint")
        yield KeyHints()

    def action_answer(self, answer: bool) -> None:
        """Close with the answer."""
        self.dismiss(answer)
