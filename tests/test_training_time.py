"""How long a run will take: estimated before the first one on a base, measured behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from drkun_tui import learned, paths
from drkun_tui.jobs import detached
from drkun_tui.library import inventory
from drkun_tui.library.fit import Shape
from drkun_tui.training import pace, recipe
from drkun_tui.training.checking.protocol import Tokens
from drkun_tui.training.protocol import Step, encode
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import Runs

COUNTED = Tokens(
    model="m", examples=100, total=12_000, trained=9_000, median=120, p95=140, max=150, context_length=512,
    longer=0, masked=0, histogram=(0,) * 10,
)  # fmt: skip


def made(**training: object) -> Recipe:
    preset = recipe.presets()["starter-cpu"]
    return msgspec.structs.replace(preset, training=msgspec.structs.replace(preset.training, **training))


@pytest.fixture
def shape() -> Shape:
    found = inventory.find("starter", paths.model_folders()).shape
    assert found is not None
    return found


def test_how_many_tokens_a_run_sees() -> None:
    epochs = made(epochs=2.0, max_steps=0)
    assert pace.tokens_seen(epochs, COUNTED) == 12_000 * 0.9 * 2
    # Nobody has counted them: about as many as the file is long.
    assert 20_000 < pace.tokens_seen(epochs, None) / 2 / 0.9 < 60_000
    sizes = {"batch_size": 4, "gradient_accumulation": 2, "context_length": 512}
    packed = made(epochs=0.0, max_steps=10, packing=True, **sizes)
    assert pace.tokens_seen(packed, None) == 10 * 8 * 512
    padded = msgspec.structs.replace(packed, training=msgspec.structs.replace(packed.training, packing=False))
    assert pace.tokens_seen(padded, COUNTED) == 10 * 8 * 120
    # By the lines of the file.
    assert 10 * 8 * 60 < pace.tokens_seen(padded, None) < 10 * 8 * 200
    unknown = msgspec.structs.replace(padded, data=recipe.Data(hub="somebody/dialogues"))
    assert pace.tokens_seen(unknown, None) == 0
    assert pace.expected(unknown, Shape(weight_bytes=1), None) is None


def test_how_many_tokens_are_looked_at() -> None:
    run = made(epochs=0.0, max_steps=10, packing=False, evaluate_every=4)
    # Before the first step, behind the fourth, the eighth and the last, a tenth of the tokens each.
    assert pace.looked_at(run, 0, COUNTED) == 4 * 1200
    assert (
        pace.looked_at(msgspec.structs.replace(run, training=made(evaluate_every=0).training), 0, COUNTED)
        == 0
    )
    few = msgspec.structs.replace(run, data=msgspec.structs.replace(run.data, held_out_most=5))
    assert pace.looked_at(few, 0, COUNTED) == 4 * 600
    # Of 100 examples in batches of four.
    epochs = made(
        epochs=1.0, max_steps=0, packing=False, batch_size=4, gradient_accumulation=1, evaluate_every=10
    )
    assert pace.looked_at(epochs, 12_000, COUNTED) == 4 * 1200


def test_the_operations_of_a_token(shape: Shape) -> None:
    plain = pace.flops(made(gradient_checkpointing=False), shape)
    # 26 million weights, forward and back, two operations each.
    assert plain == pytest.approx(4 * 26e6, rel=0.2)
    assert pace.flops(made(gradient_checkpointing=True), shape) == plain * 1.5


def test_the_first_time_is_estimated_and_the_second_measured(shape: Shape) -> None:
    pytest.importorskip("torch")
    wanted = made()
    told = pace.expected(wanted, shape, COUNTED)
    assert told is not None and not told.measured
    assert 0 < told.seconds < 3600
    # The probe was kept, and is not asked again.
    (key,) = learned.get(paths.machine_file(), "training_rates", dict[str, dict[str, float]], {})
    learned.put(paths.machine_file(), "training_rates", {key: {"flops_s": 1e9}})
    slow = pace.expected(wanted, shape, COUNTED)
    assert slow is not None
    share = pace.SHARES["packed" if wanted.training.packing else "padded"]
    seen = 12_000 * 0.9 * 3
    # A look computes half of what a step does.
    tokens = seen + pace.looked_at(wanted, seen, COUNTED) / 2
    assert slow.seconds == pytest.approx(tokens * pace.flops(wanted, shape) / (1e9 * share))

    folder: Path = Runs().make(wanted)
    step = Step(step=1, loss=1.0, learning_rate=1e-3, epoch=0.1, tokens=500, tok_s=100.0, aside=0.25)
    (folder / "events.jsonl").write_bytes(encode(step) + b"\n")
    assert detached.folders(Runs().root) == [folder]
    measured = pace.expected(wanted, shape, COUNTED)
    assert measured is not None and measured.measured
    assert measured.seconds == 12_000 * 0.9 * 3 / 100 * 1.25
    # Two devices, or another base has not been trained on.
    two = pace.expected(made(devices=2), shape, COUNTED)
    assert two is not None and not two.measured
    other = msgspec.structs.replace(wanted, base=recipe.Base(model="another"))
    again = pace.expected(other, shape, COUNTED)
    assert again is not None and not again.measured


def test_the_probe_measures() -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-m", pace.PROBE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["flops_s"] > 1e8
