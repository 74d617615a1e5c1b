"""One line above the prompt: what went wrong, and what to do about it."""

from __future__ import annotations

from typing import Literal

from rich.text import Text
from textual.app import RenderResult
from textual.reactive import reactive
from textual.widget import Widget

from drkun_tui.errors import DrkunError
from drkun_tui.ui.typeset.sanitise import clean

Level = Literal["info", "warning", "error"]

_SIGNS: dict[str, str] = {"info": "i", "warning": "!", "error": "x"}


class Notice(Widget):
    """Stays until something else is said or it is cleared; takes no room while it is empty."""

    message: reactive[str] = reactive("", layout=True)
    level: reactive[Level] = reactive[Level]("info")

    def say(self, message: str, level: Level = "info") -> None:
        """Show `message`."""
        self.level = level
        self.message = " ".join(clean(message).split())
        self.set_class(bool(self.message), "-visible")
        for name in _SIGNS:
            self.set_class(name == level, f"-{name}")

    def fail(self, error: DrkunError) -> None:
        """Show an error and its remedy."""
        self.say(f"{error.message}  {error.hint}".strip(), "error")

    def clear(self) -> None:
        """Nothing to say."""
        self.say("")

    def render(self) -> RenderResult:
        """The line, folded where it must be."""
        return Text(f"{_SIGNS[self.level]}  {self.message}", overflow="fold")
