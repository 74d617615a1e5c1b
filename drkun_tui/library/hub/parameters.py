"""How large a model is, by its name."""

from __future__ import annotations

import re

_COUNT = re.compile(r"(?<![A-Za-z0-9.])(\d{1,4}(?:\.\d{1,2})?)\s?([BM])(?![A-Za-z0-9])", re.IGNORECASE)


def parameters_in(name: str) -> int | None:
    """The number of parameters that a name such as ``Qwen3-0.6B-GGUF`` tells, None when it tells none."""
    counts = [
        float(number) * (1e9 if unit in "bB" else 1e6)
        for number, unit in _COUNT.findall(name.replace("_", "-"))
    ]
    return int(max(counts)) if counts else None
