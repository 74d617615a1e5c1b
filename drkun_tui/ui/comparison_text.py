"""Comparisons as text, for the screen and for ``drkun compare``."""

from __future__ import annotations

from collections.abc import Sequence

from drkun_tui.comparison.votes import Pair
from drkun_tui.consult.conversation import Turn
from drkun_tui.i18n import t
from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.typeset.sanitise import one_line

TITLES = ("one", "other", "wins", "losses", "equal", "p")
WIDEST = (34, 34, 10, 10, 10, 10)
"""Cells of each column."""


def vote_lines(pairs: Sequence[Pair]) -> list[str]:
    """The votes of blind comparisons: a line of titles, and one for each pair."""
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


def figures(turn: Turn, *, anonymous: bool = False) -> list[str]:
    """How much was written, and how fast.

    Args:
        anonymous: without speeds, which would give the contestant away.
    """
    usage, timings = turn.usage, turn.timings
    thinking, answer = usage.get("thinking_tokens", 0), usage.get("answer_tokens", 0)
    parts = [t("compare.lengths", thinking=thinking, answer=answer)] if thinking + answer else []
    if anonymous:
        return parts
    if speed := timings.get("decode_tok_s"):
        parts.append(f"{speed:.0f} tok/s")
    if timings:
        parts.append(t("compare.ttft", seconds=f"{timings['ttft_s']:.2f}"))
    return parts
