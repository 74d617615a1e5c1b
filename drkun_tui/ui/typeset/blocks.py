"""Cuts Markdown source into top-level blocks that can be rendered one by one, also while it streams.

A block begins after a blank line, after a heading or a closed code fence, and at every top-level
heading, fence and list item. So a list of 250 items is 250 blocks, and only the open one has to be
laid out again when text arrives. Blank lines belong to the block before them; those at the very
start to the first block. What is indented under a list item stays with it, blank lines between
included; a fence that is never closed runs to the end.

The cuts never move: text that is appended can only split the last block or make it longer. A line
that is still growing therefore counts as what it will be whatever follows: "# " begins a heading at
once, while "```js" waits for its newline, because "```js```" is inline code.
"""

from __future__ import annotations

import re

_HEADING = re.compile(r" {0,3}#{1,6}[ \t\n]")
_ITEM = re.compile(r"( {0,3}(?:[-+*]|\d{1,9}[.)]))(?:([ \t]+)|\n)")
_RULE = re.compile(r" {0,3}([-*])[ \t]*(?:\1[ \t]*){2,}\n")
_FENCE = re.compile(r" {0,3}(?:(`{3,})[^`]*\n|(~{3,}))")
# What begins a block right below a line of text. An empty item does not, as in CommonMark.
_BEGINS = re.compile(r" {0,3}(?:#{1,6}[ \t\n]|(?:[-+*]|\d{1,9}[.)])[ \t]|`{3,}[^`]*\n|~{3,})")


class BlockStream:
    """Cuts Markdown into blocks while it streams in.

    The blocks handed out by ``append``, then ``tail``, are at any moment ``blocks()`` of all the
    text so far, however it was cut into chunks.
    """

    def __init__(self) -> None:
        self._block: list[str] = []  # the lines of the open block
        self._line = ""  # the part of the last line that has come, without its newline
        self._placed = False  # whether that part already is known to begin the open block
        self._fence = ""  # the fence that must close, while one is open
        self._item = 0  # how far text must be indented to belong to the open list item
        self._ended = False  # whether the next line with text begins a block, unless indented so
        self._filled = False  # whether the open block holds any text

    @property
    def tail(self) -> str:
        """The open block, "" only before any text has come."""
        return "".join(self._block) + self._line

    def append(self, text: str) -> list[str]:
        """Add text; return the blocks that it closed."""
        sealed: list[str] = []
        lines = (self._line + text).split("\n")
        for line in lines[:-1]:
            self._place(line + "\n", sealed)
            self._read(line + "\n")
            self._block.append(line + "\n")
            self._placed = False
        self._line = lines[-1]
        self._place(self._line, sealed)
        return sealed

    def _place(self, line: str, sealed: list[str]) -> None:
        """Close the open block if this line, perhaps still growing, begins another."""
        if not self._placed and self._begins(line):
            sealed.append("".join(self._block))
            self._block.clear()
            self._placed, self._filled, self._ended, self._item = True, False, False, 0

    def _begins(self, line: str) -> bool:
        if self._fence or not self._filled or _blank(line):
            return False
        if self._item and _indent(line) >= self._item:
            return False
        return self._ended or _BEGINS.match(line) is not None

    def _read(self, line: str) -> None:
        """Learn from a whole line what the lines after it will belong to."""
        if self._fence:
            if _closes(line, self._fence):
                self._fence, self._ended = "", True
        elif _blank(line):
            self._ended = self._filled
        elif self._filled:
            self._ended = False
        else:
            self._filled = True
            if fence := _FENCE.match(line):
                self._fence = fence[1] or fence[2]
            elif _HEADING.match(line):
                self._ended = True
            elif (item := _ITEM.match(line)) and not _RULE.match(line):
                self._item = _content(line, item)


def blocks(text: str) -> list[str]:
    """The top-level blocks of Markdown source; together they are the text.

    Appending to the text leaves all blocks but the last as they are; that one can grow or split.
    """
    stream = BlockStream()
    sealed = stream.append(text)
    return [*sealed, stream.tail] if text else []


def _blank(line: str) -> bool:
    return not line.strip(" \t\n")


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip(" "))


def _content(line: str, item: re.Match[str]) -> int:
    """The column where a list item's text begins, which is what its other lines are indented to."""
    marker = len(item[1])
    gap = len((item[1] + (item[2] or "")).expandtabs(4)) - marker
    # More than four spaces begin indented code; a marker without text counts as followed by one.
    return marker + (gap if gap <= 4 and not _blank(line[item.end() :]) else 1)


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip(" \t\n")
    return stripped.startswith(fence) and not stripped.strip(fence[0]) and _indent(line) < 4
