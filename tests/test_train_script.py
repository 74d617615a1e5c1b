"""``scripts/train_sft.py``: a run in a process started by hand, or in several by another launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("trl")

from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED
from drkun_tui.jobs import detached
from drkun_tui.settings import Settings
from drkun_tui.training import preflight, recipe
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Finished, Stopped, decode
from drkun_tui.training.runs import Runs
from tests.real_training import base, here, patiently, place, small

__all__ = ["base", "here", "place"]
"""Fixtures, which pytest finds by their names here."""

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("base")]

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_sft.py"


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf8",
    )


def told(folder: Path) -> History:
    return History.of(detached.events(folder, decode))


def test_accelerate_goes_on_with_a_stopped_run() -> None:
    ready = preflight.check(small(devices=2, batch_size=1, max_steps=2, sample_every=0), Settings())
    folder = Runs().make(ready.recipe)
    # As `drkun stop` has left it.
    detached.request_stop(folder)
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1")
    options = ("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0")
    process = start(*launch, *options, str(SCRIPT), str(folder))
    out, error = process.communicate()
    assert process.returncode == 0, error
    history = told(folder)
    assert isinstance(history.end, Finished), error
    assert history.end.folder in out
    assert [step.step for step in history.steps] == [1, 2]
    assert history.planned is not None
    assert history.planned.device == "2 x CPU"


def test_several_processes_share_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    process = start(str(SCRIPT), "starter-cpu")
    assert "RUN_FOLDER" in process.communicate()[1]
    assert process.returncode == EXIT_BAD_INPUT


def test_it_says_why_it_failed() -> None:
    folder = Runs().make(msgspec.structs.replace(small(), base=recipe.Base(model="nowhere/none")))
    process = start(str(SCRIPT), str(folder))
    error = process.communicate()[1]
    assert process.returncode == EXIT_FAILED
    (line,) = error.splitlines()
    assert line.startswith("drkun: ")
    assert "nowhere/none" in line


def test_it_says_that_it_was_stopped() -> None:
    folder = Runs().make(preflight.check(small(), Settings()).recipe)
    process = start(str(SCRIPT), str(folder))

    def prepares() -> bool:
        now = detached.state(folder)
        return now is not None and now.phase == "preparing"

    patiently(prepares)
    detached.request_stop(folder)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert isinstance(told(folder).end, Stopped)
    assert f"--resume {folder.name}" in error
