"""Columns of text as arrays of code points, so that numpy can look at every character at once."""

from __future__ import annotations

import functools
import sys
import unicodedata
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Codes: TypeAlias = npt.NDArray[np.uint32]
Hashes: TypeAlias = npt.NDArray[np.uint64]
Counts: TypeAlias = npt.NDArray[np.int64]
Strings: TypeAlias = Any
"""A ``pyarrow.StringArray``."""
Table: TypeAlias = Any
"""A ``pyarrow.Table``."""

_MANY = np.uint32(0xFFFFFFFF)
"""Marks a character that folds to several, or that may join with its neighbours."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Code points of all rows of a column, one row after the other.

    Attributes:
        codes: of all rows.
        starts: where each row begins in `codes`, and at the end where the last one ends; rows + 1 of them.
    """

    codes: Codes
    starts: Counts

    @property
    def lengths(self) -> Counts:
        """Characters of each row."""
        return np.diff(self.starts)


def texts(column: Strings) -> Texts:
    """The code points of a column without nulls."""
    raw, offsets = raw_bytes(column)
    if not len(raw):
        return Texts(np.zeros(0, np.uint32), np.zeros(len(offsets), np.int64))
    codes = np.frombuffer(str(raw.data, "utf8").encode("utf-32-le"), np.uint32)
    starts = np.zeros(len(offsets), np.int64)
    np.cumsum(pc.utf8_length(column).to_numpy(zero_copy_only=False), out=starts[1:])
    return Texts(codes, starts)


def raw_bytes(column: Strings) -> tuple[npt.NDArray[np.uint8], Counts]:
    """The UTF-8 of all rows of a column without nulls, one after the other, and where each begins; at the end
    where the last one ends."""
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    data = column.buffers()[2]
    raw = np.frombuffer(data, np.uint8)[first:last] if last > first else np.zeros(0, np.uint8)
    return raw, offsets - np.int64(first)


def rows_at(starts: Counts, places: npt.NDArray[np.bool_]) -> Counts:
    """The rows, each once, in which something stands.

    Args:
        starts: where each row begins, as in `Texts`.
        places: of each place, whether it stands there.
    """
    rows = np.searchsorted(starts, np.flatnonzero(places), side="right") - 1
    # In order already: `np.unique` would sort them.
    found: Counts = rows[np.diff(rows, prepend=-1) > 0]
    return found


def folded(column: Strings, whole: Texts | None = None) -> Texts:
    """Only what says something: NFKC, case folded, without white space, punctuation and symbols.

    Args:
        column: of texts.
        whole: their code points, where somebody has them already.
    """
    whole = whole or texts(column)
    codes = _folding()[whole.codes]
    several = np.flatnonzero(codes == _MANY)
    if len(several):
        rows = np.unique(np.searchsorted(whole.starts, several, side="right") - 1)
        kept = column.to_pylist()
        for row in rows:
            kept[row] = "".join(filter(_says, _fold(kept[row])))
        whole = texts(pa.array(kept, pa.string()))
        codes = _folding()[whole.codes]
        # What even folding leaves as it is, such as a lone combining mark, stands for itself.
        codes = np.where(codes == _MANY, whole.codes, codes)
    says = codes != 0
    before = np.zeros(len(codes) + 1, np.int64)
    np.cumsum(says, out=before[1:])
    return Texts(codes[says], before[whole.starts])


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _says(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


@functools.cache
def _folding() -> Codes:
    """What each code point folds to; 0 for what is left out."""
    table = np.zeros(sys.maxunicode + 1, np.uint32)
    # Between its planes of ideographs and that of its tags Unicode has no character, and behind that only
    # private ones.
    for code in (*range(0x40000), *range(0xE0000, 0xF0000)):
        if 0x3400 <= code <= 0x9FFF or 0xAC00 <= code <= 0xD7A3 or 0x20000 <= code <= 0x2EBEF:
            table[code] = code
            continue
        char = chr(code)
        category = unicodedata.category(char)
        if category[0] == "C":
            continue
        to = _fold(char)
        if category[0] == "M" or (len(to) > 1 and any(map(_says, to))):
            table[code] = _MANY
        elif len(to) == 1 and _says(to):
            table[code] = ord(to)
    return table


def mix(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195): every bit of
    the result depends on every bit of the value."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
