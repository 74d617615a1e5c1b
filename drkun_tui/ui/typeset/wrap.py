"""Breaks styled text into lines by cell width, with the rules of Chinese typesetting.

A line is found by bisecting the running widths for what fits, then walking back to the nearest
place where a break is allowed, so the cost is per line, not per word. Which place is taken depends
only on what stands before the end of that line and the first character after it: text that arrives
later can change no line but the last, which is what ``Wrapper`` relies on.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from drkun_tui.ui.typeset.cells import CLOSE, FLAG, JOIN, OPEN, SPACE, SPACES, WIDE, ZWJ, edges, kind_of


class Span(NamedTuple):
    """A run of text in one style.

    ``style`` is "" for plain text or semantic names separated by spaces: "strong", "em strong".
    """

    text: str
    style: str = ""


Line = tuple[Span, ...]
"""One line on the screen; an empty tuple is a blank one."""

# Break places, best first. NEVER lies inside a character and its marks.
_FREE, _SOFT, _WORD, _NEVER = range(4)

_PUSHED = 6
"""So many punctuation marks move to the next line together; a longer run is broken inside."""

_SPACE_RUN = re.compile(f"[{SPACES}]*")


def wrap(spans: Iterable[Span], width: int, indent: int = 0, hanging: int | None = None) -> list[Line]:
    """The spans as lines of at most ``width`` cells; newlines begin new lines. Never empty.

    The first line of all is indented by ``indent`` cells, the others by ``hanging`` (as much, when
    not given). Spaces at a break are dropped, nothing else is: a word that is wider than a line is
    split, a character that is wider than a line stands alone and sticks out. Expects clean text.
    """
    hanging = indent if hanging is None else hanging
    lines: list[Line] = []
    for source in _source_lines(spans):
        text = source[0].text if len(source) == 1 else "".join(span.text for span in source)
        before = hanging if lines else indent
        for line in _pick(source, _cuts(text, width - before, width - hanging)):
            before = hanging if lines else indent
            lines.append((Span(" " * before), *line) if before and line else line)
    return lines


def fold(text: str, width: int, style: str = "") -> list[Line]:
    """The text cut hard at ``width`` cells, every space kept: for code. Never empty."""
    lines: list[Line] = []
    for source in text.split("\n"):
        before = edges(source)
        size = len(source)
        start = 0
        while before[size] - before[start] > width:
            at = bisect_right(before, before[start] + width, start) - 1
            while at > start and _level(source, start, at) == _NEVER:
                at -= 1
            if at == start:
                at = _next_character(source, start)
                if at == size:
                    break
            lines.append((Span(source[start:at], style),))
            start = at
        lines.append((Span(source[start:], style),) if start < size else ())
    return lines


class Wrapper:
    """Wraps plain text while it streams in, as ``wrap`` would wrap the whole.

    An ``append`` costs what is new and the last line, however long the text has become. Expects
    clean text. To change the width, make another one.
    """

    def __init__(self, width: int, style: str = "") -> None:
        self.width = width
        self.style = style
        self.lines: list[Line] = [()]
        """All lines so far, at least one."""
        self._tail = ""  # the source of the last line, with spaces that hang behind it

    def append(self, text: str) -> int:
        """Add text; return the index of the first line that changed (``len(lines)`` if none did)."""
        if not text:
            return len(self.lines)
        first = len(self.lines) - 1
        sources = (self._tail + text).split("\n")
        new: list[Line] = []
        for source in sources:
            cuts = _cuts(source, self.width, self.width)
            new += ((Span(source[a:b], self.style),) if a < b else () for a, b in cuts)
        self._tail = sources[-1][cuts[-1][0] :]
        changed = first + (new[0] == self.lines[first])
        self.lines[first:] = new
        return changed


def _source_lines(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """The spans of each line of the source."""
    current: list[Span] = []
    for span in spans:
        first, *others = span.text.split("\n")
        if first:
            current.append(Span(first, span.style) if others else span)
        for other in others:
            yield current or [Span("")]
            current = [Span(other, span.style)] if other else []
    yield current or [Span("")]


def _pick(source: Sequence[Span], cuts: Iterable[tuple[int, int]]) -> Iterator[Line]:
    """The spans of each cut. Cuts are in order and do not overlap."""
    index = offset = 0  # the first span that reaches past what was used, and where it starts
    for start, end in cuts:
        line = []
        while start < end:
            text, style = source[index]
            if start < (after := offset + len(text)):
                stop = min(end, after)
                line.append(Span(text[start - offset : stop - offset], style))
                start = stop
            if start >= after:
                index += 1
                offset = after
        yield tuple(line)


def _cuts(text: str, first: int, width: int) -> list[tuple[int, int]]:
    """Start and end of each line of one source line; ``first`` is the room on the first line."""
    before = edges(text)
    size = len(text)
    filled = len(text.rstrip(SPACES))  # where the spaces begin that may hang over the edge
    start = _after_spaces(text, 0)
    if before[start] < first or start >= filled:
        start = 0
    # Otherwise the indentation fills the line, and is the first thing to go.
    cuts: list[tuple[int, int]] = []
    room = first
    while True:
        limit = before[start] + room
        if before[size] <= limit:
            cuts.append((start, size))
            return cuts
        if before[filled] <= limit:
            cuts.append((start, filled))
            return cuts
        at = _break(text, start, bisect_right(before, limit, start) - 1)
        end = start + len(text[start:at].rstrip(SPACES))
        # Indentation before a word that fills a line of its own would leave a blank line.
        if end > start:
            cuts.append((start, end))
            room = width
        start = _after_spaces(text, at)
        if start == size:
            return cuts


def _break(text: str, start: int, fits: int) -> int:
    """Where to break a line that begins at ``start`` and has room up to ``fits``."""
    soft = word = pushed = 0
    for at in range(fits, start, -1):
        level = _level(text, start, at)
        if level == _FREE:
            return at
        if level == _SOFT:
            soft = soft or at
            pushed += 1
            if pushed > _PUSHED:
                return soft
        elif level == _WORD:
            word = word or at
    return soft or word or _next_character(text, start)


def _level(text: str, start: int, at: int) -> int:
    """How good it is to break before ``text[at]``, on a line that begins at ``start``."""
    left, right = kind_of[text[at - 1]], kind_of[text[at]]
    if right & JOIN or text[at - 1] == ZWJ:
        return _NEVER
    if left & right & FLAG and _inside_flag(text, start, at):
        return _NEVER
    if (left | right) & SPACE:
        if left & right & SPACE:
            return _NEVER  # the ends of a run of spaces are as good, and enough
        # Spaces vanish at a break, so what matters is what will then end and begin a line.
        if left & SPACE:
            kept = text[start:at].rstrip(SPACES)
            left = kind_of[kept[-1]] if kept else 0
        else:
            beyond = _after_spaces(text, at)
            right = kind_of[text[beyond]] if beyond < len(text) else 0
    elif not (left | right) & WIDE:
        return _WORD
    return _SOFT if left & OPEN or right & CLOSE else _FREE


def _inside_flag(text: str, start: int, at: int) -> bool:
    """Whether ``at`` separates the two letters of a flag: an odd number of letters precedes it."""
    first = at
    while first > start and kind_of[text[first - 1]] & FLAG:
        first -= 1
    return (at - first) % 2 == 1


def _after_spaces(text: str, at: int) -> int:
    """The end of the run of spaces at ``at``. A space that carries a mark is no longer a space."""
    match = _SPACE_RUN.match(text, at)
    end = match.end() if match else at
    if at < end < len(text) and kind_of[text[end]] & JOIN:
        end -= 1
    return end


def _next_character(text: str, start: int) -> int:
    """The end of the character at ``start`` with its marks."""
    at = start + 1
    while at < len(text) and _level(text, start, at) == _NEVER:
        at += 1
    return at
