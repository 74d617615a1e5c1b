"""Questions that say the same: in the same words, or in almost the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from drkun_tui.training.data.text import Counts, Hashes, Texts, mix

GRAM = 3
"""Characters of what is compared: a text is the set of its runs of three characters."""

BINS = 32
ROWS_IN_BAND = 4
"""Eight bands of four: of two texts with a Jaccard index of `SAME` 99.7 % meet in a band, of two with 0.5
40 %, and those are told apart afterwards."""

SAME = 0.85
"""The Jaccard index from which on two questions are near duplicates."""

_LIKELY = 0.6
"""The share of equal bins below which a pair is not worth comparing: four standard deviations under
`SAME`."""

_PAIRS_AT_ONCE = 4_000
_NOTHING = np.uint16(0xFFFF)

Signatures = npt.NDArray[np.uint16]
Pairs = tuple[Counts, Counts]
_Number = TypeVar("_Number", np.int64, np.uint64)


def keys(texts: Texts) -> Hashes:
    """A hash of each whole text, 64 bits: equal texts have equal ones, and among a million different texts
    the chance of two equal ones is below one in ten million."""
    places = np.arange(len(texts.codes), dtype=np.uint64)
    places -= np.repeat(texts.starts[:-1].astype(np.uint64), texts.lengths)
    places <<= np.uint64(32)
    places |= texts.codes
    ends = np.zeros(len(places) + 1, np.uint64)
    np.cumsum(mix(places), out=ends[1:])
    return mix((ends[texts.starts[1:]] - ends[texts.starts[:-1]]) ^ texts.lengths.astype(np.uint64))


def repeated(of_rows: Hashes) -> Pairs:
    """Rows whose hash an earlier row has, in order, and the first row that has it."""
    order = np.argsort(of_rows, kind="stable")
    ranked = of_rows[order]
    begins = np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(ranked)]
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(ranked)), 0))]
    again, of = order[~begins], first[~begins]
    by_row = np.argsort(again)
    return again[by_row], of[by_row]


@dataclass(frozen=True, slots=True)
class Grams:
    """The runs of characters of several texts.

    Attributes:
        hashes: of each run.
        rows: whose it is.
    """

    hashes: Hashes
    rows: Counts


def grams(texts: Texts) -> Grams:
    """Every run of `GRAM` characters. The edges of a text count as characters, so that its first and last
    ones are in as many runs as any other: 头痛怎么办 is not almost 胃痛怎么办."""
    count, edge = len(texts.starts) - 1, GRAM - 1
    edges = texts.starts + edge * np.arange(count + 1)
    inside = np.ones(len(texts.codes) + edge * (count + 1), bool)
    for place in range(edge):
        inside[edges + place] = False
    codes = np.zeros(len(inside), np.uint64)
    codes[inside] = texts.codes
    # 21 bits hold any code point.
    packed = codes[:-2] << np.uint64(21)
    packed |= codes[1:-1]
    packed <<= np.uint64(21)
    packed |= codes[2:]
    # A run belongs to the text whose edge or character it begins with.
    whose = np.repeat(np.arange(count), texts.lengths + edge)
    says = packed != 0
    if not says.all():
        packed, whose = packed[says], whose[says]
    return Grams(mix(packed), whose)


def signatures(texts: Texts) -> Signatures:
    """A MinHash of each text's runs of characters, rows × `BINS`, by one permutation (Li, Owen and Zhang
    2012, arXiv:1208.1259), empty bins filled by rotation (Shrivastava and Li 2014, arXiv:1406.4784): the
    share of equal bins estimates the Jaccard index of two texts. A text without a run is all 0xFFFF."""
    count = len(texts.starts) - 1
    found = grams(texts)
    table = np.full((BINS, count), _NOTHING, np.uint16)
    bins = (found.hashes >> np.uint64(59)).view(np.int64)
    bins *= count
    bins += found.rows
    # 0xFFFF is kept for an empty bin.
    values = np.minimum(found.hashes.astype(np.uint16), np.uint16(0xFFFE))
    np.minimum.at(table.reshape(-1), bins, values)
    empty = table == _NOTHING
    filled = table.copy()
    carried = np.full(count, _NOTHING, np.uint16)
    away = np.zeros(count, np.uint16)
    nothing_yet = np.ones(count, bool)
    # Twice around, so that the last bins find the first ones.
    for turn, place in itertools.product(range(2), range(BINS - 1, -1, -1)):
        is_empty = empty[place]
        if turn:
            nothing_yet &= is_empty
            if not nothing_yet.any():
                break
        carried = np.where(is_empty, carried, table[place])
        away += np.uint16(1)
        away *= is_empty
        borrowed = carried + away * np.uint16(0x9E37)
        filled[place] = np.where(is_empty & (carried != _NOTHING), borrowed, table[place])
    return np.ascontiguousarray(filled.T)


def near(of_rows: Signatures, texts_of: Callable[[Counts], Texts], known: int | None = None) -> Pairs:
    """Rows that are near duplicates of an earlier one, in order, and the first such row.

    Candidates share a band of their signatures (locality-sensitive hashing, Indyk and Motwani 1998) with
    the row before them and with the first one there; each pair is then compared by its Jaccard index.
    The result depends on the rows and their order only, and a row that is added at the end changes
    nothing for those before it.

    Args:
        of_rows: rows × `BINS`.
        texts_of: the folded texts of some rows.
        known: rows from this one on are held against those before it, and not against each other.
    """
    earlier, later = _candidates(of_rows, len(of_rows) if known is None else known)
    same = np.zeros(len(later), bool)
    for begin in range(0, len(later), _PAIRS_AT_ONCE):
        part = slice(begin, begin + _PAIRS_AT_ONCE)
        same[part] = jaccard(texts_of(earlier[part]), texts_of(later[part])) >= SAME
    earlier, later = earlier[same], later[same]
    rows, first = np.unique(later, return_index=True)
    # Pairs are in the order of the later row, then of the earlier one.
    return rows, earlier[first]


def _candidates(of_rows: Signatures, known: int) -> Pairs:
    told = np.flatnonzero((of_rows != _NOTHING).any(axis=1))
    bands = np.ascontiguousarray(of_rows).view(np.uint64)
    found = []
    for band in bands.T:
        rows, ranked = _meeting(band[told], told)
        if not len(rows):
            continue
        begins = np.concatenate([[True], ranked[1:] != ranked[:-1]])
        places = np.arange(len(rows))
        first = rows[np.maximum.accumulate(np.where(begins, places, 0))]
        last = np.maximum.accumulate(np.where(begins | (rows < known), places, 0))
        before = rows[np.concatenate([last[:1], last[:-1]])]
        found += [others[~begins] * len(of_rows) + rows[~begins] for others in (first, before)]
    joined = _distinct(np.concatenate(found)) if found else np.zeros(0, np.int64)
    earlier, later = np.divmod(joined, max(1, len(of_rows)))
    earlier, later = earlier[earlier < known], later[earlier < known]
    likely = np.zeros(len(later), bool)
    for begin in range(0, len(later), _PAIRS_AT_ONCE):
        part = slice(begin, begin + _PAIRS_AT_ONCE)
        likely[part] = (of_rows[earlier[part]] == of_rows[later[part]]).mean(axis=1) >= _LIKELY
    earlier, later = earlier[likely], later[likely]
    by_later = np.lexsort((earlier, later))
    return earlier[by_later], later[by_later]


def _meeting(values: Hashes, rows: Counts) -> tuple[Counts, Hashes]:
    """The rows whose value another row has too, and that value: by value, then by row. Few are, so the quick
    sort that keeps no order goes first."""
    order = np.argsort(values)
    ranked = values[order]
    again = ranked[1:] == ranked[:-1]
    several = np.zeros(len(ranked), bool)
    several[1:] |= again
    several[:-1] |= again
    meeting, shared = rows[order[several]], ranked[several]
    return meeting[np.lexsort((meeting, shared))], shared


def _distinct(values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Each value once, in order; sorts its argument. numpy's own `unique` hashes, which takes ten times as
    long."""
    values.sort()
    distinct: npt.NDArray[_Number] = values[
        np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    ]
    return distinct


def jaccard(ones: Texts, others: Texts) -> npt.NDArray[np.float64]:
    """Runs of characters that both texts of a pair have, over those that one of them has; 0 where neither
    has any."""
    count = len(ones.starts) - 1
    # Pair, then run, then side: equal runs of a pair become neighbours. 40 bits tell runs apart.
    sides = []
    for side, found in enumerate((grams(ones), grams(others))):
        run = found.hashes >> np.uint64(24) << np.uint64(1)
        sides.append((found.rows.astype(np.uint64) << np.uint64(41)) | run | np.uint64(side))
    every = _distinct(np.concatenate(sides))
    runs = every >> np.uint64(1)
    pairs = (every >> np.uint64(41)).astype(np.int64)
    both = np.bincount(pairs[1:][runs[1:] == runs[:-1]], minlength=count)
    either = np.bincount(pairs, minlength=count) - both
    index: npt.NDArray[np.float64] = both / np.maximum(either, 1)
    return index
