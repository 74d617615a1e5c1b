"""The shapes of a model's tensors, briefly: what an adapter's are held against."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_NUMBER = 1 << 24
"""The largest number of layers, heads or tokens, or length of a vector, that is believed: some hundred times
what the largest models have. What is worked out from such numbers stays within 64 bits."""

MAX_ELEMENTS = 1 << 53
"""Most elements of one file's tensors that are believed: a file system holds no more bytes."""

MAX_NAMES = 512
"""Most names that are kept of one file; models have some twenty, with the numbers left out."""

MAX_NAME = 256
"""Characters of the longest name that is kept."""

MAX_SHAPES = 16
"""Most shapes that are kept under one name; where layers differ there are a few."""

_NUMBER = re.compile(r"(?<=\.)\d{1,6}(?=\.)")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensors:
    """Names with ``*`` for the numbers of layers and experts, such as ``blk.*.attn_q.weight``."""

    shapes: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)
    """Of each name the different shapes, their dimensions in the order of the file's format."""
    layers: int = 0
    """One more than the highest layer's number."""
    whole: bool = True
    """Are these all? A hostile header names more than is kept."""


class Collector:
    """Collects the tensors of one file."""

    def __init__(self) -> None:
        self._shapes: dict[str, list[Shape]] = {}
        self._layers = 0
        self._whole = True

    def add(self, name: str, shape: Iterable[int]) -> None:
        """Take one more tensor."""
        if len(name) > MAX_NAME:
            self._whole = False
            return
        if number := _NUMBER.search(name):
            self._layers = max(self._layers, int(number[0]) + 1)
            name = _NUMBER.sub("*", name)
        known = self._shapes.get(name)
        if known is None:
            if len(self._shapes) >= MAX_NAMES:
                self._whole = False
                return
            known = self._shapes[name] = []
        if (shape := tuple(shape)) not in known:
            if len(known) >= MAX_SHAPES:
                self._whole = False
                return
            known.append(shape)

    def tensors(self) -> Tensors:
        """What was collected."""
        shapes = {name: tuple(known) for name, known in self._shapes.items()}
        return Tensors(shapes, self._layers, self._whole)


def merged(parts: Iterable[Tensors]) -> Tensors:
    """The tensors of a model that is split into several files."""
    shapes: dict[str, tuple[Shape, ...]] = {}
    layers, whole = 0, True
    for part in parts:
        for name, own in part.shapes.items():
            shapes[name] = tuple(dict.fromkeys(shapes.get(name, ()) + own))
        layers = max(layers, part.layers)
        whole = whole and part.whole
    return Tensors(shapes, layers, whole)
