"""Reads the header of a GGUF file.

Follows the GGUF specification (ggml's ``docs/gguf.md``), versions 2 and 3, little endian, as strictly
as llama.cpp's own loader. A header is a stranger's data: every count, length and offset is bounded
before it is believed, so that time (about two seconds at worst) and memory (a few tens of MiB) do not
depend on what it claims. Vocabularies and merges are stepped over; only their lengths are kept.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library.gguf_header import GgufHeader, Part, Skipped, Value, part_of
from drkun_tui.library.gguf_types import TENSOR_TYPES
from drkun_tui.library.printable import printable
from drkun_tui.library.tensors import Collector

MAX_ENTRIES = 65_536
"""Most metadata entries, and most tensors; the largest models known have a few thousand."""

MAX_STRINGS = 4_000_000
"""Most strings in all of a header's arrays; a vocabulary of 262 k with its merges has 0.8 million."""

MAX_ITEM = 64 * 1024 * 1024
"""Bytes of the largest string or array of numbers."""

MAX_KEPT_TEXT = 1024 * 1024
"""Bytes of the longest string that is kept; chat templates have at most some tens of thousands."""

MAX_KEPT = 4 * 1024 * 1024
"""Bytes that are kept of one header; as Python objects they take up to eight times that."""

MAX_HEADER = 256 * 1024 * 1024
"""Bytes of the longest header, what is stepped over included; the longest known have some 20 MiB."""

MAX_KEPT_NUMBERS = 1024
"""Longest array of numbers that is kept: some architectures give one for each layer."""

MAX_KEPT_STRINGS = 64
"""Longest array of strings that is kept, such as tags and languages."""

_CHUNK = 256 * 1024
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    number: struct.Struct(f"<{code}")
    for number, code in enumerate("BbHhIif?")
} | {10: _U64, 11: struct.Struct("<q"), 12: struct.Struct("<d")}  # fmt: skip


class RefusedError(DrkunError):
    """Why a header is refused."""

    values: Mapping[str, str | int] = {}
    """What its sentence is filled with, besides the file's name."""


def read(path: Path, *, partial: bool = False) -> GgufHeader:
    """Read the header of one file.

    Args:
        path: the file; of a split model, one of its parts.
        partial: accept a file whose header is whole and whose tensors are cut off.

    Raises:
        DrkunError: ``gguf_missing``, ``gguf_unreadable``, ``gguf_empty``, ``gguf_not_gguf``,
            ``gguf_truncated``, ``gguf_corrupt`` or ``gguf_unsupported``; its exit code is 3.
    """
    name = printable(path.name)
    try:
        # Opening a pipe or a device could wait for ever, so the kind is looked at first.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refusal("not_gguf", name)
        if status.st_size == 0:
            raise refusal("empty", name)
        with path.open("rb", buffering=0) as file:
            header = read_from(file, os.fstat(file.fileno()).st_size, name)
    except FileNotFoundError as error:
        raise refusal("missing", name) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise refusal("unreadable", name, reason=printable(reason)) from error
    if not header.complete and not partial:
        raise truncated(path, header.file_size, header.expected_size)
    return header


def read_from(file: BinaryIO, size: int, name: str) -> GgufHeader:
    """Read a header whose tensors may be cut off.

    Args:
        file: unbuffered, at its start.
        size: its bytes.
        name: what errors call it.

    Raises:
        DrkunError: as `read` does.
        OSError: the file cannot be read.
    """
    return _read_header(_Cursor(file, size, name))


def truncated(path: Path, have: int, need: int) -> DrkunError:
    """The error for a file that ends before its tensors do."""
    return refusal("truncated", printable(path.name), have=have, need=need)


def refusal(kind: str, name: str, **values: str | int) -> RefusedError:
    """The error ``gguf_KIND`` for the file that is called `name`."""
    message = t(f"library.gguf_{kind}", file=name, **values)
    refused = RefusedError(f"gguf_{kind}", message, t(f"library.gguf_{kind}_hint"), EXIT_NO_MODEL)
    refused.values = values
    return refused


