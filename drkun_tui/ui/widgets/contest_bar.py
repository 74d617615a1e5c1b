"""What is compared, and how it is asked."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text
from textual.app import RenderResult
from textual.reactive import reactive
from textual.widget import Widget

from drkun_tui.ui.table import GAP, cell
from drkun_tui.ui.typeset.sanitise import one_line


class ContestBar(Widget):
    """One line: the question, and how it is asked."""

    question: reactive[str] = reactive("")
    told: reactive[tuple[str, ...]] = reactive(())
    tabs: reactive[tuple[int, int]] = reactive((0, 0))
    """Which column is shown, of how many; (0, 0) where all are."""

    def render(self) -> RenderResult:
        """The line."""
        right = GAP.join(self.told)
        shown, count = self.tabs
        line = Text(no_wrap=True, overflow="crop")
        for index in range(count):
            line.append(f" {index + 1} ", "reverse bold" if index == shown else "")
        if count:
            line.append(" ")
        room = self.size.width - line.cell_len - cell_len(right) - 2
        line.append(cell(one_line(self.question, max(1, room)), max(1, room)), "bold")
        return line.append("  " + right)
