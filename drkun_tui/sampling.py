"""How the next token is chosen."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling settings. The defaults are those that Qwen3's card gives for thinking mode, with a
    light repeat penalty, which small models need."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.6
    """0 is greedy."""
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.95
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 20
    """0 keeps the whole vocabulary."""
    repeat_penalty: Annotated[float, msgspec.Meta(ge=0.5, le=5)] = 1.1
    """Divides the logits of the last 64 tokens; 1 is off."""
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] = 2048
    """Reasoning and answer together; 0 is "until the context is full"."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=4294967295)] | None = None
    """None draws a new one for every answer."""
