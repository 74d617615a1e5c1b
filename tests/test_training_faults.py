"""A trainer that is killed at any point, or finds too little memory: it goes on, and no step is lost or made
twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

from safetensors import safe_open
from safetensors.torch import load_file

from drkun_tui.jobs import detached
from drkun_tui.training import checkpoints, runs
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Finished
from drkun_tui.training.runs import CHECKPOINTS, Runs
from tests.conftest import MakeChild, has_ended
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

pytestmark = pytest.mark.timeout(900)

__all__ = ["base", "here", "place", "whole"]
"""Fixtures, which pytest finds by their names here."""


def state_of(id: str) -> detached.State:
    now = detached.state(Runs().root / id)
    assert now is not None
    return now


def died(id: str) -> None:
    """Its process is gone, and everybody is told so."""
    pid = int(state_of(id).process.split()[0])
    patiently(lambda: has_ended(pid))
    run = asyncio.run(Runs().get(id))
    assert run.error is not None
    assert (run.phase, run.error.kind) == ("failed", "died")


def whole_checkpoints(id: str) -> list[int]:
    """The steps of the checkpoints that are offered, each of which can be read."""
    found = checkpoints.all_of(Runs().root / id / CHECKPOINTS)
    for one in found:
        with safe_open(one.path / "adapter_model.safetensors", "pt") as tensors:
            assert all(tensors.get_tensor(name).isfinite().all() for name in tensors.keys())  # noqa: SIM118
        assert all((one.path / name).stat().st_size for name in ("optimizer.pt", "trainer_state.json"))
    return [one.step for one in found]


def kill(id: str) -> None:
    """As a machine does that is short of memory."""
    os.kill(int(state_of(id).process.split()[0]), signal.SIGKILL)
    died(id)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from drkun_tui.training import adapter, callback, checkpoints, job, sft
    from drkun_tui.training.trainer import RunTrainer

    def killed(self, *arguments, **options):
        if WHEN:
            os.kill(os.getpid(), signal.SIGKILL)
        return before(self, *arguments, **options)

    before = OWNER.NAME
    OWNER.NAME = killed
    sys.exit(job.run(Path(sys.argv[1])))
"""
"""The trainer, which dies where it is told."""


KILLED_AT = [
    # Weights are written, the optimizer is not.
    ("RunTrainer", "_save_optimizer_and_scheduler", "self.state.global_step == 4", "saving", [2]),
    # All is written, and not yet in its place.
    ("checkpoints", "_to_disk", "self.name == 'checkpoint-4'", "saving", [2]),
    # It is in its place, and nobody has been told.
    ("callback.RunCallback", "saved", "arguments[0] == 4", "saving", [2, 4]),
    # The adapter is half written, and not yet in its place.
    ("adapter", "card", "True", "finishing", [4, 6]),
    # It is in its place, and nobody has been told.
    ("sft", "_finish", "True", "finishing", [4, 6]),
]
"""Whose function dies and when, the phase in which that is, and the checkpoints that are there then."""


@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("unmeasured")
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    whole: tuple[str, History], child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run, because each start of a trainer takes its time: it is killed while it starts, between two
    steps, while it saves and while it finishes."""
    id = begin(small())
    kill(id)
    assert state_of(id).phase == "starting"
    assert history(id).steps == []
    assert whole_checkpoints(id) == []

    resume(id)
    patiently(lambda: history(id).saved >= 2 and history(id).step >= 3)
    kill(id)

    for owner, name, when, phase, saved in KILLED_AT:
        source = KILLED.replace("OWNER", owner).replace("NAME", name).replace("WHEN", when)
        with monkeypatch.context() as killing:
            killing.setattr(runs, "JOB", child(source))
            resume(id)
        died(id)
        assert state_of(id).phase == phase, name
        assert whole_checkpoints(id) == saved, name
        if phase == "saving":
            told = history(id)
            assert (told.saved, told.step) == (2, 4), name

    resume(id)
    told, undisturbed = ended(id), whole[1]
    assert isinstance(told.end, Finished), (Runs().root / id / "log.txt").read_text("utf8")
    assert losses(told) == losses(undisturbed)
    assert looked(told) == looked(undisturbed)
    assert [step.tokens for step in told.steps] == [step.tokens for step in undisturbed.steps]
    assert whole_checkpoints(id) == [4, 6]
    assert list((Runs().root / id / CHECKPOINTS).glob(".saving*")) == []
    assert isinstance(undisturbed.end, Finished)
    assert (told.end.step, told.end.held_out_loss) == (6, undisturbed.end.held_out_loss)
    made, also = (
        load_file(Path(end.folder) / "adapter_model.safetensors") for end in (told.end, undisturbed.end)
    )
    assert made.keys() == also.keys()
    assert all(made[tensor].equal(also[tensor]) for tensor in made)


SHORT_OF_MEMORY = """
    import resource, sys
    from pathlib import Path
    from drkun_tui.training import job, protocol

    def limit(event):
        # Once, right before the first step: a step of 16 sequences wants 3 GiB more, one of 8 1.3.
        if isinstance(event, protocol.Began) and resource.getrlimit(resource.RLIMIT_AS)[0] < 0:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + (ROOM << 20), resource.RLIM_INFINITY))

    sys.exit(job.run(Path(sys.argv[1]), limit))
