"""Where the question is typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea


class Prompt(TextArea):
    """Several lines, Enter sends, the arrow keys at its edges walk through earlier questions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "keys.send", id="prompt.send"),
        Binding(
            "ctrl+j,shift+enter,alt+enter", "newline", "keys.newline", id="prompt.newline", key_display="^J"
        ),
    ]

    @dataclass
    class Submitted(Message):
        """A question was sent."""

        text: str

    @dataclass
    class Paged(Message):
        """What is read should be scrolled by a page, back or forth."""

        direction: int

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            id=id, soft_wrap=True, show_line_numbers=False, compact=True, highlight_cursor_line=False
        )
        # A cursor that stands still is as easy to see, and costs no paint twice a second.
        self.cursor_blink = False
        self._history: list[str] = []
        self._place = 0
        self._draft = ""

    def remember(self, questions: list[str]) -> None:
        """Set the earlier questions, newest first."""
        self._history = questions
        self._place = 0

    def replace_text(self, text: str) -> None:
        """Put `text` in, the cursor behind it."""
        self.text = text
        self.move_cursor(self.document.end)

    def action_submit(self) -> None:
        """Send what is typed, if anything is, and make room for the next question."""
        if text := self.text.strip():
            if not self._history or self._history[0] != text:
                self._history.insert(0, text)
            self._place = 0
            self.clear()
            self.post_message(self.Submitted(text))

    def give_back(self, text: str) -> None:
        """Put a question back that could not be asked, before what has been typed since."""
        self.replace_text(text + self.text)

    def action_newline(self) -> None:
        """Begin a new line."""
        self.insert("\n")

    async def _on_key(self, event: events.Key) -> None:
        # Own keys run here, in line with the text typed before and after them: a binding would be run
        # by the application, which may be ahead of this widget when text is pasted or typed fast.
        if not event.is_printable:
            active = self.screen.active_bindings.get(event.key)
            if active is not None and active.node is self and active.enabled:
                event.stop()
                event.prevent_default()
                await self.run_action(active.binding.action)
                return
        await super()._on_key(event)

    def action_cursor_up(self, select: bool = False) -> None:
        """Up; from the first line to an older question."""
        if select or not self.cursor_at_first_line or not self._recall(1):
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Down; from the last line to a newer question."""
        if select or not self.cursor_at_last_line or not self._recall(-1):
            super().action_cursor_down(select)

    def action_cursor_page_up(self) -> None:
        """The prompt is never a page long: what is read is paged."""
        self.post_message(self.Paged(-1))

    def action_cursor_page_down(self) -> None:
        """See `action_cursor_page_up`."""
        self.post_message(self.Paged(1))

    def _recall(self, step: int) -> bool:
        """Show an older or newer question; place 0 is the draft."""
        place = self._place + step
        if not 0 <= place <= len(self._history):
            return False
        if self._place == 0:
            self._draft = self.text
        self._place = place
        self.replace_text(self._history[place - 1] if place else self._draft)
        return True