class _Cursor:
    """Reads a file forwards, a window at a time, and refuses to pass its end.

    Args:
        file: unbuffered, at its start.
        size: its bytes.
        name: what errors call it.
    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self.size = size
        self.name = name
        self._window = b""
        self._window_start = 0
        self._at = 0
        """Place in the window; it may lie behind its end after a skip."""

    @property
    def offset(self) -> int:
        """Place in the file."""
        return self._window_start + self._at

    def corrupt(self, what: str) -> DrkunError:
        """The error for a claim that cannot be true, or that no sound model makes."""
        return refusal("corrupt", self.name, reason=what, offset=self.offset)

    def _fill(self, count: int) -> None:
        """Bring the next `count` bytes into the window.

        Raises:
            DrkunError: the file ends before them.
        """
        end = self.offset + count
        if end > min(self.size + MAX_ITEM, MAX_HEADER):
            raise self.corrupt("length")
        if end > self.size:
            raise refusal("truncated", self.name, have=self.size, need=end)
        start = self.offset
        self._file.seek(start)
        # Raw reads may be short.
        parts: list[bytes] = []
        missing = min(max(count, _CHUNK), self.size - start)
        while missing and (part := self._file.read(missing)):
            parts.append(part)
            missing -= len(part)
        self._window, self._window_start, self._at = b"".join(parts), start, 0
        if len(self._window) < count:  # it shrank while being read
            raise refusal("truncated", self.name, have=start + len(self._window), need=end)

    def take(self, count: int) -> bytes:
        """The next `count` bytes, at most `MAX_KEPT_TEXT`."""
        if self._at + count > len(self._window):
            self._fill(count)
        taken = self._window[self._at : self._at + count]
        self._at += count
        return taken

    def skip(self, count: int) -> None:
        """Step over `count` bytes, which must exist."""
        self._at += count
        if self._at > len(self._window):
            self._fill(0)

    def skip_strings(self, count: int) -> None:
        """Step over `count` strings, each a 64-bit length and its bytes."""
        unpack = _U64.unpack_from
        while count:
            if self._at + 8 > len(self._window):
                self._fill(8)
            window, at, last = self._window, self._at, len(self._window) - 8
            for _ in range(count):
                if at > last:
                    break
                at += 8 + unpack(window, at)[0]
                count -= 1
            self._at = at
        self.skip(0)

    def u32(self) -> int:
        """A 32-bit number."""
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        """A 64-bit number."""
        return int(_U64.unpack(self.take(8))[0])

    def count(self, most: int, smallest: int, what: str) -> int:
        """A 64-bit count of things that take at least `smallest` bytes each."""
        claimed = self.u64()
        if claimed > most:
            raise self.corrupt(what)
        if self.offset + claimed * smallest > self.size:
            raise refusal("truncated", self.name, have=self.size, need=self.offset + claimed * smallest)
        return claimed

    def string(self, longest: int, what: str) -> str:
        """A string; bytes that are no UTF-8 are replaced."""
        length = self.u64()
        if length > longest:
            raise self.corrupt(what)
        return self.take(length).decode("utf8", "replace")


def _read_header(cursor: _Cursor) -> GgufHeader:
    magic = cursor.take(min(4, cursor.size))
    if not b"GGUF".startswith(magic):
        raise refusal("not_gguf", cursor.name)
    version = cursor.u32()
    if version not in (2, 3):
        raise refusal("unsupported", cursor.name, reason=_version_name(version))
    # Each entry has a key's length, a type and a value; each tensor a name, a shape, a type, an offset.
    tensor_count = cursor.count(MAX_ENTRIES, 8 + 4 + 4 + 8, "tensor count")
    entry_count = cursor.count(MAX_ENTRIES, 8 + 4 + 1, "metadata count")
    metadata = _read_metadata(cursor, entry_count)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 65_536 or alignment & (alignment - 1):
        raise cursor.corrupt("alignment")
    tensors = Collector()
    part_bytes, parameters, span = _read_tensors(cursor, tensor_count, alignment, tensors)
    data_offset = _padded(cursor.offset, alignment) if tensor_count else cursor.offset
    header = GgufHeader(
        version=version,
        metadata=metadata,
        tensor_count=tensor_count,
        part_bytes=part_bytes,
        parameters=parameters,
        data_offset=data_offset,
        expected_size=data_offset + span,
        file_size=cursor.size,
        tensors=tensors.tensors(),
    )
    if not header.plausible:
        raise cursor.corrupt("model size")
    return header


def _version_name(version: int) -> str:
    if version & 0xFFFF == 0:  # 3 written with its bytes the other way round is 0x03000000
        return "big endian"
    return f"GGUF {version}"


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    strings_left = MAX_STRINGS
    kept = 0
    for _ in range(count):
        key = cursor.string(65_535, "key length")
        if key in metadata:
            raise cursor.corrupt("duplicate key")
        before = cursor.offset
        kind = cursor.u32()
        value: Value
        if kind == _ARRAY:
            value, strings = _read_array(cursor, strings_left)
            strings_left -= strings
        elif kind == _STRING:
            value = _read_text(cursor)
        elif number := _NUMBERS.get(kind):
            value = number.unpack(cursor.take(number.size))[0]
        else:
            raise cursor.corrupt("value type")
        metadata[key] = value
        kept += len(key) + (0 if isinstance(value, Skipped) else cursor.offset - before)
        if kept > MAX_KEPT:
            raise cursor.corrupt("metadata size")
    return metadata


def _read_text(cursor: _Cursor) -> str | Skipped:
    length = cursor.u64()
    if length > MAX_ITEM:
        raise cursor.corrupt("text length")
    if length > MAX_KEPT_TEXT:
        cursor.skip(length)
        return Skipped("text", length)
    return cursor.take(length).decode("utf8", "replace")


def _read_array(cursor: _Cursor, most_strings: int) -> tuple[Value, int]:
    """An array's value, and how many strings it has."""
    kind = cursor.u32()
    length = cursor.u64()
    if kind == _STRING:
        if length > most_strings:
            raise cursor.corrupt("array length")
        if length > MAX_KEPT_STRINGS:
            cursor.skip_strings(length)
            return Skipped("strings", length), length
        # An over-long string is rare here, and an array of them would be kept; the limit on what is
        # kept in all catches that.
        return tuple(cursor.string(MAX_KEPT_TEXT, "text length") for _ in range(length)), length
    number = _NUMBERS.get(kind)
    if number is None:  # arrays of arrays are in the specification; no model has one, nor does llama.cpp
        raise cursor.corrupt("array type")
    if length * number.size > MAX_ITEM:
        raise cursor.corrupt("array length")
    if length > MAX_KEPT_NUMBERS:
        cursor.skip(length * number.size)
        return Skipped("numbers", length), 0
    return tuple(n for (n,) in number.iter_unpack(cursor.take(length * number.size))), 0


