"""Makes text that comes from a stranger's file fit for a screen."""

from __future__ import annotations

import unicodedata

_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that show nothing, or change how others are shown."""


def printable(text: str, limit: int = 200) -> str:
    """`text` on one line, fit for a screen: control, bidirectional-override and other invisible
    characters become "\N{REPLACEMENT CHARACTER}", and what is longer than `limit` is cut."""
    if text.isprintable() and len(text) <= limit:
        return text
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNSHOWN else c for c in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
