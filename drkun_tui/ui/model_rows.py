"""The list of models as rows of text, for the screen and for ``drkun models``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from rich.cells import cell_len

from drkun_tui.i18n import t
from drkun_tui.library.fit import Fit
from drkun_tui.library.model import Model
from drkun_tui.library.overview import Entry
from drkun_tui.library.speed import Speed
from drkun_tui.profiles import Profile
from drkun_tui.ui.table import GAP, cell, middle_cut, size
from drkun_tui.ui.typeset.sanitise import one_line

GIB = 1024**3

WIDEST = {
    "name": 44,
    "kind": 14,
    "source": 18,
    "quantization": 10,
    "size": 10,
    "cpu": 10,
    "gpu8": 10,
    "gpu16": 10,
    "speed": 9,
    "basis": 10,
}
"""Every column, with its most cells."""

RIGHT = frozenset({"size", "cpu", "gpu8", "gpu16", "speed"})

_FIGURES = frozenset({"cpu", "gpu8", "gpu16", "speed", "basis"})
_FIT_COLUMNS = (Profile.CPU, Profile.GPU8, Profile.GPU16)


@dataclass(frozen=True, slots=True)
class Row:
    """One model's cells by column, and how many of the screen's cells each of them takes."""

    entry: Entry
    cells: dict[str, str]
    widths: dict[str, int]


@dataclass(frozen=True, slots=True)
class Rows:
    """The cells of all models, from which lines of any width are made.

    Attributes:
        titles: by column.
        each: in the order of the entries.
        widths: cells of the widest in each column.
    """

    titles: dict[str, str]
    each: list[Row]
    widths: dict[str, int]

    def width(self, columns: Sequence[str], name_cells: int) -> int:
        """Cells of a line."""
        return sum(self._most(column, name_cells) + len(GAP) for column in columns) - len(GAP)

    def lines(self, columns: Sequence[str], name_cells: int = WIDEST["name"]) -> Lines:
        """The lines with these columns."""
        return Lines(self, columns, {column: self._most(column, name_cells) for column in columns})

    def _most(self, column: str, name_cells: int) -> int:
        limit = name_cells if column == "name" else WIDEST[column]
        return min(limit, self.widths[column])


class Lines(Sequence[tuple[str, str]]):
    """A line for each model, made when somebody looks at it: of thousands a screen shows a few dozen.

    Each comes in two parts: the second is what is wrong with a model, in the place of its figures.
    """

    def __init__(self, rows: Rows, columns: Sequence[str], widths: Mapping[str, int]) -> None:
        self._rows, self._columns, self._widths = rows.each, columns, widths
        self._figures = next(i for i, column in enumerate(columns) if column in _FIGURES)
        self.titles = GAP.join(self._padded(rows.titles)).rstrip()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, at: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, at: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        row = self._rows[at].cells
        problem = row.get("problem", "")
        texts = self._padded(row)
        return GAP.join(texts[: self._figures] if problem else texts).rstrip(), problem

    def _padded(self, row: Mapping[str, str]) -> list[str]:
        named = {**row, "name": middle_cut(row["name"], self._widths["name"])}
        return [
            cell(named.get(column, ""), self._widths[column], right=column in RIGHT)
            for column in self._columns
        ]


def rows(entries: Sequence[Entry], before: Rows | None = None) -> Rows:
    """All rows. With thousands of models not for the thread that draws.

    Args:
        before: the rows at the last look; what is the same entry still is the same row.
    """
    titles = {column: t(f"models.column_{column}") for column in WIDEST}
    # In another language every row is another one.
    known = before.each if before is not None and before.titles == titles else []
    by_entry = {id(row.entry): row for row in known}
    each = [by_entry.get(id(entry)) or _row(entry) for entry in entries]
    widths = {
        column: max([cell_len(titles[column]), *(row.widths[column] for row in each)]) for column in WIDEST
    }
    return Rows(titles, each, widths)


def _row(entry: Entry) -> Row:
    made = cells(entry)
    return Row(entry, made, {column: cell_len(made.get(column, "")) for column in WIDEST})


def cells(entry: Entry) -> dict[str, str]:
    """One model's cells by column, each fit for a screen.

    A model with a problem has it in the place of the figures, under ``problem``.
    """
    model = entry.model
    row = {
        "name": ("  + " if entry.base is not None else "") + one_line(model.name, 60),
        "kind": kind(model),
        "source": t(f"inventory.source_{model.source.value}"),
        "quantization": model.quantization or "",
        "size": _size(model),
    }
    if model.problems:
        return row | {"problem": f"! {one_line(str(model.problems[0]), 160)}"}
    for profile in _FIT_COLUMNS:
        row[profile.value] = _need(entry.fits[profile.value], alone=model.is_adapter and entry.base is None)
    basis = t(f"speed.{entry.speed.label}") if entry.speed else ""
    return row | {"speed": _speed(entry.speed), "basis": basis}


def kind(model: Model) -> str:
    """What it is, in a word or two."""
    name = t(f"models.kind_{model.kind.replace('-', '_')}")
    if model.demonstration:
        return f"{name} {t('models.demonstration')}"
    return f"{name} r{model.rank}" if model.rank else name


def _size(model: Model) -> str:
    if model.expected_bytes and model.expected_bytes > model.size_bytes:
        return f"{model.size_bytes / model.expected_bytes:.0%}"
    return size(model.size_bytes)


def _need(fit: Fit, *, alone: bool) -> str:
    """What a model takes; of an adapter `alone` what it adds to whatever its base takes."""
    if not fit.need_bytes:
        return "-"
    if alone:
        return f"+{size(fit.need_bytes)}"
    need = f"{fit.need_bytes / GIB:.1f} GiB"
    return need if fit.fits else f"x {need}"


def _speed(speed: Speed | None) -> str:
    if speed is None or not speed.decode_tok_s:
        return ""
    return f"{speed.decode_tok_s:,.0f}" if speed.decode_tok_s >= 10 else f"{speed.decode_tok_s:.1f}"
