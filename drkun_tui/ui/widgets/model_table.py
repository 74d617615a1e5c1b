"""The table of models; those that cannot be used are dimmed and say why."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import overload

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from drkun_tui.library.overview import Entry
from drkun_tui.ui.model_rows import Lines, Rows
from drkun_tui.ui.table import GAP
from drkun_tui.ui.typeset.wrap import Line, Span
from drkun_tui.ui.widgets.row_list import RowList

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
    """Titles over a list of rows, which are numbered as the entries are."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._entries: Sequence[Entry] = ()
        self._rows: Rows | None = None
        self._width = 0
        self._in_use: Collection[str] = ()

    def compose(self) -> ComposeResult:
        """Titles and lines."""
        yield Static("", id="columns")
        yield RowList(id="models")

    def show(self, entries: Sequence[Entry], rows: Rows, in_use: Collection[str]) -> None:
        """Show these; the highlight stays on the same model, or goes to the one in use.

        Args:
            rows: of the entries.
            in_use: names of the model and the adapter that answer.
        """
        if rows == self._rows and in_use == self._in_use:
            self._entries = entries
            return
        before = self.highlighted
        wanted = {before.model.key} if before else {e.model.key for e in entries if e.model.name in in_use}
        self._entries, self._rows, self._in_use = entries, rows, in_use
        self._fill(next((i for i, entry in enumerate(entries) if entry.model.key in wanted), 0))

    @property
    def highlighted(self) -> Entry | None:
        """The highlighted model."""
        at = self.query_one(RowList).highlighted
        return None if at is None or at >= len(self._entries) else self._entries[at]

    def on_resize(self, event: events.Resize) -> None:
        """Columns come and go with the room."""
        if event.size.width != self._width:
            self._width = event.size.width
            self._fill(self.query_one(RowList).highlighted)

    def _fill(self, highlighted: int | None) -> None:
        if self._rows is None:
            return
        room = self.size.width - len(MARK) - 1
        fitting = (c for c in itertools.product(COLUMNS, NAME_CELLS) if self._rows.width(*c) <= room)
        lines = self._rows.lines(*next(fitting, (COLUMNS[-1], NAME_CELLS[-1])))
        self.query_one("#columns", Static).update(Text(" " * len(MARK) + lines.titles, no_wrap=True))
        self.query_one(RowList).show(_Marked(lines, self._entries, self._in_use), highlighted)


class _Marked(Sequence[Line]):
    """The lines of a table with a mark before what is in use, made when they are painted."""

    def __init__(self, lines: Lines, entries: Sequence[Entry], in_use: Collection[str]) -> None:
        self._lines, self._entries, self._in_use = lines, entries, in_use

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, at: int) -> Line: ...
    @overload
    def __getitem__(self, at: slice) -> list[Line]: ...
    def __getitem__(self, at: int | slice) -> Line | list[Line]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        text, problem = self._lines[at]
        mark = MARK if self._entries[at].model.name in self._in_use else " " * len(MARK)
        return (Span(mark + text + (GAP + problem if problem else ""), "dim" if problem else ""),)
