"""Fine-tuning on real GPUs: on one of them a run is killed and goes on, and its adapter answers; a base that
two share out learns what a whole one on each of them learns."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("trl")

import torch

from drkun_tui.jobs import detached
from drkun_tui.training.protocol import Backend, Finished
from drkun_tui.training.recipe import Base
from drkun_tui.training.runs import Runs
from tests.conftest import has_ended, wait_until
from tests.real_training import base, begin, ended, here, history, patiently, place, resume, small
from tests.test_pull import drkun

__all__ = ["base", "here", "place"]
"""Fixtures, which pytest finds by their names here."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("backend", ["peft", "unsloth"])
def test_a_killed_run_goes_on_and_its_adapter_answers(base: Path, backend: Backend) -> None:
    if backend == "unsloth" and importlib.util.find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed")
    made = small(backend=backend, max_steps=40)
    made = msgspec.structs.replace(made, base=Base(model=made.base.model, precision="bf16"))
    undisturbed = ended(begin(made))
    assert isinstance(undisturbed.end, Finished) and undisturbed.planned is not None
    assert undisturbed.planned.backend == backend and undisturbed.planned.on_gpu
    assert undisturbed.held_out[-1].loss < undisturbed.held_out[0].loss

    id = begin(made)
    patiently(lambda: history(id).saved >= 2)
    now = detached.state(Runs().root / id)
    assert now is not None
    os.kill(int(now.process.split()[0]), signal.SIGKILL)
    wait_until(lambda: has_ended(int(now.process.split()[0])))
    assert asyncio.run(Runs().get(id)).phase == "failed"
    resume(id)
    told = ended(id)
    assert isinstance(told.end, Finished)
    # The GPU's kernels add up in an order of their own.
    assert told.steps[-1].loss == pytest.approx(undisturbed.steps[-1].loss, rel=2e-2)
    assert [step.tokens for step in told.steps] == [step.tokens for step in undisturbed.steps]
    asked = ("--model", "drkun/starter-bf16", "--adapter", told.end.folder, "--profile", "gpu16")
    done = drkun("ask", *asked, "--max-tokens", "24", "--json", "头晕")
    assert done.returncode == 0, done.stderr
    answered = json.loads(done.stdout)
    assert (answered["profile"], answered["engine"]) == ("gpu16", "transformers")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@pytest.mark.parametrize("packing", [True, False])
def test_two_cards_share_a_base_out_and_learn_the_same(base: Path, packing: bool) -> None:
    told = {}
    for sharding in ("none", "full"):
        made = small(devices=2, batch_size=1, packing=packing, sharding=sharding, backend="peft")
        made = msgspec.structs.replace(made, base=Base(model=made.base.model, precision="bf16"))
        told[sharding] = ended(begin(made))
        assert isinstance(told[sharding].end, Finished)
    planned = {sharding: history.planned for sharding, history in told.items()}
    assert planned["full"] is not None and planned["full"].sharded
    assert planned["none"] is not None and not planned["none"].sharded
    for whole, part in zip(told["none"].steps, told["full"].steps, strict=True):
        assert part.loss == pytest.approx(whole.loss, rel=2e-2)
        assert part.tokens == whole.tokens
    for looked, also in zip(told["none"].held_out, told["full"].held_out, strict=True):
        assert also.loss == pytest.approx(looked.loss, rel=2e-2)
