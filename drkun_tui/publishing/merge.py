"""A stage: an adapter merged into its base, as 16-bit safetensors. ``python -m drkun_tui.publishing.merge``

Shard by shard and block by block, straight from the base's files into the result's, with some megabytes in
memory. The base is read as it is stored, in 16 or 32 bits; there is no way back from four.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

import torch

from drkun_tui import hardware
from drkun_tui.publishing import lora, steps
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.lora import Adding, Changes
from drkun_tui.publishing.sources import INDEX, side_files, weight_files
from drkun_tui.publishing.tasks import Merge

_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_NARROW = {"F32": "BF16", "F64": "BF16"}
"""What is stored wider is merged to this."""

_PIECE = 1 << 20
"""Bytes that are read at once: with the 32 bits of each weight beside them they stay in the processor's
cache."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of a shard: where it is, and what becomes of it."""

    name: str
    stored: str
    shape: tuple[int, ...]
    begin: int
    end: int
    written: str
    size: int

    def changed(self, changes: Changes) -> bool:
        """Is it anything but copied?"""
        return self.name in changes.of or self.written != self.stored


def merge(task: Merge, tell: steps.Tell) -> dict[str, Any]:
    """Write the merged model's weights, configuration and tokenizer.

    Raises:
        PublishingError: the adapter does not fit the base (see `lora.read`).
        OSError: it cannot be written.
    """
    base, target = Path(task.base), Path(task.target)
    files = weight_files(base)
    changes = lora.read(Path(task.adapter), lora.shapes_of(files)) if task.adapter else Changes()
    total = sum(file.stat().st_size for file in files)
    done = 0

    def wrote(count: int) -> None:
        nonlocal done
        done += count
        tell(done, total)

    written = 0
    for file in files:
        written += _merge_shard(file, target / file.name, changes, wrote)
    _write_index(base, target, written)
    for side in side_files(base):
        shutil.copyfile(side, target / side.name)
    _tell_type(target)
    return {"bytes": written}


def _merge_shard(source: Path, target: Path, changes: Changes, wrote: Callable[[int], None]) -> int:
    """One shard, its tensors in their old order; the bytes of its tensors."""
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
        header, data_at = _read_header(file, changes)
        pieces = _pieces(header, data_at, _write_header(out, header), changes)
        workers = _Workers(file.fileno(), out.fileno(), pieces, wrote)
        # Reading the results raises what went wrong.
        for future in [lora.threads().submit(workers.work) for _ in range(hardware.read().physical_cores)]:
            future.result()
    return sum(tensor.size for tensor in header)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of a tensor, or of what is only copied some bytes.

    Attributes:
        read_at: where they are in the shard; written at `write_at` of the result.
        shape: (rows, columns).
        first: number of the first row.
        stored: as what they are read; written as `written`.
        add: changes them on the way.
    """

    read_at: int
    write_at: int
    shape: tuple[int, int]
    first: int
    stored: torch.dtype
    written: torch.dtype
    add: Adding | None


def _pieces(tensors: list[_Tensor], read_at: int, write_at: int, changes: Changes) -> Iterator[_Piece]:
    """A shard's tensors in blocks, in their order.

    Args:
        read_at: where the tensors begin in the shard, and `write_at` in the result.
    """
    for tensor, begin in zip(tensors, _begins(tensors), strict=True):
        stored = written = torch.uint8
        add, columns = None, 1
        if tensor.changed(changes):
            stored, written = _TYPES[tensor.stored], _TYPES[tensor.written]
        if change := changes.of.get(tensor.name):
            add, columns = change.adding(), tensor.shape[-1]
        row = columns * stored.itemsize
        count, most = (tensor.end - tensor.begin) // row, max(1, _PIECE // row)
        for first in range(0, count, most):
            yield _Piece(
                read_at + tensor.begin + first * row,
                write_at + begin + first * columns * written.itemsize,
                (min(most, count - first), columns),
                first, stored, written, add,
            )  # fmt: skip


class _Workers:
    """Threads that read, compute and write, each a piece at a time in memory of its own: while one waits for
    the disk, another computes. Mapped files would cost a fault of the processor for every page."""

    def __init__(self, source: int, out: int, pieces: Iterator[_Piece], wrote: Callable[[int], None]) -> None:
        self._source, self._out, self._pieces, self._wrote = source, out, pieces, wrote
        self._lock, self._writing = threading.Lock(), threading.Lock()

    @torch.inference_mode()
    def work(self) -> None:
        """Do what nobody else does, until there is nothing more.

        Raises:
            OSError: it cannot be read or written; the others end, too.
        """
        room = _Room()
        while piece := self._next():
            try:
                made = self._made(piece, room)
                # The system lets one write to a file at a time, and has the other burn a core meanwhile.
                with self._writing:
                    _write(self._out, made, piece.write_at)
            except BaseException:
                with self._lock:
                    self._pieces = iter(())
                raise
            with self._lock:
                self._wrote(len(made))

    def _next(self) -> _Piece | None:
        with self._lock:
            return next(self._pieces, None)

    def _made(self, piece: _Piece, room: _Room) -> memoryview:
        """The piece's bytes in the result."""
        stored = room.of("stored", piece.shape, piece.stored)
        _read(self._source, _bytes(stored), piece.read_at)
        if piece.add is None and piece.stored == piece.written:
            return _bytes(stored)
        made = room.of("made", piece.shape, piece.written)
        if piece.add is None:
            return _bytes(made.copy_(stored))
        wide = room.of("wide", piece.shape, torch.float32)
        piece.add(wide.copy_(stored), piece.first)
        return _bytes(made.copy_(wide))


