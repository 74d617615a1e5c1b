"""A hundred thousand damaged headers: a header or a refusal each time, in bounded time and memory."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from drkun_tui.errors import DrkunError
from drkun_tui.library import gguf, inventory
from drkun_tui.library.gguf_header import GgufHeader
from tests import gguf_files

MUTANTS = 100_000
PARTS = 10

ENTRIES: dict[str, gguf_files.Entry] = {
    "general.architecture": "qwen3",
    "general.type": "adapter",
    "general.alignment": 32,
    "qwen3.block_count": 2,
    "qwen3.attention.head_count_kv": [2, 4],
    "tags": ["a", "医"],
    "scores": [0.5] * 4,
    "tokens": [f"t{n}" for n in range(70)],
    "flag": True,
    "far": -(1 << 40),
    "template": "{{ messages }}",
}
TENSORS: list[gguf_files.Tensor] = [
    ("blk.0.attn_q.weight.lora_a", (64, 8), 0),
    ("blk.1.ffn_up.weight", (256, 2), 12),
    ("output_norm.weight", (64,), 0),
]
HEAD, BODY = gguf_files.header(ENTRIES, TENSORS)
WHOLE = HEAD + bytes(BODY)

NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 9, 10, 12, 13, 16, 31, 32, 33, 255, 256, 65_535, 65_536, 65_537),
    *(
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        1 << 40,
        1 << 60,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
    ),
)


class Counted(io.BytesIO):
    """Counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        raw = super().read(size)
        self.taken += len(raw)
        return raw


def read(raw: bytes) -> GgufHeader | DrkunError:
    """Read, and hold the reader to its bounds."""
    file = Counted(raw)
    told: GgufHeader | DrkunError
    try:
        told = gguf.read_from(file, len(raw), "mutant.gguf")
    except DrkunError as error:
        told = error
    # Never more than a window is read again where a skip ended in the middle of one.
    assert file.taken <= 4 * len(raw) + 64
    return told


def overwrite_number(raw: bytearray, rng: random.Random) -> None:
    number, (form, mask) = rng.choice(NUMBERS), rng.choice((("<Q", -1), ("<I", 0xFFFFFFFF), ("<B", 0xFF)))
    packed = struct.pack(form, number & mask & (1 << 64) - 1)
    place = rng.randrange(4, len(HEAD) - 8)
    raw[place : place + len(packed)] = packed


def flip_bits(raw: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        raw[rng.randrange(len(HEAD))] ^= 1 << rng.randrange(8)


def random_bytes(raw: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(HEAD))
    new = rng.randbytes(rng.randint(1, 16))
    raw[place : place + len(new)] = new


def cut(raw: bytearray, rng: random.Random) -> None:
    del raw[rng.randrange(len(raw)) :]


def take_out(raw: bytearray, rng: random.Random) -> None:
    place = rng.randrange(4, len(HEAD))
    del raw[place : place + rng.randint(1, 24)]


def repeat(raw: bytearray, rng: random.Random) -> None:
    place = rng.randrange(4, len(HEAD))
    raw[place:place] = raw[place : place + rng.randint(1, 64)]


def nest(raw: bytearray, rng: random.Random) -> None:
    place = rng.randrange(24, len(HEAD))
    raw[place:place] = struct.pack("<IIQ", 9, 9, rng.choice(NUMBERS)) * rng.randint(1, 8)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(overwrite_number, overwrite_number, overwrite_number, flip_bits, random_bytes),
    *(cut, take_out, repeat, nest),
)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_mutated_header_gives_a_header_or_a_refusal(part: int) -> None:
    rng = random.Random(part)
    refused: dict[str, int] = {}
    for _ in range(MUTANTS // PARTS):
        raw = bytearray(WHOLE)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if len(raw) > len(HEAD):
                rng.choice(MUTATIONS)(raw, rng)
        told = read(bytes(raw))
        if isinstance(told, DrkunError):
            assert told.message.isprintable()
            refused[told.kind] = refused.get(told.kind, 0) + 1
        else:
            assert told.tensor_count <= gguf.MAX_ENTRIES
            assert told.parameters >= 0
            for name in ("architecture", "quantization", "context_length", "kv_heads_in_all", "vocabulary"):
                getattr(told, name)
    # The mutations reach every stage of the reader.
    assert set(refused) == {"gguf_corrupt", "gguf_truncated", "gguf_unsupported", "gguf_not_gguf"}
    assert sum(refused.values()) < MUTANTS // PARTS


def test_what_was_not_mutated_is_read() -> None:
    told = read(WHOLE)
    assert isinstance(told, GgufHeader)
    assert told.complete
    assert set(told.tensors.shapes) == {
        "blk.*.attn_q.weight.lora_a", "blk.*.ffn_up.weight", "output_norm.weight",
    }  # fmt: skip


START = b"GGUF" + struct.pack("<I", 3)
KEY = gguf_files.text("k")


def array(kind: int, length: int) -> bytes:
    return struct.pack("<IIQ", 9, kind, length)


HOSTILE = {
    "2^60 tensors": START + struct.pack("<QQ", 1 << 60, 0),
    "2^64 - 1 entries": START + struct.pack("<QQ", 0, (1 << 64) - 1),
    "array of 2^63 numbers": START + struct.pack("<QQ", 0, 1) + KEY + array(4, 1 << 63),
    "array of 2^63 strings": START + struct.pack("<QQ", 0, 1) + KEY + array(8, 1 << 63),
    "arrays in arrays": START + struct.pack("<QQ", 0, 1) + KEY + array(9, 1) + array(9, 1 << 63)[4:] * 1000,
    "string of 2^63 bytes": START + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IQ", 8, 1 << 63),
    "key of 2^63 bytes": START + struct.pack("<QQQ", 0, 1, 1 << 63),
    "tensor of 2^32 dimensions": START + struct.pack("<QQ", 1, 0) + KEY + struct.pack("<I", (1 << 32) - 1),
    "tensor of 2^252 elements": START
    + struct.pack("<QQ", 1, 0)
    + KEY
    + struct.pack("<IQQQQIQ", 4, *[(1 << 63) - 1] * 4, 0, 0),
    "many strings without an end": START
    + struct.pack("<QQ", 0, 1)
    + KEY
    + array(8, 4_000_000)
    + bytes(8 * 9),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_claim_costs_neither_memory_nor_reading(tmp_path: Path, name: str) -> None:
    raw = HOSTILE[name] + bytes(256)
    tracemalloc.start()
    try:
        told = read(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(told, DrkunError)
    assert peak < 1024 * 1024
    # In a list it is one model with a problem, and a problem has a remedy.
    (tmp_path / "claim.gguf").write_bytes(raw)
    (model,) = inventory.scan([tmp_path])
    assert not model.complete
    assert model.problems[0].remedy
