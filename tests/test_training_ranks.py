"""A run over several devices, here two processes on the CPU: the same learning, one fate."""

from __future__ import annotations

import os
import signal

import psutil  # type: ignore[import-untyped]
import pytest

pytest.importorskip("trl")

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
    patiently,
    place,
    resume,
    small,
    whole,
)
from tests.test_pull import drkun
from tests.test_training import looked

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
