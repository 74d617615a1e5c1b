"""Rows of text whose columns line up, with Chinese in them too."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

GAP = "  "


def fit_columns(rows: Sequence[Sequence[str]], most: Sequence[int]) -> list[int]:
    """Cells of each column: what its widest text needs, at most `most`."""
    return [
        min(limit, max((cell_len(row[column]) for row in rows), default=0))
        for column, limit in enumerate(most)
    ]


def cell(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells, cut with "…" where it is too long."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width else ""
    space = " " * (width - length)
    return space + text if right else text + space


def middle_cut(text: str, width: int) -> str:
    """`text` in at most `width` cells, cut in its middle: of a model's name the end tells as much as the
    beginning."""
    if cell_len(text) <= width or width < 3:
        return text
    end = text
    while cell_len(end) > width // 2:
        end = end[1:]
    return set_cell_size(text, width - 1 - cell_len(end)).rstrip() + "…" + end


def size(count: int) -> str:
    """Bytes as people write them: ``17.1 MB``, ``2.5 GB``."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit in ("B", "kB") or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
