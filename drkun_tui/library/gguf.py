"""Reads the header of a GGUF file: what the model is, how big, how it was quantised.

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
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import t

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

# Number: name, weights in a block, bytes of a block. Read out of libggml with ggml_blck_size() and
# ggml_type_size(); a test compares them with the installed library.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip

# ``general.file_type``, llama.cpp's enum llama_ftype.
FILE_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
    18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S",
    25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
    32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip

_GUESSED = 1024
"""Flag in ``general.file_type``: derived, not declared."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Stands for a value that was stepped over.

    Args:
        kind: what it was.
        length: elements of an array, bytes of a text.
    """

    kind: Literal["text", "strings", "numbers"]
    length: int


Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...] | Skipped


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself. Sizes are in bytes; unknown numbers are None, texts "".

    Texts are the file's own: pass them through `printable` before they reach a screen.
    """

    version: int
    metadata: Mapping[str, Value] = field(repr=False)
    tensor_count: int
    tensor_bytes: int
    """All tensors, without the padding between them."""
    type_bytes: Mapping[str, int]
    """Of `tensor_bytes`, how many each tensor type has."""
    parameters: int
    """Elements of all tensors."""
    data_offset: int
    """Where the tensors begin."""
    expected_size: int
    """The smallest file that holds every tensor."""
    file_size: int

    @property
    def complete(self) -> bool:
        """Does the file hold every tensor?"""
        return self.file_size >= self.expected_size

    def text(self, key: str) -> str:
        """A metadata text, "" when there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """A metadata integer that is not negative; of one for each layer, the largest."""
        return max(self._numbers(key), default=None)

    def _numbers(self, key: str) -> tuple[int, ...]:
        value = self.metadata.get(key)
        values = value if isinstance(value, tuple) else (value,)
        return tuple(n for n in values if isinstance(n, int) and not isinstance(n, bool) and n >= 0)

    def _of_architecture(self, key: str) -> int | None:
        return self.number(f"{self.architecture}.{key}")

    @property
    def architecture(self) -> str:
        """E.g. ``"qwen3"``."""
        return self.text("general.architecture")

    @property
    def name(self) -> str:
        """The name that its makers gave it."""
        return self.text("general.name")

    @property
    def general_type(self) -> str:
        """``"model"``, ``"adapter"``, ``"mmproj"``…; files of before this key are models."""
        return self.text("general.type") or "model"

    @property
    def size_label(self) -> str:
        """E.g. ``"4B"``."""
        return self.text("general.size_label")

    @property
    def chat_template(self) -> str:
        """The template's source, Jinja."""
        return self.text("tokenizer.chat_template")

    @property
    def quantization(self) -> str:
        """E.g. ``"Q4_K_M"``: as declared, else the tensor type that has the most bytes."""
        declared = self.number("general.file_type")
        if declared is not None and (name := FILE_TYPES.get(declared & ~_GUESSED)):
            return name
        return max(self.type_bytes, key=lambda name: self.type_bytes[name], default="")

    @property
    def context_length(self) -> int | None:
        """Tokens that it was trained for."""
        return self._of_architecture("context_length")

    @property
    def block_count(self) -> int | None:
        """Layers."""
        return self._of_architecture("block_count")

    @property
    def embedding_length(self) -> int | None:
        """Width of the residual stream."""
        return self._of_architecture("embedding_length")

    @property
    def feed_forward_length(self) -> int | None:
        """Width inside the MLP."""
        return self._of_architecture("feed_forward_length")

    @property
    def head_count(self) -> int | None:
        """Query heads of a layer, of the largest where they differ."""
        return self._of_architecture("attention.head_count")

    @property
    def head_count_kv(self) -> int | None:
        """Key-value heads of a layer, of the largest where they differ; by default `head_count`."""
        declared = self._of_architecture("attention.head_count_kv")
        return self.head_count if declared is None else declared

    @property
    def kv_heads_in_all(self) -> int | None:
        """Key-value heads of all layers together."""
        each = self._numbers(f"{self.architecture}.attention.head_count_kv")
        if self.block_count is None or self.head_count_kv is None:
            return None
        return sum(each) if len(each) > 1 else self.block_count * self.head_count_kv

    @property
    def key_length(self) -> int | None:
        """Elements of one head's key; by default embedding / heads."""
        return self._head_length("attention.key_length")

    @property
    def value_length(self) -> int | None:
        """Elements of one head's value; by default embedding / heads."""
        return self._head_length("attention.value_length")

    def _head_length(self, key: str) -> int | None:
        declared = self._of_architecture(key)
        if declared is None and self.embedding_length and self.head_count:
            return self.embedding_length // self.head_count
        return declared

    @property
    def vocabulary(self) -> int | None:
        """Tokens in the vocabulary."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Skipped):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else self._of_architecture("vocab_size")


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
            raise _error("not_gguf", name)
        if status.st_size == 0:
            raise _error("empty", name)
        with path.open("rb", buffering=0) as file:
            header = _read_header(_Cursor(file, os.fstat(file.fileno()).st_size, name))
    except FileNotFoundError as error:
        raise _error("missing", name) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise _error("unreadable", name, reason=printable(reason)) from error
    if not header.complete and not partial:
        raise _error("truncated", name, have=header.file_size, need=header.expected_size)
    return header


def printable(text: str, limit: int = 200) -> str:
    """`text` on one line, fit for a screen: control, bidirectional-override and other invisible
    characters become "\N{REPLACEMENT CHARACTER}", and what is longer than `limit` is cut."""
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNSHOWN else c for c in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _error(kind: str, name: str, **values: str | int) -> DrkunError:
    message = t(f"library.gguf_{kind}", file=name, **values)
    return DrkunError(f"gguf_{kind}", message, t(f"library.gguf_{kind}_hint"), EXIT_NO_MODEL)


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
        return _error("corrupt", self.name, reason=what, offset=self.offset)

    def _fill(self, count: int) -> None:
        """Bring the next `count` bytes into the window.

        Raises:
            DrkunError: the file ends before them.
        """
        end = self.offset + count
        if end > min(self.size + MAX_ITEM, MAX_HEADER):
            raise self.corrupt("length")
        if end > self.size:
            raise _error("truncated", self.name, have=self.size, need=end)
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
            raise _error("truncated", self.name, have=start + len(self._window), need=end)

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
            raise _error("truncated", self.name, have=self.size, need=self.offset + claimed * smallest)
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
        raise _error("not_gguf", cursor.name)
    version = cursor.u32()
    if version not in (2, 3):
        raise _error("unsupported", cursor.name, reason=_version_name(version))
    # Each entry has a key's length, a type and a value; each tensor a name, a shape, a type, an offset.
    tensor_count = cursor.count(MAX_ENTRIES, 8 + 4 + 4 + 8, "tensor count")
    entry_count = cursor.count(MAX_ENTRIES, 8 + 4 + 1, "metadata count")
    metadata = _read_metadata(cursor, entry_count)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 65_536 or alignment & (alignment - 1):
        raise cursor.corrupt("alignment")
    type_bytes, parameters, span = _read_tensors(cursor, tensor_count, alignment)
    data_offset = _padded(cursor.offset, alignment) if tensor_count else cursor.offset
    return GgufHeader(
        version=version,
        metadata=metadata,
        tensor_count=tensor_count,
        tensor_bytes=sum(type_bytes.values()),
        type_bytes=type_bytes,
        parameters=parameters,
        data_offset=data_offset,
        expected_size=data_offset + span,
        file_size=cursor.size,
    )


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


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[dict[str, int], int, int]:
    """Bytes for each tensor type, elements in all, and bytes from the first tensor to the last's end."""
    type_bytes: dict[str, int] = {}
    parameters = end = 0
    for _ in range(count):
        cursor.string(4096, "tensor name")
        dimensions = cursor.u32()
        if dimensions > 4:
            raise cursor.corrupt("tensor dimensions")
        shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
        kind, offset = struct.unpack("<IQ", cursor.take(12))
        elements = math.prod(shape)
        if elements >= 1 << 63:
            raise cursor.corrupt("tensor shape")
        if kind not in TENSOR_TYPES:
            raise _error("unsupported", cursor.name, reason=f"tensor type {kind}")
        name, block, block_bytes = TENSOR_TYPES[kind]
        if (shape[0] if shape else 1) % block:
            raise cursor.corrupt("tensor shape")
        # As in llama.cpp, each tensor begins where the one before it ended.
        if offset != _padded(end, alignment):
            raise cursor.corrupt("tensor offset")
        size = elements // block * block_bytes
        type_bytes[name] = type_bytes.get(name, 0) + size
        parameters += elements
        end = offset + size
    return type_bytes, parameters, end


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
