"""A scrolling view of typeset lines, painted line by line.

Textual's Markdown and Static widgets lay out their whole text again whenever it grows. Here only the
lines that changed are painted, so that a streaming answer leaves the cores to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from drkun_tui.ui.typeset.wrap import Line

STYLES: dict[str, tuple[str, str, str]] = {
    "strong": ("", "", "bold"),
    "em": ("", "", "italic"),
    "strike": ("", "", "strike"),
    "code": ("accent", "surface", ""),
    "heading": ("accent", "", "bold"),
    "quote": ("secondary", "", ""),
    "bullet": ("accent", "", ""),
    "link": ("", "", "underline"),
    "dim": ("secondary", "", ""),
    "table": ("", "", ""),
    "label": ("accent", "", "bold"),
    "faint": ("secondary", "", "dim"),
    "accent": ("accent", "", ""),
    "warning": ("warning", "", ""),
    "danger": ("error", "", "bold"),
    "differs": ("", "", "underline"),
}
"""What a span's style may be: the theme's colour for text and ground ("" for the widget's own), and how
it is set. Not component classes of the style sheet, which cost 20 ms before the first frame."""


class LineView(ScrollView, can_focus=True):
    """Shows `lines`, and stays at their end while the reader is there."""

    ALLOW_SELECT = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end", "scroll_end", "keys.to_end", id="view.end", show=False),
        Binding("home", "scroll_home", "keys.to_start", id="view.start", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: Sequence[Line] = []
        self._strips: LRUCache[int, Strip] = LRUCache(512)
        self._styles: dict[str, Style] = {}
        self.following = True
        """Is the reader at the end, so that what comes should stay in sight?"""

    @property
    def at_end(self) -> bool:
        """Is the last line in sight?"""
        return self.scroll_offset.y >= self.max_scroll_y

    def lines_changed(self, first: int, *, follow: bool | None = None) -> None:
        """Paint `lines` from index `first` on; `follow` overrules whether to stay at the end."""
        follow = self.following if follow is None else follow
        for cached in list(self._strips.keys()):
            if cached >= first:
                self._strips.discard(cached)
        size = Size(self.size.width, len(self.lines))
        if size != self.virtual_size:
            self.virtual_size = size
        top = self.scroll_offset.y
        if follow and self.max_scroll_y > top:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)
        elif first < top + self.size.height:
            row = max(0, first - top)
            self.refresh(Region(0, row, self.size.width, self.size.height - row))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """The reader, or what comes, has scrolled."""
        super().watch_scroll_y(old_value, new_value)
        self.following = self.at_end

    def render_line(self, y: int) -> Strip:
        """One row of the window."""
        index = self.scroll_offset.y + y
        width = self.size.width
        if index >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        return self._strip(index).crop_extend(0, width, self.rich_style).apply_offsets(0, index)

    def _strip(self, index: int) -> Strip:
        selection = self.text_selection
        if selection is None and (cached := self._strips.get(index)) is not None:
            return cached
        segments = [Segment(span.text, self._style(span.style)) for span in self.lines[index]]
        if selection is not None and (chosen := selection.get_span(index)) is not None:
            segments = _highlight(
                segments, *chosen, self.screen.get_component_rich_style("screen--selection")
            )
        strip = Strip(segments, sum(cell_len(segment.text) for segment in segments))
        if selection is None:
            self._strips[index] = strip
        return strip

    def _style(self, names: str) -> Style:
        """A span may have several styles, the outermost first."""
        if (style := self._styles.get(names)) is None:
            style, colors = self.rich_style, self.app.theme_variables
            for name in names.split():
                text, ground, setting = STYLES[name]
                style += Style.parse(setting) + Style(color=colors.get(text), bgcolor=colors.get(ground))
            self._styles[names] = style
        return style

    def notify_style_update(self) -> None:
        """The theme or a class changed."""
        super().notify_style_update()
        self._strips.clear()
        self._styles.clear()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text that the mouse selected."""
        text = "\n".join("".join(span.text for span in line) for line in self.lines)
        return selection.extract(text), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002
        """The mouse selected something else."""
        self._strips.clear()
        self.refresh()


def _highlight(segments: list[Segment], start: int, end: int, style: Style) -> list[Segment]:
    """Lay `style` over the characters from `start` to `end`, -1 for the line's end."""
    out, at = [], 0
    for text, old, _ in segments:
        stop = len(text) if end == -1 else end - at
        left, right = max(0, min(len(text), start - at)), max(0, min(len(text), stop))
        right = max(left, right)
        pieces = ((text[:left], old), (text[left:right], (old or Style()) + style), (text[right:], old))
        out += [Segment(piece, look) for piece, look in pieces if piece]
        at += len(text)
    return out
