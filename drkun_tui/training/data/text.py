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

    def rows(self) -> Counts:
        """The number of the row of each character."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    def sums(self, of_each: npt.NDArray[Any]) -> Counts:
        """The sum over each row of one number for each character."""
        ends = np.concatenate([[0], np.cumsum(of_each, dtype=np.int64)])
        sums: Counts = ends[self.starts[1:]] - ends[self.starts[:-1]]
        return sums


def texts(column: Strings) -> Texts:
    """The code points of a column without nulls."""
    lengths = pc.utf8_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    data = column.buffers()[2]
    raw = bytes(memoryview(data)[offsets[0] : offsets[-1]]) if data is not None and len(column) else b""
    codes = np.frombuffer(raw.decode("utf8").encode("utf-32-le"), np.uint32)
    return Texts(codes, np.concatenate([[0], np.cumsum(lengths)]))


def has_byte(column: Strings, char: str) -> bool:
    """Does a character of ASCII stand anywhere in the column? Far quicker than Arrow's search for it."""
    data = column.buffers()[2]
    return data is not None and bool((np.frombuffer(data, np.uint8) == ord(char)).any())


def folded(column: Strings) -> Texts:
    """Only what says something: NFKC, case folded, without white space, punctuation and symbols."""
    whole = texts(column)
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
    counts = whole.sums(says)
    return Texts(codes[says], np.concatenate([[0], np.cumsum(counts)]))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _says(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


@functools.cache
def _folding() -> Codes:
    """What each code point folds to; 0 for what is left out."""
    table = np.zeros(sys.maxunicode + 1, np.uint32)
    for code in range(sys.maxunicode + 1):
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
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
