"""What evaluates tokens, whichever way."""

from __future__ import annotations

from typing import Protocol


class Decoder(Protocol):
    """A loaded model over a KV cache of fixed size. Writes logits to its `sampling.Picker`."""

    @property
    def fused(self) -> bool:
        """Do single tokens go through our own kernels?"""
        ...

    def evaluate(self, tokens: list[int], start: int) -> None:
        """Evaluate tokens at the positions from `start`, whatever was behind it; the last one's logits go to
        the picker."""
        ...

    def step(self, position: int) -> None:
        """Evaluate the picker's token at its position, which `position` repeats for the host; move on."""
        ...
