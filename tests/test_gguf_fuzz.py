"""A hundred thousand damaged headers: a header or a refusal each time, in bounded time and memory."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from drkun_tui import paths
from drkun_tui.engine.rates import Rates
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Gpu, Hardware
from drkun_tui.library import gguf, inventory
from drkun_tui.library.gguf_header import GgufHeader
from drkun_tui.library.overview import overview
from drkun_tui.library.speed import Known
from drkun_tui.profiles import GIB
from drkun_tui.ui import model_rows
from tests import gguf_files
from tests.model_files import CONFIG, put_base, put_lora

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


# What is worked out from a header that is read

NUMBER_KEYS = (
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("expert_count", "expert_used_count"),
)
GPU = Gpu("Made Up", 8 * GIB, 4 * GIB, "nvidia", "nvidia", 360_000_000_000)
MACHINES = tuple(Hardware("cpu", 2, 2, GIB, free, gpus, "") for free in (0, GIB) for gpus in ([], [GPU]))
RATES = Rates(
    threads=2, decode={"F16": 4e10}, prefill={"F16": 1e11}, attention_s=1e-8, cache_s=1e-10,
    prefill_attention=7e10, operation_s=4e-7, last_cache=0, quiet=True,
)  # fmt: skip


def looked_through(folder: Path, count: int) -> None:
    """The whole folder is listed and judged, and remembered in a form that can be read."""
    for machine in MACHINES:
        found = overview([folder], machine, Known(RATES, 2, {}))
        assert len(found.entries) == count
        for entry in found.entries:
            json.dumps(entry.model.as_dict(machine))
            model_rows.cells(entry)
    stored = msgspec.msgpack.decode(paths.header_cache().read_bytes())
    assert len(stored[1]) == count


def test_mutants_end_no_scan(tmp_path: Path) -> None:
    rng = random.Random(0)
    for number in range(300):
        raw = bytearray(WHOLE)
        rng.choice(MUTATIONS)(raw, rng)
        (tmp_path / f"{number}.gguf").write_bytes(raw)
    looked_through(tmp_path, 300)


def test_numbers_of_any_size_end_no_scan(tmp_path: Path) -> None:
    rng = random.Random(0)
    possible = [number for number in NUMBERS if number < 1 << 63]
    for number in range(300):
        keys = rng.sample(NUMBER_KEYS, rng.randint(1, len(NUMBER_KEYS)))
        # Once in a while of one each layer.
        numbers: dict[str, gguf_files.Entry] = {
            f"qwen3.{key}": rng.choices(possible[:20], k=3) if rng.random() < 0.1 else rng.choice(possible)
            for key in keys
        }
        tensors = gguf_files.TENSORS if rng.random() < 0.8 else [("blk.0.x", (1, rng.choice(possible)), 0)]
        raw, size = gguf_files.header(gguf_files.metadata() | numbers, tensors)
        (tmp_path / f"{number}.gguf").write_bytes(raw + bytes(size if size < 1 << 20 else 0))
    looked_through(tmp_path, 300)


@pytest.mark.parametrize(
    "numbers",
    [
        {"block_count": (1 << 24) + 1},
        {"block_count": 1 << 13, "attention.head_count": 1 << 13},
        {"attention.head_count_kv": [1 << 24, 1 << 24]},
        {"attention.key_length": (1 << 32) - 1},
        {"embedding_length": 1 << 25},
    ],
)
def test_a_header_of_impossible_size_is_told_as_damaged(
    tmp_path: Path, numbers: dict[str, gguf_files.Entry]
) -> None:
    claims = {f"qwen3.{key}": value for key, value in numbers.items()}
    gguf_files.write(tmp_path / "m.gguf", gguf_files.metadata() | claims)
    (model,) = inventory.scan([tmp_path])
    assert model.error is not None
    assert model.error.kind == "gguf_corrupt"
    assert model.problems[0].remedy


CONFIG_KEYS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("vocab_size", "intermediate_size", "max_position_embeddings", "num_experts", "num_experts_per_tok"),
    *("moe_intermediate_size", "r", "lora_alpha"),
)


def test_configurations_and_safetensors_of_any_size_end_no_scan(tmp_path: Path) -> None:
    rng = random.Random(0)
    possible = (*NUMBERS, 10**300, 10**400, -1, 1e300, True, None, "64")
    for number in range(200):
        put = rng.choice((put_base, put_lora))
        folder = put(tmp_path / f"{number}")
        file = folder / ("config.json" if put is put_base else "adapter_config.json")
        changed = {key: rng.choice(possible) for key in rng.sample(CONFIG_KEYS, 4)}
        file.write_text(json.dumps(json.loads(file.read_bytes()) | changed))
        if rng.random() < 0.5:
            shape = [rng.choice(NUMBERS) for _ in range(rng.randint(1, 8))]
            tensor = {"dtype": "BF16", "shape": shape, "data_offsets": [0, rng.choice(NUMBERS)]}
            raw = json.dumps({"x": tensor}).encode()
            (weights,) = folder.glob("*.safetensors")
            weights.write_bytes(struct.pack("<Q", len(raw)) + raw)
    looked_through(tmp_path, 200)


def test_weights_of_impossible_size_are_told_as_damaged(tmp_path: Path) -> None:
    put_base(tmp_path / "weights")
    raw = json.dumps({"x": {"dtype": "U8", "shape": [1 << 40] * 8, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "weights" / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    put_base(tmp_path / "config", CONFIG | {"num_hidden_layers": 1 << 30})
    models = inventory.scan([tmp_path])
    assert [model.complete for model in models] == [False, False]
    assert "config.json" in models[0].problems[0].text
    assert "model.safetensors" in models[1].problems[0].text
