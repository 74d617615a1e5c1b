"""Who is to be compared: several of the models that are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from drkun_tui.comparison.contestants import MOST
from drkun_tui.i18n import t
from drkun_tui.ui.table import middle_cut
from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.typeset.wrap import Span
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.row_list import RowList


class ChooseContestants(ModalScreen[list[str] | None]):
    """Gives what was marked, in the order of marking; None when it was left.

    Args:
        possible: everyone that can be entered, with what each is called.
        marked: those of them that are at first.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "keys.mark_contestant", id="contestants.mark"),
        # First, or the list takes the key and the bottom line does not show it.
        Binding("enter", "take", "keys.take_contestants", id="contestants.take", priority=True),
        Binding("escape", "dismiss(None)", "keys.close", id="contestants.leave"),
    ]

    def __init__(self, possible: Mapping[str, str], marked: Sequence[str]) -> None:
        super().__init__()
        self._names, self._possible = possible, list(possible)
        self._marked = [spec for spec in marked if spec in possible]

    def compose(self) -> ComposeResult:
        """Title, list, what is told."""
        with Vertical(id="dialog", classes="-list"):
            yield Static(t("compare.choose", most=MOST), markup=False, id="dialog-title")
            yield RowList(id="possible")
            yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """As many rows as there are models, while there is room."""
        listing = self.query_one(RowList)
        listing.styles.height = max(3, min(len(self._possible), 14))
        listing.focus()

    @on(RowList.LaidOut)
    def _fill(self) -> None:
        listing = self.query_one(RowList)
        width = max(20, listing.size.width - 1)
        lines = []
        for spec in self._possible:
            # Their order is that of the columns.
            number = str(self._marked.index(spec) + 1) if spec in self._marked else " "
            name = middle_cut(one_line(self._names[spec], 300), width - 6)
            lines.append((Span(f"[{number}]  ", "label"), Span(name)))
        listing.show(lines, listing.highlighted or 0)

    @on(RowList.Selected)
    def _selected(self) -> None:
        self.action_mark()

    def action_mark(self) -> None:
        """Let the highlighted one take part, or not."""
        at = self.query_one(RowList).highlighted
        if at is None:
            return
        spec = self._possible[at]
        if spec in self._marked:
            self._marked.remove(spec)
        elif len(self._marked) == MOST:
            self.query_one(Notice).say(t("compare.too_many", most=MOST), "warning")
            return
        else:
            self._marked.append(spec)
        self.query_one(Notice).clear()
        self._fill()

    def action_take(self) -> None:
        """Compare these."""
        if len(self._marked) < 2:
            self.query_one(Notice).say(t("compare.mark_two"), "warning")
        else:
            self.dismiss(self._marked)
