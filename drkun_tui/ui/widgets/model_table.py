"""The table of models; those that cannot be used are dimmed and say why."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from drkun_tui.library.overview import Entry
from drkun_tui.ui import model_rows
from drkun_tui.ui.table import GAP

COLUMNS = (
    ("name", "kind", "quantization", "size", "cpu", "gpu8", "gpu16", "speed", "basis"),
    ("name", "kind", "quantization", "size", "cpu", "gpu8", "gpu16", "speed"),
    ("name", "kind", "quantization", "size", "cpu", "speed"),
    ("name", "kind", "size", "speed"),
)
"""The first of these that has room is shown."""

NAME_CELLS = (44, 34, 26)
"""Names are cut before a column goes."""


MARK = "* "
"""Stands before what is in use."""


class ModelTable(Vertical):
    """Titles over an option list; options are numbered as the entries are."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._entries: Sequence[Entry] = ()
        self._in_use: Collection[str] = ()

    def compose(self) -> ComposeResult:
        """Titles and lines."""
        yield Static("", id="columns")
        yield OptionList(compact=True, id="models")

    def show(self, entries: Sequence[Entry], in_use: Collection[str]) -> None:
        """Show these; the highlight stays on the same model, or goes to the one in use.

        Args:
            in_use: names of the model and the adapter that answer.
        """
        before = self.highlighted
        wanted = {before.model.path} if before else {e.model.path for e in entries if e.model.name in in_use}
        self._entries, self._in_use = entries, in_use
        self._fill()
        at = next((i for i, entry in enumerate(entries) if entry.model.path in wanted), 0)
        self.query_one(OptionList).highlighted = at if entries else None

    @property
    def highlighted(self) -> Entry | None:
        """The highlighted model."""
        at = self.query_one(OptionList).highlighted
        return None if at is None or at >= len(self._entries) else self._entries[at]

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """Columns come and go with the room."""
        at = self.query_one(OptionList).highlighted
        self._fill()
        self.query_one(OptionList).highlighted = at

    def _fill(self) -> None:
        for columns, name_cells in itertools.product(COLUMNS, NAME_CELLS):
            titles, *lines = model_rows.lines(self._entries, columns, name_cells)
            if max(cell_len(line) for line, _ in (titles, *lines)) < self.size.width - len(MARK):
                break
        self.query_one("#columns", Static).update(Text("  " + titles[0], no_wrap=True))
        listing = self.query_one(OptionList)
        listing.clear_options()
        for index, (entry, (line, problem)) in enumerate(zip(self._entries, lines, strict=True)):
            mark = MARK if entry.model.name in self._in_use else " " * len(MARK)
            text = Text(mark + line, "dim" if problem else "", no_wrap=True, overflow="ellipsis")
            listing.add_option(Option(text.append(GAP + problem if problem else ""), id=str(index)))