class _Room:
    """Memory that is used again and again: its pages are there, and in the cache."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def of(self, name: str, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of this shape, with anything in it; it takes the place of the one before of its name."""
        size = shape[0] * shape[1] * dtype.itemsize
        if name not in self._kept or len(self._kept[name]) < size:
            self._kept[name] = torch.empty(size, dtype=torch.uint8)
        return self._kept[name][:size].view(dtype).view(shape)


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data


def _read(file: int, into: memoryview, at: int) -> None:
    while len(into):
        if not (count := os.preadv(file, [into], at)):
            raise OSError(errno.EIO, "the file ends early")
        into, at = into[count:], at + count


def _write(file: int, piece: memoryview, at: int) -> None:
    while len(piece):
        count = os.pwrite(file, piece, at)
        piece, at = piece[count:], at + count


def _read_header(file: RawIOBase, changes: Changes) -> tuple[list[_Tensor], int]:
    """What is in a shard, in the order of its bytes, and where these begin."""
    (length,) = struct.unpack("<Q", file.read(8))
    told = json.loads(file.read(length))
    tensors = []
    for name, entry in told.items():
        if name == "__metadata__":
            continue
        stored = entry["dtype"]
        begin, end = entry["data_offsets"]
        if stored not in _TYPES and name in changes.of:
            raise PublishingError("base_quantised", name=name, type=stored)
        written = _NARROW.get(stored, stored)
        narrowing = _TYPES[stored].itemsize // _TYPES[written].itemsize if written != stored else 1
        tensors.append(
            _Tensor(name, stored, tuple(entry["shape"]), begin, end, written, (end - begin) // narrowing)
        )
    return sorted(tensors, key=lambda tensor: tensor.begin), 8 + length


def _write_header(out: RawIOBase, tensors: list[_Tensor]) -> int:
    """Write it; where the tensors begin."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for tensor, begin in zip(tensors, _begins(tensors), strict=True):
        header[tensor.name] = {
            "dtype": tensor.written,
            "shape": tensor.shape,
            "data_offsets": [begin, begin + tensor.size],
        }
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    _write(out.fileno(), memoryview(struct.pack("<Q", len(raw)) + raw), 0)
    return 8 + len(raw)


def _begins(tensors: list[_Tensor]) -> Iterator[int]:
    at = 0
    for tensor in tensors:
        yield at
        at += tensor.size


def _write_index(base: Path, target: Path, size: int) -> None:
    if not (base / INDEX).exists():
        return
    index = json.loads((base / INDEX).read_text("utf8"))
    index["metadata"] = {**index.get("metadata", {}), "total_size": size}
    (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf8")


def _tell_type(target: Path) -> None:
    """The configuration says what the weights are stored as."""
    path = target / "config.json"
    config = json.loads(path.read_text("utf8"))
    for key in ("dtype", "torch_dtype"):
        if config.get(key) in ("float32", "float64"):
            config[key] = "bfloat16"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf8")


if __name__ == "__main__":
    steps.serve(Merge, merge)
