"""Tables that line up with Chinese text in them, or rows of "key: value" where they are too wide."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from drkun_tui.ui.typeset.cells import edges
from drkun_tui.ui.typeset.wrap import Line, Span, wrap

Cell = Sequence[Span]

_COLUMN = Span(" | ", "table")
_CROSSING = "-+-"


def table_lines(
    header: Sequence[Cell], rows: Sequence[Sequence[Cell]], aligns: Sequence[str], width: int
) -> list[Line]:
    """The table in at most ``width`` cells.

    Args:
        header: a cell for each column; a cell is spans without newlines.
        rows: the same, for each row.
        aligns: "left", "center" or "right" for each column.
        width: the room for the whole table.
    """
    header = [[Span(text, f"{style} strong".strip()) for text, style in cell] for cell in header]
    widths = [max(map(_cells, column)) for column in zip(header, *rows, strict=True)]
    if sum(widths) + len(_COLUMN.text) * (len(widths) - 1) > width:
        return _records(header, rows, width)
    rule = Span(_CROSSING.join("-" * cells for cells in widths), "table")
    lines = [_row(row, widths, aligns) for row in (header, *rows)]
    return [lines[0], (rule,), *lines[1:]]


def _cells(cell: Cell) -> int:
    return sum(edges(span.text)[-1] for span in cell)


def _row(row: Sequence[Cell], widths: Sequence[int], aligns: Sequence[str]) -> Line:
    line: list[Span] = []
    for index, (cell, cells, align) in enumerate(zip(row, widths, aligns, strict=True)):
        if index:
            line.append(_COLUMN)
        free = cells - _cells(cell)
        before = {"right": free, "center": free // 2}.get(align, 0)
        after = free - before if index < len(widths) - 1 else 0
        line += [Span(" " * before), *cell, Span(" " * after)]
    return tuple(span for span in line if span.text)


def _records(header: Sequence[Cell], rows: Sequence[Sequence[Cell]], width: int) -> list[Line]:
    """Each row as lines of "key: value", a blank line between rows."""
    hanging = 2 if width > 8 else 0
    lines: list[Line] = []
    # A table without rows, as when it has only begun to stream in, shows its keys.
    for row in rows or [()]:
        if lines:
            lines.append(())
        for key, value in zip_longest(header, row, fillvalue=()):
            if _cells(key) or _cells(value):
                colon = [Span(": ")] if _cells(key) and row else []
                lines += wrap([*key, *colon, *value], width, 0, hanging)
    return lines