def _read_tensors(
    cursor: _Cursor, count: int, alignment: int, tensors: Collector
) -> tuple[dict[tuple[Part, str], int], int, int]:
    """Bytes for each part and tensor type, elements in all, and bytes from the first tensor to the last's
    end. Names and shapes go into `tensors`."""
    part_bytes: dict[tuple[Part, str], int] = {}
    parameters = end = 0
    for _ in range(count):
        tensor = cursor.string(4096, "tensor name")
        part = part_of(tensor)
        dimensions = cursor.u32()
        if dimensions > 4:
            raise cursor.corrupt("tensor dimensions")
        shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
        kind, offset = struct.unpack("<IQ", cursor.take(12))
        elements = math.prod(shape)
        if elements >= 1 << 63:
            raise cursor.corrupt("tensor shape")
        if kind not in TENSOR_TYPES:
            raise refusal("unsupported", cursor.name, reason=f"tensor type {kind}")
        name, block, block_bytes = TENSOR_TYPES[kind]
        if (shape[0] if shape else 1) % block:
            raise cursor.corrupt("tensor shape")
        # As in llama.cpp, each tensor begins where the one before it ended.
        if offset != _padded(end, alignment):
            raise cursor.corrupt("tensor offset")
        size = elements // block * block_bytes
        part_bytes[part, name] = part_bytes.get((part, name), 0) + size
        parameters += elements
        end = offset + size
        tensors.add(tensor, shape)
    return part_bytes, parameters, end


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
