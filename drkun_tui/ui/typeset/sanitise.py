"""Makes text from a model, a file name, a data row or a server harmless to show.

Unwanted characters are dropped, not replaced by U+FFFD: that sign is one cell wide in some
terminals and two in others, so it would break aligned columns, and dropping keeps
``clean(a) + clean(b) == clean(a + b)`` for streamed text. Two cuts are told apart from the whole:
an escape sequence cut between chunks loses its ESC and stays as ordinary text (``[31m``), and a
lone carriage return that ends a chunk is dropped, for it may be half of a CRLF.

Zero-width joiners and variation selectors go as well. They can hide text, and terminals disagree
about the width of what they make: 👩‍⚕️ becomes 👩⚕, which is measured the same everywhere.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from drkun_tui.ui.typeset.cells import edges

TAB = "    "
"""A fixed width: the column where streamed text will land is not known here."""

# Complete sequences, as a terminal would swallow them. Strings (titles, links, pictures) must end on
# the same line, and the 8-bit forms are left to be dropped as single characters: bytes of a wrong
# encoding look like them, and must not swallow the text that follows.
_SEQUENCE = re.compile(
    r"""\x1b(?:
        \[[0-?]*[ -/]*[@-~]                        # CSI: colours, cursor movements
        |[\]PX^_][^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)  # OSC, DCS, SOS, PM, APC
        |[ -/]*[0-~]                               # all others, such as ESC c
    )""",
    re.VERBOSE,
)

_NEWLINES = "\x0b\x0c\x85\u2028\u2029"

# Control, invisible and direction-changing characters. Written as code points, because a file that
# contains them would be unreadable; the tests compare this with the Unicode database.
_DROPPED = (
    r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # C0 and C1 controls
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, fillers, Mongolian selectors
    r"\u200b-\u200f\u202a-\u202e\u2060-\u206f"  # zero-width, embeddings, overrides, isolates
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"  # fillers, variation selectors, BOM
    r"\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # format controls of rare scripts
    r"\U000e0000-\U000e0fff"  # tags and more variation selectors: a whole hidden alphabet
)
_SURROGATE = r"\ud800-\udfff"

_UNWANTED = re.compile(f"[{_DROPPED}{_SURROGATE}{_NEWLINES}\t\r]")
# The look behind keeps a long run of them from being tried at every position.
_RETURNS = re.compile(r"(?<!\r)\r+(?=\n|\Z)")


def clean(text: str) -> str:
    """The text without anything that could steer a terminal, hide text or turn its direction.

    Keeps newlines; turns CRLF, CR, vertical tabs, form feeds and Unicode line separators into
    newlines, tabs into four spaces, lone surrogates into U+FFFD. Idempotent. Safe chunk by chunk.
    """
    if _UNWANTED.search(text) is None:
        return text
    if "\x1b" in text:
        text = _SEQUENCE.sub("", text)
    if "\r" in text:
        text = _RETURNS.sub("", text).replace("\r", "\n")
    return _UNWANTED.sub(_replacement, text)


def one_line(text: str, width: int) -> str:
    """The cleaned text on one line of at most ``width`` cells, cut with "…" when it is longer."""
    line = " ".join(filter(None, map(str.strip, clean(text).split("\n"))))
    before = edges(line)
    if before[-1] <= width:
        return line
    if width < 1:
        return ""
    return line[: bisect_right(before, width - 1) - 1].rstrip() + "…"


def _replacement(match: re.Match[str]) -> str:
    char = match[0]
    if char == "\t":
        return TAB
    if char in _NEWLINES:
        return "\n"
    return "\ufffd" if "\ud800" <= char <= "\udfff" else ""
