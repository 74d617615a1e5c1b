"""A stage: an adapter merged into its base, as 16-bit safetensors. ``python -m drkun_tui.publishing.merge``

Shard by shard and weight by weight, straight from the base's files into the result's: what does not change
is copied by the system, and one weight at a time is in memory. The base is read as it is stored, in 16 or 32
bits; there is no way back from four.
"""

from __future__ import annotations

import json
import mmap
import queue
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from drkun_tui.publishing import lora, steps
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.lora import Changes
from drkun_tui.publishing.sources import INDEX, side_files, weight_files
from drkun_tui.publishing.tasks import Merge

_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_NARROW = {"F32": "BF16", "F64": "BF16"}
"""What is stored wider is merged to this."""

_COPY = 16 * 1024 * 1024
"""Bytes that are copied at once, so that progress moves."""

_AHEAD = 2
"""Weights that may wait to be written while the next is computed."""


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
    """One shard, its tensors in their old order; the bytes of its tensors.

    Two threads: this one computes, the other writes.
    """
    with source.open("rb") as file, target.open("wb") as out:
        header, data_at = _read_header(file, changes)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            _write_header(out, header)
            writer = _Writer(mapped, out, wrote)
            writer.start()
            for tensor in header:
                begin = data_at + tensor.begin
                if tensor.changed(changes):
                    writer.put(_changed(mapped, begin, tensor, changes))
                else:
                    writer.put((begin, data_at + tensor.end))
            writer.finish()
    return sum(tensor.size for tensor in header)


class _Writer(threading.Thread):
    """Writes what is put, in order: ranges of the source, and tensors."""

    def __init__(self, source: mmap.mmap, out: BinaryIO, wrote: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self._source, self._out, self._wrote = source, out, wrote
        self._waiting: queue.Queue[tuple[int, int] | torch.Tensor | None] = queue.Queue(_AHEAD)
        self._error: OSError | None = None

    def put(self, item: tuple[int, int] | torch.Tensor) -> None:
        """Let this be written.

        Raises:
            OSError: what was put before could not be.
        """
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def finish(self) -> None:
        """Return when everything is written.

        Raises:
            OSError: it could not be.
        """
        self._waiting.put(None)
        self.join()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        """Write until None comes; after a fault only take."""
        while (item := self._waiting.get()) is not None:
            if self._error is not None:
                continue
            try:
                self._write(item)
            except OSError as error:
                self._error = error

    def _write(self, item: tuple[int, int] | torch.Tensor) -> None:
        if isinstance(item, tuple):
            begin, end = item
            source = memoryview(self._source)[begin:end]
        else:
            source = item.view(torch.uint8).numpy().reshape(-1).data
        with source:
            for at in range(0, len(source), _COPY):
                with source[at : at + _COPY] as piece:
                    self._out.write(piece)
                    self._wrote(len(piece))


def _changed(mapped: mmap.mmap, begin: int, tensor: _Tensor, changes: Changes) -> torch.Tensor:
    """The tensor as it will be written."""
    stored = _TYPES[tensor.stored]
    count = (tensor.end - tensor.begin) // stored.itemsize
    # Some formats align tensors to bytes only.
    weight = torch.frombuffer(mapped, dtype=torch.uint8, count=count * stored.itemsize, offset=begin)
    aligned = weight if weight.data_ptr() % stored.itemsize == 0 else weight.clone()
    shaped = aligned.view(stored).reshape(tensor.shape)
    return changes.apply(tensor.name, shaped, _TYPES[tensor.written]).contiguous()


def _read_header(file: BinaryIO, changes: Changes) -> tuple[list[_Tensor], int]:
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


def _write_header(out: BinaryIO, tensors: list[_Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for tensor, begin in zip(tensors, _begins(tensors), strict=True):
        header[tensor.name] = {
            "dtype": tensor.written,
            "shape": tensor.shape,
            "data_offsets": [begin, begin + tensor.size],
        }
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    out.write(struct.pack("<Q", len(raw)) + raw)


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
