"""GGUF models of well-known shapes with random weights: honest for memory and speed, and nothing to fetch.

The tokenizer is the bundled model's, filled up to the shape's vocabulary, with as many merges as such
vocabularies have. Weights are one block of random numbers over and over, since no kernel looks at values.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np

from drkun_tui import paths
from drkun_tui.library.gguf_types import FILE_TYPES

F32, F16 = 0, 1
_STRING, _ARRAY, _U32, _I32, _F32 = 8, 9, 4, 5, 6
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_ALIGNMENT = 32

Tensor = tuple[str, tuple[int, ...], int]
"""Name, shape (fastest dimension first), number of the ggml type."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of a model's shape, as its ``config.json`` has them."""

    name: str
    architecture: str
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool = True
    """Is the input embedding also the output's?"""


QWEN3_4B = Architecture("Qwen3-4B", "qwen3", 36, 2560, 9728, 32, 8, 128, 151_936)
QWEN3_06B = Architecture("Qwen3-0.6B", "qwen3", 28, 1024, 3072, 16, 8, 128, 151_936)
LLAMA_1B = Architecture("Llama-3.2-1B", "llama", 16, 2048, 8192, 32, 8, 64, 128_256)
SMALL = Architecture("Llama-like 270M", "llama", 24, 768, 3072, 12, 4, 64, 32_000, tied=False)
"""Between the bundled model and the others, with an output of its own."""


def make(shape: Architecture, home: Path, quantization: str = "F16") -> Path:
    """Make a model in `home`, unless it is there.

    Args:
        quantization: a name of llama.cpp's, e.g. ``"Q4_K_M"``; its own quantiser makes it from F16.
    """
    path = home / "random" / f"{shape.name}-{quantization}.gguf"
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".tmp")
    if quantization == "F16":
        _write_f16(shape, aside)
    else:
        _quantize(make(shape, home), aside, quantization)
    return aside.rename(path)


def _write_f16(shape: Architecture, path: Path) -> None:
    tensors = list(_tensors(shape))
    entries = _entries(shape)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    for key, value in entries.items():
        head += _text(key) + value
    at = 0
    for name, dimensions, kind in tensors:
        head += _text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, at)
        at += -(-_size(dimensions, kind) // _ALIGNMENT) * _ALIGNMENT
    random = np.random.default_rng(0).normal(0, 0.02, 1 << 22)
    blocks = {kind: random.astype(dtype).tobytes() for kind, dtype in ((F32, "<f4"), (F16, "<f2"))}
    with path.open("wb") as file:
        file.write(head + b"\0" * (-len(head) % _ALIGNMENT))
        for _, dimensions, kind in tensors:
            left = _size(dimensions, kind)
            padding = -left % _ALIGNMENT
            while left:
                part = blocks[kind][:left]
                file.write(part)
                left -= len(part)
            file.write(b"\0" * padding)


def _tensors(shape: Architecture) -> Iterator[Tensor]:
    width, query, key = shape.embedding, shape.heads * shape.head, shape.kv_heads * shape.head
    yield "token_embd.weight", (width, shape.vocabulary), F16
    for layer in range(shape.layers):
        matrices = {
            "attn_q": (width, query),
            "attn_k": (width, key),
            "attn_v": (width, key),
            "attn_output": (query, width),
            "ffn_gate": (width, shape.feed_forward),
            "ffn_up": (width, shape.feed_forward),
            "ffn_down": (shape.feed_forward, width),
        }
        norms = {"attn_norm": width, "ffn_norm": width}
        if shape.architecture == "qwen3":
            norms |= {"attn_q_norm": shape.head, "attn_k_norm": shape.head}
        for name, size in norms.items():
            yield f"blk.{layer}.{name}.weight", (size,), F32
        for name, dimensions in matrices.items():
            yield f"blk.{layer}.{name}.weight", dimensions, F16
    yield "output_norm.weight", (width,), F32
    if not shape.tied:
        yield "output.weight", (width, shape.vocabulary), F16


def _size(dimensions: tuple[int, ...], kind: int) -> int:
    size = 4 if kind == F32 else 2
    for length in dimensions:
        size *= length
    return size


def _entries(shape: Architecture) -> dict[str, bytes]:
    """Metadata, each value with its type in front."""
    entries = _entries_of(paths.starter().read_bytes())
    own = {
        "block_count": shape.layers,
        "context_length": 40_960,
        "embedding_length": shape.embedding,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "rope.dimension_count": shape.head,
    }
    kept = {key: value for key, value in entries.items() if key.startswith("tokenizer.")}
    return {
        "general.architecture": _string(shape.architecture),
        "general.type": _string("model"),
        "general.name": _string(f"Random {shape.name}"),
        "general.file_type": struct.pack("<II", _U32, 1),
        **{f"{shape.architecture}.{key}": struct.pack("<II", _U32, value) for key, value in own.items()},
        f"{shape.architecture}.attention.layer_norm_rms_epsilon": struct.pack("<If", _F32, 1e-6),
        f"{shape.architecture}.rope.freq_base": struct.pack("<If", _F32, 1e6),
        **kept,
        "tokenizer.ggml.tokens": _longer(
            kept["tokenizer.ggml.tokens"], shape.vocabulary, lambda number: _text(f"<{number}>")
        ),
        "tokenizer.ggml.token_type": _longer(
            kept["tokenizer.ggml.token_type"], shape.vocabulary, lambda _: struct.pack("<i", 1)
        ),
        "tokenizer.ggml.merges": _longer(
            kept["tokenizer.ggml.merges"], shape.vocabulary, lambda number: _text(f"<{number} {number}>")
        ),
    }


def _longer(array: bytes, length: int, item: Callable[[int], bytes]) -> bytes:
    """An array value filled up to `length` items."""
    kind, has = struct.unpack_from("<IQ", array, 4)
    more = b"".join(item(number) for number in range(has, length))
    return struct.pack("<IIQ", _ARRAY, kind, max(has, length)) + array[16:] + more


def _string(value: str) -> bytes:
    return struct.pack("<I", _STRING) + _text(value)


def _text(value: str) -> bytes:
    raw = value.encode("utf8")
    return struct.pack("<Q", len(raw)) + raw


def _entries_of(raw: bytes) -> dict[str, bytes]:
    """The metadata of a sound GGUF file as it stands there."""
    at, entries = 24, {}

    def text() -> str:
        nonlocal at
        length = struct.unpack_from("<Q", raw, at)[0]
        at += 8 + length
        return raw[at - length : at].decode("utf8")

    def skip(kind: int) -> None:
        nonlocal at
        if kind == _STRING:
            text()
        else:
            at += _SIZES[kind]

    for _ in range(struct.unpack_from("<Q", raw, 16)[0]):
        key = text()
        began = at
        kind = struct.unpack_from("<I", raw, at)[0]
        at += 4
        if kind == _ARRAY:
            item, count = struct.unpack_from("<IQ", raw, at)
            at += 12
            for _ in range(count):
                skip(item)
        else:
            skip(kind)
        entries[key] = raw[began:at]
    return entries


def _quantize(source: Path, target: Path, quantization: str) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = os.cpu_count() or 1
    params.ftype = next(number for number, name in FILE_TYPES.items() if name == quantization)
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise RuntimeError(f"{source.name} cannot be quantised to {quantization}")
