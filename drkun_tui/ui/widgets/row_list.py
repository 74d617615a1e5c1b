"""A list of rows to choose from, painted row by row.

Textual's OptionList measures every option whenever they change, which takes a third of a second for
two thousand; here only the rows in sight cost anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from drkun_tui.ui.typeset.wrap import Line
from drkun_tui.ui.widgets.line_view import LineView


class RowList(LineView):
    """Shows one line a row; one of them is highlighted."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"row-list--highlighted"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "keys.row_up", id="rows.up", show=False),
        Binding("down", "move(1)", "keys.row_down", id="rows.down", show=False),
        Binding("pageup", "page(-1)", "keys.page_up", id="rows.page_up", show=False),
        Binding("pagedown", "page(1)", "keys.page_down", id="rows.page_down", show=False),
        Binding("home", "first", "keys.to_start", id="rows.first", show=False),
        Binding("end", "last", "keys.to_end", id="rows.last", show=False),
        Binding("enter", "select", "keys.choose", id="rows.select", show=False),
    ]

    @dataclass
    class Highlighted(Message):
        """The highlight has moved, or the rows have changed under it."""

        index: int | None

    @dataclass
    class Selected(Message):
        """A row was chosen."""

        index: int

    class LaidOut(Message):
        """There is room for rows, or other room than before; the place to fit them to their width.

        Waiting for it by `call_after_refresh` until there is a width would not do: a screen that calls
        itself again and again gives way to nobody, the application that applies the styles included.
        """

    highlighted: reactive[int | None] = reactive(None)
    """Index of the highlighted row; None when there is none."""

    def show(self, lines: Sequence[Line], highlighted: int | None) -> None:
        """Show these rows; those in sight are asked for."""
        self.lines = lines
        self.lines_changed(0, follow=False)
        self.set_reactive(RowList.highlighted, highlighted if self.lines else None)
        self._tell()

    def validate_highlighted(self, index: int | None) -> int | None:
        """Stay among the rows."""
        if index is None or not self.lines:
            return None
        return max(0, min(index, len(self.lines) - 1))

    def watch_highlighted(self, old: int | None, new: int | None) -> None:
        """Repaint the two rows, and keep the highlighted one in sight."""
        for index in (old, new):
            if index is not None and index < len(self.lines):
                self.refresh_line(index - self.scroll_offset.y)
        self._tell()

    def _tell(self) -> None:
        if self.highlighted is not None:
            top, height = self.scroll_offset.y, max(1, self.size.height)
            if not top <= self.highlighted < top + height:
                above = self.highlighted < top
                y = self.highlighted if above else self.highlighted - height + 1
                self.scroll_to(y=y, animate=False, immediate=True, force=True)
        self.post_message(self.Highlighted(self.highlighted))

    def render_line(self, y: int) -> Strip:
        """One row of the window."""
        strip = super().render_line(y)
        if self.scroll_offset.y + y != self.highlighted:
            return strip
        style = self.get_component_rich_style("row-list--highlighted")
        plain = Strip([Segment(segment.text, None) for segment in strip])
        return plain.apply_style(style).extend_cell_length(self.size.width, style)

    def action_move(self, rows: int) -> None:
        """Highlight a row that stands so many below."""
        self.highlighted = (self.highlighted or 0) + rows

    def action_page(self, pages: int) -> None:
        """Move by so many windows."""
        self.action_move(pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """Highlight the first row."""
        self.highlighted = 0

    def action_last(self) -> None:
        """Highlight the last row."""
        self.highlighted = len(self.lines) - 1

    def action_select(self) -> None:
        """Choose the highlighted row."""
        if self.highlighted is not None:
            self.post_message(self.Selected(self.highlighted))

    def on_show(self) -> None:
        """It has a place on the screen."""
        self.post_message(self.LaidOut())

    def on_resize(self) -> None:
        """It has another size."""
        self.post_message(self.LaidOut())

    def on_click(self, event: events.Click) -> None:
        """Highlight the row that was clicked; a second click chooses it."""
        row = self.scroll_offset.y + event.y
        if row < len(self.lines):
            again = row == self.highlighted
            self.highlighted = row
            if again:
                self.action_select()
