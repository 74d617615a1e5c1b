"""Weights beside a configuration: safetensors by their headers, and pickles, which are never opened."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from drkun_tui.i18n import t
from drkun_tui.library.files import MAX_JSON, SPLIT, cached, open_regular, read_json, size_of
from drkun_tui.library.printable import printable


def choose_shards(folder: Path, shards: list[str]) -> tuple[list[str], set[str]]:
    """Which of a folder's safetensors files make the model, and the names of all that should be there.

    The index tells both. Without one, every file counts, and what should be there is known only from
    the names of numbered shards.
    """
    index = read_json(folder / "model.safetensors.index.json").get("weight_map")
    named = index.values() if isinstance(index, dict) else ()
    # An index that names no file says nothing.
    if wanted := {file for file in named if isinstance(file, str)}:
        # What the index leaves out is the same weights again, in another layout.
        return [shard for shard in shards if shard in wanted], wanted
    return shards, next(filter(None, map(_all_parts, shards)), set())


def _all_parts(shard: str) -> set[str]:
    """The names of all parts of the split model that this is a part of; empty when it is no such part."""
    split = SPLIT.fullmatch(shard)
    if split is None:
        return set()
    numbers = range(1, int(split["total"]) + 1)
    return {f"{split['stem']}-{n:05}-of-{split['total']}.safetensors" for n in numbers}


class Weights:
    """Sums up the weight files of one folder."""

    def __init__(self) -> None:
        self.size = 0
        self.problems: list[str] = []
        self._elements: dict[str, int] = {}

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(self._elements.values())

    @property
    def dtype(self) -> str | None:
        """The type that most elements have, e.g. ``"BF16"``."""
        return max(self._elements, key=lambda dtype: self._elements[dtype], default=None)

    def add_pickle(self, path: Path) -> None:
        """Count a file that is never opened: unpickling runs what its author wrote."""
        self.size += size_of(path)
        self.problems.append(t("library.pickle", file=printable(path.name)))

    def add(self, path: Path) -> None:
        """Count a safetensors file."""
        self.size += size_of(path)
        try:
            elements, needed = cached(path, _read_safetensors)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            self.problems.append(t("library.safetensors_broken", file=printable(path.name)))
            return
        for dtype, count in elements.items():
            self._elements[dtype] = self._elements.get(dtype, 0) + count
        if (have := size_of(path)) < needed:
            self.problems.append(
                t("library.safetensors_truncated", file=printable(path.name), have=have, need=needed)
            )


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_tensors = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor = msgspec.json.Decoder(_Tensor)


def _read_safetensors(path: Path) -> tuple[dict[str, int], int]:
    """Elements of each type, and the bytes that the file must have.

    The format: eight bytes with the length of a JSON object, which gives each tensor's type, shape and
    place in the bytes that follow.
    """
    elements: dict[str, int] = {}
    end = 0
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= MAX_JSON:
            raise ValueError("header length")
        for name, raw in _tensors.decode(file.read(length)).items():
            if name != "__metadata__":
                tensor = _tensor.decode(raw)
                dtype = printable(tensor.dtype, 16)
                elements[dtype] = elements.get(dtype, 0) + max(0, math.prod(tensor.shape))
                end = max(end, tensor.data_offsets[1])
    return elements, 8 + length + end
