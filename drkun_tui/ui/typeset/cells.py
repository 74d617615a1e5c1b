"""How wide characters are, and how they behave at the end of a line.

Both are looked up per character in dictionaries that fill themselves, which makes measuring a text
one pass in C. The widths are those of ``rich.cells``, with which Textual paints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from rich.cells import cell_len

SPACES = " \u3000"
"""What a line may lose where it is broken: the space and the ideographic space."""

ZWJ = "\u200d"
EMOJI_STYLE = "\ufe0f"

# Bits of a character's kind.
SPACE = 1
WIDE = 2  # ideographs, kana, full-width punctuation, emoji: a line may break on either side
OPEN = 4  # may not end a line
CLOSE = 8  # may not begin a line
JOIN = 16  # belongs to the character before it
FLAG = 32  # half of a flag

_OPENING = frozenset("（《「『【“‘〈〔〖〘〚｛［｢￥([{")
_CLOSING = frozenset("，。、；：？！）》」』】”’〉〕〗〙〛｝］｡､｣…—～·・々ー％%‰℃℉°,.;:?!)]}")
# One cell wide, yet part of Chinese text, so a line may break beside them. The single quotes are
# left out: ’ is also the apostrophe.
_NARROW_CJK = frozenset("“”…—")

_MOST = 1 << 15  # entries; text that uses more different characters than this is hostile


class _Memo(dict[str, int]):
    """A dictionary that works out what it does not hold, and never grows without bound."""

    def __init__(self, work_out: Callable[[str], int]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, char: str) -> int:
        if len(self) >= _MOST:
            self.clear()
        value = self[char] = self._work_out(char)
        return value


def _kind(char: str) -> int:
    if char in SPACES:
        return SPACE
    cells = cell_len(char)
    kind = WIDE if cells == 2 or char in _NARROW_CJK else 0
    if char in _OPENING:
        kind |= OPEN
    elif char in _CLOSING:
        kind |= CLOSE
    if cells == 0 or "\U0001f3fb" <= char <= "\U0001f3ff":  # combining marks and skin tones
        kind |= JOIN
    elif "\U0001f1e6" <= char <= "\U0001f1ff":
        kind |= FLAG
    return kind


width_of = _Memo(cell_len)
"""The cells of one character."""

kind_of = _Memo(_kind)
"""The bits above for one character."""


def edges(text: str) -> Sequence[int]:
    """The cells before each position, and after the last: ``edges(text)[-1]`` is the whole width."""
    if text.isascii() and text.isprintable():
        return range(len(text) + 1)
    if ZWJ in text or EMOJI_STYLE in text:
        return _joined_edges(text)
    return list(accumulate(map(width_of.__getitem__, text), initial=0))


def _joined_edges(text: str) -> list[int]:
    """``edges`` of text with emoji sequences, by the rules of ``rich.cells.cell_len``.

    What follows a joiner takes no room; the emoji selector widens some narrow characters.
    """
    result = [0]
    measured = ""
    joined = False
    for char in text:
        cells = 0
        if joined:
            joined = False
        elif char == ZWJ:
            joined = True
        elif char == EMOJI_STYLE:
            cells = cell_len(measured + char) - cell_len(measured)
            measured = ""
        elif cells := width_of[char]:
            measured = char
        result.append(result[-1] + cells)
    return result