"""
"""The trainer in a process that may take no more than so much address space."""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(("room", "goes_on"), [(2300, True), (500, False)])
def test_too_little_memory_halves_the_batch_once(
    base: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch, room: int, goes_on: bool
) -> None:
    monkeypatch.setattr(runs, "JOB", child(SHORT_OF_MEMORY.replace("ROOM", str(room))))
    id = begin(small(batch_size=16, max_steps=2, evaluate_every=0, sample_every=0))
    told = ended(id)
    (warned,) = [each for each in told.warnings if each.kind == "half_batch"]
    assert warned.values == {"batch_size": 8, "gradient_accumulation": 2}
    assert told.planned is not None
    assert (told.planned.batch_size, told.planned.gradient_accumulation) == (8, 2)
    run = asyncio.run(Runs().get(id))
    if goes_on:
        assert isinstance(told.end, Finished), (told.end, (Runs().root / id / "log.txt").read_text("utf8"))
        assert [step.step for step in told.steps] == [1, 2]
    else:
        assert run.error is not None
        assert (run.phase, run.error.kind) == ("failed", "out_of_memory")
        assert whole_checkpoints(id) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_too_little_memory_for_the_smallest_batch(
    base: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "JOB", child(SHORT_OF_MEMORY.replace("ROOM", "1")))
    id = begin(small(batch_size=1, max_steps=2, context_length=512, evaluate_every=0, sample_every=0))
    ended(id)
    error = asyncio.run(Runs().get(id)).error
    assert error is not None
    assert error.kind == "out_of_memory_once"


SHORT_ONCE = """
    import sys, torch
    from pathlib import Path
    from drkun_tui.training import job, sft
    from drkun_tui.training.trainer import RunTrainer

    def short(*arguments):
        OWNER.NAME = before
        raise torch.OutOfMemoryError("CUDA out of memory")

    before = OWNER.NAME
    OWNER.NAME = short
    sys.exit(job.run(Path(sys.argv[1])))
"""
"""The trainer, for which a GPU's memory is not enough once."""


def test_too_little_memory_for_the_base(
    base: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "JOB", child(SHORT_ONCE.replace("OWNER", "sft").replace("NAME", "_by_peft")))
    id = begin(small())
    ended(id)
    error = asyncio.run(Runs().get(id)).error
    assert error is not None
    assert (error.kind, "starter" in error.message) == ("out_of_memory_base", True)


def test_too_little_memory_while_it_saves_is_no_fault_of_the_disk(
    base: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SHORT_ONCE.replace("OWNER", "RunTrainer").replace("NAME", "_save_optimizer_and_scheduler")
    monkeypatch.setattr(runs, "JOB", child(source))
    id = begin(small(max_steps=1, evaluate_every=0, sample_every=0))
    told = ended(id)
    assert isinstance(told.end, Finished), told.end
    assert "half_batch" in [warned.kind for warned in told.warnings]


NO_UNSLOTH = """
    import sys
    from pathlib import Path
    from drkun_tui.training import job, sft

    # As on a machine with a GPU.
    sft._backend = lambda recipe: ("unsloth", "")
    sys.exit(job.run(Path(sys.argv[1])))
"""
"""The trainer where unsloth is installed."""

REFUSES = """
class FastLanguageModel:
    @staticmethod
    def from_pretrained(**options):
        raise RuntimeError("Unsloth: this architecture is not supported")
"""


@pytest.mark.parametrize(
    ("unsloth", "reason"),
    [("raise ImportError('needs another PyTorch')", "another PyTorch"), (REFUSES, "this architecture")],
)
def test_peft_trains_where_unsloth_does_not(
    base: Path,
    tmp_path: Path,
    child: MakeChild,
    monkeypatch: pytest.MonkeyPatch,
    unsloth: str,
    reason: str,
) -> None:
    monkeypatch.setattr(runs, "JOB", child(NO_UNSLOTH))
    (tmp_path / "modules" / "unsloth.py").write_text(unsloth)
    told = ended(begin(small(max_steps=1, evaluate_every=0, sample_every=0)))
    assert isinstance(told.end, Finished), told.end
    (warned,) = [each for each in told.warnings if each.kind == "no_unsloth"]
    assert reason in str(warned.values["reason"])
    assert told.planned is not None
    assert told.planned.backend == "peft"
