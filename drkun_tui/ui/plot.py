"""Curves as lines of text: dots of braille, two to a cell across and four down.

However many points there are, what is drawn is a highest and a lowest one for each column of dots, so that
no spike is lost and a long history costs no more than a short one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from drkun_tui.ui.table import cell
from drkun_tui.ui.typeset.wrap import Line, Span

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character by row and column (Unicode 15.0, block 2800)."""
_EMPTY = 0x2800

AXIS = "dim"
"""Style of the numbers at the axes."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve, or points.

    Attributes:
        xs: ascending.
        ys: one for each x; what is no finite number is left out.
        style: of its dots.
        sign: one narrow character that stands at every point in place of a line; of a curve that has one and
            `joined`, a few along it, so that it can be told from others without its colour.
        joined: draw a line.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    style: str
    sign: str = ""
    joined: bool = True


def interval(curves: Sequence[Curve]) -> Interval | None:
    """From the least to the greatest of all values; None when there are none."""
    values = [y for curve in curves for y in curve.ys if math.isfinite(y)]
    return (min(values), max(values)) if values else None


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers (1, 2 or 5 times a power of ten apart) within an interval."""
    if not high > low or most < 2:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while True:
        for times in (1, 2, 5):
            apart = step * times
            first = math.ceil(low / apart - 1e-9)
            last = math.floor(high / apart + 1e-9)
            if last - first < most:
                return [index * apart for index in range(first, last + 1)] or [low]
        step *= 10


def draw(curves: Sequence[Curve], width: int, height: int, x_end: float) -> list[Line]:
    """The curves over each other, the first at the bottom, with numbers at their axes.

    Args:
        width: cells, numbers included.
        height: lines, that of the numbers below included.
        x_end: where the horizontal axis ends; it begins at 0.
    """
    rows = height - 1
    if (span := interval(curves)) is None or rows < 2:
        return [()] * max(0, height)
    low, high = span
    if high - low < 1e-12:
        room = abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    marks = ticks(low, high, max(2, rows // 3 + 1))
    names = _names(marks)
    margin = max(map(len, names)) + 1
    columns = width - margin
    if columns < 8:
        return [()] * height
    x_end = max(x_end, 1.0, *(curve.xs[-1] for curve in curves if curve.xs))
    field = _Field(columns, rows, (0.0, x_end), (low, high))
    for curve in curves:
        field.add(curve)
    at = {field.row_of(mark): name for mark, name in zip(marks, names, strict=True)}
    lines: list[Line] = [
        (Span(cell(at.get(row, ""), margin - 1, right=True) + " ", AXIS), *field.line(row))
        for row in range(rows)
    ]
    return [*lines, (Span(" " * margin + _below(x_end, columns), AXIS),)]


def _names(marks: Sequence[float]) -> list[str]:
    """Numbers with as many places as their distance needs."""
    apart = marks[1] - marks[0] if len(marks) > 1 else abs(marks[0]) or 1.0
    if max(map(abs, marks)) < 0.01:
        return [f"{mark:.1e}" if mark else "0" for mark in marks]
    places = max(0, -math.floor(math.log10(apart) + 1e-9))
    return [f"{mark:.{places}f}" for mark in marks]


def _below(x_end: float, columns: int) -> str:
    """Round numbers below the horizontal axis, each beginning where it belongs, the last one ending there."""
    line = ""
    for mark in ticks(0, x_end, max(2, columns // 12)):
        name = f"{mark:,.0f}"
        at = min(round(mark / x_end * (columns - 1)), columns - len(name))
        if not line or at > len(line) + 1:
            line = line.ljust(at) + name
    return line


class _Field:
    """The cells between the axes."""

    def __init__(self, columns: int, rows: int, across: Interval, down: Interval) -> None:
        self._columns, self._rows = columns, rows
        self._across, self._down = across, down
        self._bits = [[0] * columns for _ in range(rows)]
        self._styles = [[""] * columns for _ in range(rows)]
        self._signs = [[""] * columns for _ in range(rows)]

    def _dot_row(self, y: float) -> int:
        low, high = self._down
        share = (high - min(max(y, low), high)) / (high - low)
        return round(share * (self._rows * 4 - 1))

    def row_of(self, y: float) -> int:
        """The line on which a value stands."""
        return self._dot_row(y) // 4

    def _column_of(self, x: float) -> int:
        return min(self._columns - 1, round(x / self._across[1] * (self._columns - 1)))

    def add(self, curve: Curve) -> None:
        """Draw a curve over what is there."""
        if curve.joined:
            self._join(curve)
            if curve.sign:
                self._sign_along(curve)
            return
        for x, y in zip(curve.xs, curve.ys, strict=True):
            if math.isfinite(y):
                self._put_sign(self._column_of(x), self.row_of(y), curve)

    def _join(self, curve: Curve) -> None:
        dots = self._columns * 2
        before: tuple[int, int] | None = None
        fresh: set[tuple[int, int]] = set()
        begin = 0
        for column in range(dots):
            edge = (column + 1) * self._across[1] / dots
            last = column == dots - 1
            end = len(curve.xs) if last else bisect_left(curve.xs, edge, lo=begin)
            values = [y for y in curve.ys[begin:end] if math.isfinite(y)]
            begin = end
            if not values:
                continue
            top, bottom = self._dot_row(max(values)), self._dot_row(min(values))
            if before is not None:
                self._stroke(before, (column, self._dot_row(values[0])), curve.style, fresh)
            self._stroke((column, top), (column, bottom), curve.style, fresh)
            before = (column, self._dot_row(values[-1]))

    def _stroke(
        self, begin: tuple[int, int], end: tuple[int, int], style: str, fresh: set[tuple[int, int]]
    ) -> None:
        """A straight line of dots. A cell belongs to one curve, the one that was drawn last."""
        (x1, y1), (x2, y2) = begin, end
        steps = max(abs(x2 - x1), abs(y2 - y1), 1)
        for step in range(steps + 1):
            x, y = round(x1 + (x2 - x1) * step / steps), round(y1 + (y2 - y1) * step / steps)
            column, row = x // 2, y // 4
            if (column, row) not in fresh:
                fresh.add((column, row))
                self._bits[row][column], self._styles[row][column] = 0, style
            self._bits[row][column] |= _DOTS[y % 4][x % 2]

    def _sign_along(self, curve: Curve) -> None:
        """Where a curve runs: at a quarter, at three, and at its end."""
        known = [(x, y) for x, y in zip(curve.xs, curve.ys, strict=True) if math.isfinite(y)]
        for share in (0.25, 0.6, 1.0) if known else ():
            x, y = known[round(share * (len(known) - 1))]
            self._put_sign(self._column_of(x), self.row_of(y), curve)

    def _put_sign(self, column: int, row: int, curve: Curve) -> None:
        self._signs[row][column], self._styles[row][column] = curve.sign, curve.style

    def line(self, row: int) -> Line:
        """One line of cells, runs of the same style together."""
        spans: list[Span] = []
        for bits, style, sign in zip(self._bits[row], self._styles[row], self._signs[row], strict=True):
            char = sign or (chr(_EMPTY | bits) if bits else " ")
            if spans and spans[-1].style == style:
                spans[-1] = Span(spans[-1].text + char, style)
            else:
                spans.append(Span(char, style))
        return tuple(spans)
