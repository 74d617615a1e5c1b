"""A long text to read: a model's card, what its files say, a log."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.text_view import TextView


class Reader(ModalScreen[None]):
    """Title and text; any of the usual keys leaves it.

    Args:
        title: one line.
        text: a stranger's; cleaned here.
        markdown: is it to be typeset as Markdown?
        end: is its end to be seen first?
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss", "keys.close", id="reader.close")]

    def __init__(self, title: str, text: str, *, markdown: bool, end: bool = False) -> None:
        super().__init__()
        self._title, self._text, self._markdown = one_line(title, 100), text, markdown
        self._end = end

    def compose(self) -> ComposeResult:
        """Title and text."""
        with Vertical(id="dialog", classes="-wide"):
            yield Static(self._title, markup=False, id="dialog-title")
            yield TextView(id="text")
        yield KeyHints()

    def on_mount(self) -> None:
        """Show it."""
        view = self.query_one(TextView)
        view.show(self._text, markdown=self._markdown)
        view.focus()
        if self._end:
            view.call_after_refresh(view.scroll_end, animate=False)
