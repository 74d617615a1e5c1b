"""Whether a run shares its base out over several GPUs, and what each of them then has to hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from drkun_tui import hardware
from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.hardware import Gpu, Hardware
from drkun_tui.library.fit import Shape
from drkun_tui.training import memory, recipe, sharding
from drkun_tui.training.memory import GIB
from drkun_tui.training.recipe import Base, Recipe

LLAMA_8B = Shape(
    weight_bytes=16_060_522_496,
    is_gguf=False,
    parameters=8_030_261_248,
    embedding_parameters=2 * 128_256 * 4096,
    cache_bytes=131_072,
    vocabulary=128_256,
    embedding=4096,
    feed_forward=14_336,
    layers=32,
    heads=32 * 32,
    head_length=128,
)


@pytest.fixture(autouse=True)
def _transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_transformers", lambda: sharding.LEAST_TRANSFORMERS)


def made(precision: str = "bf16", **training: Any) -> Recipe:
    preset = recipe.presets()["drkun-r1-8b"]
    return msgspec.structs.replace(
        preset,
        base=Base(model="m", precision=precision),  # type: ignore[arg-type]
        training=msgspec.structs.replace(preset.training, **training),
    )


def with_cards(*free: float) -> Hardware:
    cards = [Gpu("card", 24 * GIB, int(bytes_ * GIB), "nvidia 1", "nvidia") for bytes_ in free]
    return dataclasses.replace(hardware.read(), gpus=cards)


def decided(wanted: Recipe, *free: float) -> str:
    return sharding.decided(wanted, LLAMA_8B, with_cards(*free), max(len(free), 1)).training.sharding


def test_a_base_is_shared_out_where_one_card_does_not_hold_it_and_its_part_fits() -> None:
    # 15 GiB of weights, and what training takes besides.
    assert decided(made(), 16, 16) == "full"
    assert decided(made(), 40, 40) == "none"
    assert decided(made(), 6, 6) == "none"
    assert decided(made(), 16) == "none"
    assert decided(made()) == "none"
    # The fullest card decides.
    assert decided(made(), 40, 16) == "full"
    assert decided(made(), 40, 6) == "none"


def test_four_bits_stay_whole_and_what_is_left_open_takes_them_first() -> None:
    assert decided(made("nf4"), 6, 6) == "none"
    assert decided(made("auto"), 16, 16) == "none"
    # An eighth in 16 bits is smaller than the whole in four.
    need = memory.needed(made("auto", sharding="none"), LLAMA_8B, on_gpu=True) / GIB
    assert decided(made("auto"), *[need - 0.5] * 8) == "full"
    assert decided(made("auto"), *[need + 0.5] * 8) == "none"
    open_ = made("auto", sharding="full")
    assert memory.precision(open_, on_gpu=True) == "bf16"
    assert memory.precision(made("auto", sharding="none"), on_gpu=True) == "nf4"


def test_what_the_recipe_wants_is_done() -> None:
    assert decided(made(sharding="none"), 16, 16) == "none"
    assert decided(made(sharding="full"), 40, 40) == "full"
    # Also by several processes on a CPU.
    full = sharding.decided(made(sharding="full"), LLAMA_8B, with_cards(), 2)
    assert full.training.sharding == "full"


def test_a_part_is_what_one_process_needs() -> None:
    whole = memory.needed(made(sharding="none"), LLAMA_8B, on_gpu=True, processes=4)
    part = memory.needed(made(sharding="full"), LLAMA_8B, on_gpu=True, processes=4)
    # A quarter of the weights, two layers of 218 million parameters and the output embedding, at two bytes.
    layers = LLAMA_8B.parameters - LLAMA_8B.embedding_parameters
    held = LLAMA_8B.parameters / 4 + 2 * layers / 32 + 128_256 * 4096
    assert whole - part == pytest.approx(2 * (LLAMA_8B.parameters - held), rel=1e-6)
    alone = memory.needed(made(sharding="full"), LLAMA_8B, on_gpu=True)
    assert alone == whole


@pytest.mark.parametrize(
    ("wanted", "processes", "kind"),
    [
        (made(sharding="full"), 1, "sharding_alone"),
        (made("nf4", sharding="full"), 2, "sharding_nf4"),
        (made(sharding="full", backend="unsloth"), 2, "sharding_unsloth"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(wanted: Recipe, processes: int, kind: str) -> None:
    with pytest.raises(DrkunError) as caught:
        sharding.decided(wanted, LLAMA_8B, with_cards(*[40.0] * processes), processes)
    assert (caught.value.kind, caught.value.exit_code) == (kind, EXIT_BAD_INPUT)
    assert caught.value.hint


def test_an_older_transformers_is_refused_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_transformers", lambda: (5, 3))
    with pytest.raises(DrkunError) as caught:
        decided(made(sharding="full"), 40, 40)
    assert caught.value.kind == "sharding_outdated"
    assert decided(made(), 16, 16) == "none"
