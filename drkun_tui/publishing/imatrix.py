"""Importance matrices: for each column of a weight, the mean square of what it was multiplied with on some
text. Quantising then keeps the columns exact that matter."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import llama_cpp as binding
import numpy

from drkun_tui.publishing.activations import Sums
from drkun_tui.publishing.faults import PublishingError

_MOST_ENTRIES = 65_536
_MOST_NAME = 4096
_MOST_VALUES = 1 << 28

Entries = dict[str, "numpy.ndarray[Any, numpy.dtype[numpy.float32]]"]
"""By the names of weights, one number for each column (of each expert)."""


def read(path: Path, converters: Path) -> Entries:
    """What llama.cpp's ``imatrix`` wrote: a GGUF, or the older format.

    Args:
        converters: whose ``gguf`` reads the first.

    Raises:
        PublishingError: ``imatrix_unreadable``.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"GGUF":
                return _from_gguf(path, converters)
            file.seek(0)
            return _from_data(file)
    except (OSError, ValueError, KeyError, IndexError, struct.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise PublishingError("imatrix_unreadable", file=path.name, reason=reason) from error


def write(
    path: Path, converters: Path, sums: Mapping[str, Sums], source: str, chunks: int, chunk: int
) -> None:
    """A GGUF as llama.cpp's ``imatrix`` writes it.

    Args:
        sums: by the names of weights.
        source: name of the text.
        chunks: how many of its pieces were read, of `chunk` tokens each.

    Raises:
        PublishingError: ``not_numbers``: the model computes something that is none.
        OSError: it cannot be written.
    """
    if not all(numpy.isfinite(each.squares).all() for each in sums.values()):
        raise PublishingError("not_numbers")
    sys.path.insert(0, str(converters / "gguf-py"))
    from gguf import GGUFWriter

    writer: Any = GGUFWriter(path, "")
    writer.remove_key("general.architecture")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [source])
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", chunk)
    for name, each in sorted(sums.items()):
        # One count serves all matrices of a weight that has no experts.
        rows = each.squares.reshape(len(each.counts), -1)
        writer.add_tensor(f"{name}.in_sum2", rows.astype(numpy.float32))
        writer.add_tensor(f"{name}.counts", each.counts.reshape(-1, 1).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _from_gguf(path: Path, converters: Path) -> Entries:
    """Sums of squares over counts, a row for each expert."""
    sys.path.insert(0, str(converters / "gguf-py"))
    from gguf import GGUFReader

    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    entries: Entries = {}
    for name, sums in tensors.items():
        weight = name.removesuffix(".in_sum2")
        if weight != name:
            counts = numpy.asarray(tensors[f"{weight}.counts"].data, numpy.float32).reshape(-1, 1)
            rows = numpy.asarray(sums.data, numpy.float32).reshape(len(counts), -1)
            # An expert that was never asked says nothing: all its columns weigh the same.
            mean = numpy.where(counts > 0, rows / numpy.maximum(counts, 1), 1)
            entries[weight] = numpy.ascontiguousarray(mean.reshape(-1), numpy.float32)
    if not entries:
        raise ValueError("no entries")
    return entries


def _from_data(file: BinaryIO) -> Entries:
    """``imatrix.dat``: the number of entries; of each its name, number of calls, and values."""
    entries: Entries = {}
    for _ in range(_number(file, _MOST_ENTRIES)):
        name = file.read(_number(file, _MOST_NAME)).decode()
        calls = _number(file, 1 << 31)
        count = _number(file, _MOST_VALUES)
        raw = file.read(4 * count)
        if len(raw) != 4 * count:
            raise ValueError("cut short")
        values = numpy.frombuffer(raw, "<f4")
        entries[name] = numpy.ascontiguousarray(values / max(calls, 1), numpy.float32)
    if not entries:
        raise ValueError("no entries")
    return entries


def _number(file: BinaryIO, most: int) -> int:
    (found,) = struct.unpack("<i", file.read(4))
    if not 0 <= found <= most:
        raise ValueError("a number out of bounds")
    return int(found)


def for_quantising(entries: Entries) -> Any:
    """The entries as llama.cpp's quantiser takes them; they must live as long as the result."""
    pointer = ctypes.POINTER(ctypes.c_float)
    matrix = (binding.llama_model_imatrix_data * (len(entries) + 1))()
    for entry, (name, values) in zip(matrix, entries.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(pointer)
        entry.size = len(values)
    return ctypes.cast(matrix, ctypes.POINTER(binding.llama_model_imatrix_data))
