"""Makes GGUF files for tests: whole, broken, and of any claimed shape."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from drkun_tui.library.gguf_types import TENSOR_TYPES

Scalar = bool | int | float | str
Entry = Scalar | Sequence[Scalar]
Tensor = tuple[str, Sequence[int], int]
"""Name, shape (fastest dimension first), number of the ggml type."""

TENSORS: list[Tensor] = [("token_embd.weight", (64, 32), 0), ("output_norm.weight", (64,), 0)]


def metadata(architecture: str = "qwen3", **more: Entry) -> dict[str, Entry]:
    """The entries of a small language model; ``__`` in a name stands for a dot."""
    entries: dict[str, Entry] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": "Tiny",
        "general.file_type": 0,
        f"{architecture}.block_count": 2,
        f"{architecture}.context_length": 4096,
        f"{architecture}.embedding_length": 64,
        f"{architecture}.feed_forward_length": 128,
        f"{architecture}.attention.head_count": 4,
        f"{architecture}.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(32)],
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }
    return entries | {key.replace("__", "."): value for key, value in more.items()}


def text(value: str) -> bytes:
    raw = value.encode("utf8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def entry(value: Entry) -> bytes:
    """A value with its type in front."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value) if 0 <= value < 1 << 32 else struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    items = [entry(item) for item in value]
    kind = items[0][:4] if items else struct.pack("<I", 8)
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(items)) + b"".join(i[4:] for i in items)


def header(
    entries: Mapping[str, Entry] | None = None,
    tensors: Sequence[Tensor] = TENSORS,
    *,
    version: int = 3,
    tensor_count: int | None = None,
    entry_count: int | None = None,
) -> tuple[bytes, int]:
    """The bytes before the first tensor, and the bytes that the tensors take."""
    entries = metadata() if entries is None else entries
    raw = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(entries) if entry_count is None else entry_count,
    )
    raw += b"".join(text(key) + entry(value) for key, value in entries.items())
    end = 0
    for name, shape, kind in tensors:
        start = -(-end // 32) * 32
        raw += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, start)
        _, block, block_bytes = TENSOR_TYPES[kind]
        elements = 1
        for length in shape:
            elements *= length
        end = start + elements // block * block_bytes
    return raw + b"\0" * (-len(raw) % 32 if tensors else 0), end


def write(
    path: Path,
    entries: Mapping[str, Entry] | None = None,
    tensors: Sequence[Tensor] = TENSORS,
    *,
    version: int = 3,
) -> Path:
    """A whole file, its tensors all zero and sparse on disk."""
    raw, size = header(entries, tensors, version=version)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + size)
    return path


def lora(path: Path, seed: int = 1, rank: int = 4) -> Path:
    """A GGUF LoRA for the bundled model that changes what its last layers attend to; F32, 32 KiB a rank."""
    tensors: list[Tensor] = [
        (f"blk.{layer}.attn_{part}.weight.lora_{side}", shape, 0)
        for layer in (6, 7)
        for part in ("q", "output")
        for side, shape in (("a", (512, rank)), ("b", (rank, 512)))
    ]
    entries: dict[str, Entry] = {
        "general.architecture": "qwen3",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 2.0 * rank,
    }
    head, size = header(entries, tensors)
    draw = random.Random(seed)
    weights = struct.pack(f"<{size // 4}f", *(draw.uniform(-0.3, 0.3) for _ in range(size // 4)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + weights)
    return path
