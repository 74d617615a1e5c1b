"""The votes of blind comparisons as rows of text, for the screen and for ``drkun compare --votes``."""

from __future__ import annotations

from collections.abc import Sequence

from drkun_tui.comparison.votes import Pair
from drkun_tui.i18n import t
from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.typeset.sanitise import one_line

TITLES = ("one", "other", "wins", "losses", "equal", "p")
WIDEST = (34, 34, 10, 10, 10, 10)
"""Cells of each column."""


def lines(pairs: Sequence[Pair]) -> list[str]:
    """A line of titles, and one for each pair."""
    rows = [[t(f"compare.column_{title}") for title in TITLES]]
    for pair in pairs:
        counts = (str(count) for count in (pair.wins, pair.losses, pair.equal))
        rows.append([one_line(pair.one, 60), one_line(pair.other, 60), *counts, f"{pair.p:.3f}"])
    widths = fit_columns(rows, WIDEST)
    return [
        GAP.join(
            cell(text, width, right=column > 1)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
