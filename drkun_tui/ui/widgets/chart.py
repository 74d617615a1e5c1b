"""Curves that grow, under a line that says what they are."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events

from drkun_tui.ui.plot import Curve, draw
from drkun_tui.ui.typeset.wrap import Line
from drkun_tui.ui.widgets.line_view import LineView


class Chart(LineView, can_focus=False):
    """Shows what it was told last, drawn anew when there is more room or less."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title: Line = ()
        self._curves: Sequence[Curve] = ()
        self._x_end = 1.0

    def show(self, title: Line, curves: Sequence[Curve], x_end: float) -> None:
        """Show these.

        Args:
            title: one line above them, which tells them apart.
            curves: the first at the bottom.
            x_end: where the horizontal axis ends.
        """
        self._title, self._curves, self._x_end = title, curves, x_end
        self._draw()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """Draw anew."""
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        plotted = draw(self._curves, width, height - 1, self._x_end)
        self.lines = [self._title, *plotted] if any(plotted) else [self._title] if self._title else []
        self.lines_changed(0, follow=False)
