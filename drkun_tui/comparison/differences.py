"""Where answers differ, word by word, in Chinese character by character."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence

# Letters and digits outside of the CJK blocks make words; every other character stands for itself.
_TOKEN = re.compile(r"[^\W\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+|\S")

LEAST_COMMON = 2
"""Fewer tokens in a row than these are no common passage: two Chinese texts about nothing in common share a
的 here and a comma there, and marks that change at every character cannot be read."""


def tokens(text: str) -> list[tuple[int, int]]:
    """Start and end of each word, Chinese character and mark of punctuation; white space is none."""
    return [match.span() for match in _TOKEN.finditer(text)]


def differing(texts: Sequence[Sequence[str]]) -> list[list[bool]]:
    """For each token of each text, does it differ from the others?

    The first text is what the others are held against; in the first itself a token differs that no other
    text has.

    Args:
        texts: the tokens of each.
    """
    if not texts:
        return []
    reference, *others = texts
    in_reference = [len(others) > 0] * len(reference)
    marks = [in_reference]
    for other in others:
        in_other = [True] * len(other)
        for ours, theirs, size in common(reference, other):
            in_reference[ours : ours + size] = [False] * size
            in_other[theirs : theirs + size] = [False] * size
        marks.append(in_other)
    return marks


def common(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int, int]]:
    """The passages that both have, in order: where in the one, where in the other, how many tokens.

    Equal beginnings and ends are taken first: between them, `difflib` skips over what is frequent, which
    keeps it quick, and would find nothing to begin with in a text that goes round in a circle.
    """
    shorter = min(len(one), len(other))
    start = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    left = shorter - start
    end = next((i for i in range(left) if one[-1 - i] != other[-1 - i]), left)
    inner = difflib.SequenceMatcher(None, one[start : len(one) - end], other[start : len(other) - end])
    between = [
        (start + ours, start + theirs, size)
        for ours, theirs, size in inner.get_matching_blocks()
        if size >= LEAST_COMMON
    ]
    edges = (0, 0, start), (len(one) - end, len(other) - end, end)
    return [passage for passage in itertools.chain(edges[:1], between, edges[1:]) if passage[2]]
