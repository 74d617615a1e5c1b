"""Weights beside a configuration: safetensors by their headers, and pickles, which are never opened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from drkun_tui.library.files import MAX_JSON, SPLIT, bounded, open_regular, read_bytes, size_of
from drkun_tui.library.header_cache import cached
from drkun_tui.library.model import Problem, problem
from drkun_tui.library.printable import printable
from drkun_tui.library.tensors import MAX_ELEMENTS, Collector, Tensors, merged

INDEX = "model.safetensors.index.json"


class Weights:
    """Sums up the weight files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        self.files: list[Path] = []
        self.problems: list[Problem] = []
        self.missing = False
        self._folder = folder
        self._elements: dict[str, int] = {}
        self._tensors: list[Tensors] = []

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(self._elements.values())

    @property
    def dtype(self) -> str | None:
        """The type that most elements have, e.g. ``"BF16"``."""
        return max(self._elements, key=lambda dtype: self._elements[dtype], default=None)

    @property
    def tensors(self) -> Tensors | None:
        """The shapes of all tensors; None when no header could be read."""
        return merged(self._tensors) if self._tensors else None

    def add_pickle(self, file: str) -> None:
        """Count a file that is never opened: unpickling runs what its author wrote."""
        self._count(file)
        self.problems.append(problem("pickle", "take_safetensors", file=printable(file)))

    def add(self, file: str) -> None:
        """Count a safetensors file."""
        path, have = self._count(file)
        try:
            header = cached(path, _header, _Header | None)
        except OSError:
            header = None
        if header is None:
            self.problems.append(problem("safetensors_broken", "fetch_again", file=printable(file)))
            return
        for dtype, count in header.elements.items():
            self._elements[dtype] = self._elements.get(dtype, 0) + count
        self._tensors.append(header.tensors)
        if have < header.needed:
            sizes = {"have": have, "need": header.needed}
            self.problems.append(
                problem("safetensors_truncated", "fetch_again", file=printable(file), **sizes)
            )

    def add_shards(self, shards: list[str]) -> None:
        """Count a folder's safetensors files, and tell which are missing.

        The index says which make the model. Without one, every file counts, and what should be there is
        known only from the names of numbered shards.
        """
        try:
            wanted = set(cached(self._folder / INDEX, _read_index, tuple[str, ...]))
        except FileNotFoundError:
            wanted = set()
        except (OSError, ValueError, RecursionError):
            self.problems.append(problem("bad_config", "fetch_again", file=INDEX))
            wanted = set()
        # What the index leaves out is the same weights again, in another layout.
        for shard in [shard for shard in shards if shard in wanted] if wanted else shards:
            self.add(shard)
        wanted = wanted or next(filter(None, map(_all_parts, shards)), set())
        if outside := sorted(file for file in wanted if len(PurePosixPath(file).parts) != 1 or file == ".."):
            self.problems.append(problem("index_outside", "fetch_again", file=printable(outside[0])))
        if missing := wanted - set(shards):
            self.missing = True
            counts = {"have": len(wanted) - len(missing), "total": len(wanted)}
            self.problems.append(problem("shards_missing", "fetch_again", **counts))

    def _count(self, file: str) -> tuple[Path, int]:
        path = self._folder / file
        size = size_of(path)
        self.size += size
        self.files.append(path)
        return path, size


def _all_parts(shard: str) -> set[str]:
    """The names of all parts of the split model that this is a part of; empty when it is no such part."""
    split = SPLIT.fullmatch(shard)
    if split is None:
        return set()
    numbers = range(1, int(split["total"]) + 1)
    return {f"{split['stem']}-{n:05}-of-{split['total']}.safetensors" for n in numbers}


class _Index(msgspec.Struct):
    weight_map: dict[str, str] = {}


_index = msgspec.json.Decoder(_Index)


def _read_index(path: Path) -> tuple[str, ...]:
    return tuple(sorted(set(_index.decode(bounded(read_bytes(path, MAX_JSON))).weight_map.values())))


@dataclass(frozen=True, slots=True)
class _Header:
    elements: dict[str, int]
    """Of each type."""
    needed: int
    """Bytes that the file must have."""
    tensors: Tensors


_Length = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]


class _Tensor(msgspec.Struct):
    dtype: str
    shape: Annotated[list[_Length], msgspec.Meta(max_length=16)]
    data_offsets: tuple[_Length, _Length]


_tensors = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor = msgspec.json.Decoder(_Tensor)


def _header(path: Path) -> _Header | None:
    """As `_read_header`; None for a file that has no such header, which is remembered, too."""
    try:
        return _read_header(path)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def _read_header(path: Path) -> _Header:
    """What a file's header says.

    The format: eight bytes with the length of a JSON object, which gives each tensor's type, shape and
    place in the bytes that follow.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such header.
    """
    elements: dict[str, int] = {}
    collector = Collector()
    end = 0
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= MAX_JSON:
            raise ValueError("header length")
        for name, raw in _tensors.decode(bounded(file.read(length))).items():
            if name != "__metadata__":
                tensor = _tensor.decode(raw)
                dtype = printable(tensor.dtype, 16)
                elements[dtype] = elements.get(dtype, 0) + math.prod(tensor.shape)
                end = max(end, tensor.data_offsets[1])
                collector.add(name, tensor.shape)
    if len(elements) > 64 or sum(elements.values()) > MAX_ELEMENTS:
        raise ValueError("types or elements")
    return _Header(elements, 8 + length + end, collector.tensors())
