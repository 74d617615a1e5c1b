"""A run over several devices, here two processes on the CPU: the same learning, one fate."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

pytest.importorskip("trl")

import torch
from safetensors.torch import load_file

from drkun_tui.jobs import detached
from drkun_tui.training import checkpoints, ranks
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Failed, Finished, Stopped
from drkun_tui.training.runs import CHECKPOINTS, Runs
from tests.real_training import (
    base,
    begin,
    ended,
    here,
    history,
    looked,
    losses,
    patiently,
    place,
    resume,
    small,
    whole,
)
from tests.test_pull import drkun

__all__ = ["base", "here", "place", "whole"]
"""Fixtures, which pytest finds by their names here."""

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("base")]

TWO = {"devices": 2, "batch_size": 1}
"""The same sequences in each step as one process with two at once."""


def pids(id: str) -> list[int]:
    """Of the first process and the one that it has started."""
    now = detached.state(Runs().root / id)
    assert now is not None
    first = psutil.Process(int(now.process.split()[0]))
    return [first.pid, *(child.pid for child in first.children())]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def close(one: History, other: History) -> None:
    """The same but for the order in which floating-point numbers were added up."""
    assert [step.step for step in one.steps] == [step.step for step in other.steps]
    for mine, theirs in zip(one.steps, other.steps, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=2e-3)
        assert mine.tokens == theirs.tokens
        assert mine.learning_rate == theirs.learning_rate
    for (_, mine_loss), (_, their_loss) in zip(looked(one), looked(other), strict=True):
        assert mine_loss == pytest.approx(their_loss, rel=2e-3)


def test_two_processes_learn_as_one_stop_together_and_go_on(
    whole: tuple[str, History],
) -> None:
    id = begin(small(**TWO))
    patiently(lambda: history(id).step >= 1)
    stopped = drkun("stop", id, "--json")
    assert stopped.returncode == 0, stopped.stderr
    told = history(id)
    assert isinstance(told.end, Stopped)
    resume(id)
    told = ended(id)
    assert isinstance(told.end, Finished), (Runs().root / id / "log.txt").read_text()[-3000:]
    close(told, whole[1])
    assert told.planned is not None and whole[1].planned is not None
    assert told.planned.rows_per_step == whole[1].planned.rows_per_step
    kept = checkpoints.all_of(Runs().root / id / CHECKPOINTS)
    assert {path.name for path in kept[-1].path.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


def adapter_of(told: History) -> Path:
    assert isinstance(told.end, Finished)
    return Path(told.end.folder)


@pytest.mark.long
def test_two_processes_share_the_base_out_and_learn_as_one(whole: tuple[str, History]) -> None:
    """Loss, held-out loss, sample, stop and resume; the adapter is like one of a single process."""
    id = begin(small(**TWO, sharding="full", gradient_checkpointing=True))
    patiently(lambda: history(id).step >= 1)
    stopped = drkun("stop", id, "--json")
    assert stopped.returncode == 0, stopped.stderr
    told = history(id)
    assert isinstance(told.end, Stopped)
    resume(id)
    told = ended(id)
    assert isinstance(told.end, Finished), (Runs().root / id / "log.txt").read_text()[-3000:]
    close(told, whole[1])
    assert told.planned is not None and whole[1].planned is not None
    assert told.planned.sharded
    assert told.planned.parameters == whole[1].planned.parameters
    assert told.samples[-1].question == whole[1].samples[-1].question
    mine, theirs = adapter_of(told), adapter_of(whole[1])
    assert {path.name for path in mine.iterdir()} == {path.name for path in theirs.iterdir()}
    configs = [json.loads((folder / "adapter_config.json").read_text("utf8")) for folder in (mine, theirs)]
    # PEFT writes the modules in the order of a set.
    assert {**configs[0], "target_modules": None} == {**configs[1], "target_modules": None}
    assert set(configs[0]["target_modules"]) == set(configs[1]["target_modules"])
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (mine, theirs)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert (weight.shape, weight.dtype) == (weights[1][name].shape, weights[1][name].dtype)
        torch.testing.assert_close(weight, weights[1][name], rtol=0.05, atol=2e-3)


@pytest.mark.usefixtures("unmeasured")
def test_each_process_reads_its_part_of_the_base_only(base: Path) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LOADS, str(base)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    told = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in started]
    for held in told:
        assert held["whole"] / 2 <= held["held"] < held["whole"] * 0.51


LOADS = """
import json, sys
from pathlib import Path
from drkun_tui.training import base_model
from tests.real_training import small
model = base_model.load(Path(sys.argv[1]), small(devices=2, sharding="full"))
weights = list(model.parameters())
held = sum(weight.to_local().numel() for weight in weights)
print(json.dumps({"held": held, "whole": sum(weight.numel() for weight in weights)}))
"""


@pytest.mark.long
@pytest.mark.usefixtures("unmeasured")
def test_a_sharded_run_that_dies_goes_on_as_if_nothing_had_happened(base: Path) -> None:
    made = small(**TWO, sharding="full")
    undisturbed = ended(begin(made))
    assert isinstance(undisturbed.end, Finished)
    id = begin(made)
    patiently(lambda: history(id).step >= 3)
    _, second = pids(id)
    os.kill(second, signal.SIGKILL)
    told = ended(id)
    assert isinstance(told.end, Failed)
    assert told.end.kind == "rank_died"
    resume(id)
    told = ended(id)
    assert isinstance(told.end, Finished)
    assert losses(told) == losses(undisturbed)
    assert looked(told) == looked(undisturbed)


@pytest.mark.long
@pytest.mark.usefixtures("unmeasured")
def test_one_that_dies_ends_all_of_them(whole: tuple[str, History]) -> None:
    id = begin(small(**TWO))
    patiently(lambda: history(id).step >= 1)
    first, second = pids(id)
    os.kill(second, signal.SIGKILL)
    told = ended(id)
    assert isinstance(told.end, Failed)
    assert told.end.kind == "rank_died"
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE

    resume(id)
    patiently(lambda: history(id).step >= 3)
    first, second = pids(id)
    os.kill(first, signal.SIGKILL)
    patiently(lambda: not psutil.pid_exists(second))
    resume(id)
    told = ended(id)
    assert isinstance(told.end, Finished)
    close(told, whole[1])


def test_how_many_processes_a_recipe_wants() -> None:
    assert ranks.wanted(small()) == 1
    assert ranks.wanted(small(devices=3)) == 3
    assert ranks.wanted(small(devices=0)) == 1
