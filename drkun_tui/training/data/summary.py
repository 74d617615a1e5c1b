"""What became of the rows of a data set: counted and told. Light to import."""

from __future__ import annotations

import msgspec

from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import has, t
from drkun_tui.library.printable import printable

REASONS = (
    *("malformed", "empty", "mojibake", "advertisement", "too_short", "too_long"),
    *("duplicate", "near_duplicate"),
)
"""Why a row is left out, in the order in which it is asked; each row has the first that is true of it."""

FLAGS = ("personal",)
"""Why a row that is kept ought to be looked at."""

ROLES = ("question", "answer", "reasoning", "system", "department", "title", "dialogue")
"""What a column can be mapped to; a dialogue is a list of turns, as in ``messages`` or ``conversations``."""

EDGES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""The bars of a histogram of lengths: up to so many characters each, and one for what is longer."""


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """Characters of one column over the usable rows."""

    median: int
    p90: int
    p99: int
    most: int
    histogram: tuple[int, ...]
    """Rows in each bar of `EDGES`."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a data set."""

    path: str
    """Below the folder that was given, or the name of the file or hub data set."""
    format: str = ""
    """``csv``, ``tsv``, ``json``, ``jsonl``, ``parquet`` or ``hub``."""
    encoding: str = ""
    rows: int = 0
    shape: str = ""
    columns: dict[str, str] = {}
    """From what a column is to its name in the file."""
    problem: str = ""
    """Why a file of a folder was left out: the kind of the error that it would be alone."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows."""

    rows: int
    """Read, malformed ones included."""
    usable: int
    train: int
    held_out: int
    unused: int
    """Usable ones above the recipe's number of rows."""
    dropped: dict[str, int]
    flagged: dict[str, int]
    """Usable rows that ought to be looked at: ``personal`` data in the question."""
    lengths: dict[str, Lengths]


class Summary(Split, frozen=True, kw_only=True):
    """A prepared data set."""

    files: tuple[Source, ...]
    fingerprint: str
    """Of the files' content, the options and the seed."""
    inputs: str
    """Of the files' paths, sizes and times, the options and the seed: what `prepare` compares to see that
    its work is done already."""


class StoppedError(Exception):
    """Somebody asked to stop; nothing was left behind."""


def data_error(kind: str, **values: object) -> DrkunError:
    """The error of a kind of the catalogue's section ``data``."""
    shown = {
        name: printable(value, 400) if isinstance(value, str) else value for name, value in values.items()
    }
    hint = f"data.{kind}_hint"
    return DrkunError(kind, t(f"data.{kind}", **shown), t(hint, **shown) if has(hint) else "", EXIT_BAD_INPUT)
