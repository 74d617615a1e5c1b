"""Rows of measurements, and the table that they make."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

HEAD = ("measure", "ours", "compared with", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached.

    Attributes:
        of: what is held against the limit, the ratio or our own figure.
    """

    kind: Literal["at most", "at least"]
    limit: float
    of: Literal["ratio", "ours"] = "ratio"

    def met(self, value: float) -> bool:
        """Is `value` good enough?"""
        return value <= self.limit if self.kind == "at most" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One measure.

    Attributes:
        name: what was measured.
        ours: our figure, in `unit`.
        other: the figure that it is compared with, None where there is none.
        other_name: whose that is.
        ratio: the median of the ratios within the rounds, with the least and the greatest.
        target: None for a row that only informs.
        text: what else the figure should be read with.
    """

    name: str
    ours: float
    unit: str
    other: float | None = None
    other_name: str = ""
    ratio: tuple[float, float, float] | None = None
    target: Target | None = None
    text: str = ""

    @property
    def met(self) -> bool | None:
        """None for a row without a target."""
        if self.target is None:
            return None
        if self.target.of == "ours":
            return self.target.met(self.ours)
        return self.ratio is not None and self.target.met(self.ratio[0])

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        ours = f"{figure(self.ours)} {self.unit}" + (f" ({self.text})" if self.text else "")
        other = "" if self.other is None else f"{self.other_name} {figure(self.other)} {self.unit}"
        ratio = ""
        if self.ratio is not None:
            middle, least, most = self.ratio
            ratio = f"{middle:.2f}" if least == most else f"{middle:.2f} ({least:.2f}–{most:.2f})"
        target = ""
        if self.target is not None:
            unit = " ×" if self.target.of == "ratio" else f" {self.unit}"
            target = f"{self.target.kind} {figure(self.target.limit)}{unit}"
        met = {None: "", True: "yes", False: "**no**"}[self.met]
        return (self.name, ours, other, ratio, target, met)


def figure(value: float) -> str:
    """Three digits that matter, and no exponent."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratios(ours: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios of the rounds."""
    each = [own / other for own, other in zip(ours, others, strict=True)]
    return statistics.median(each), min(each), max(each)


def compare(
    name: str,
    unit: str,
    ours: Sequence[float],
    other_name: str,
    others: Sequence[float],
    target: Target | None = None,
    text: str = "",
) -> Row:
    """A row of medians, its ratio that of the rounds."""
    return Row(
        name,
        statistics.median(ours),
        unit,
        statistics.median(others),
        other_name,
        ratios(ours, others),
        target,
        text,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, which is readable in a terminal too."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    padded = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([padded[0], rule, *padded[1:]])
