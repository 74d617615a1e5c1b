"""Reporting of a run to what shows curves elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest

pytest.importorskip("trl")

from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.settings import Settings
from drkun_tui.training import preflight
from drkun_tui.training.protocol import Finished
from drkun_tui.training.runs import CHECKPOINTS, Runs
from tests.real_training import base, begin, ended, here, place, small

__all__ = ["base", "here", "place"]
"""Fixtures, which pytest finds by their names here."""

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("base")]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_reporter_that_is_not_installed_is_told_of_before_it_begins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked: None if asked.startswith(name) else find(asked)
    )
    with pytest.raises(DrkunError) as caught:
        preflight.check(small(report_to=(name,)), Settings())
    assert (caught.value.kind, caught.value.exit_code) == ("reporters_missing", EXIT_BAD_INPUT)
    assert name in caught.value.message


def test_tensorboard_gets_both_curves() -> None:
    pytest.importorskip("tensorboard")
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    id = begin(small(max_steps=2, evaluate_every=1, sample_every=0, report_to=("tensorboard",)))
    told = ended(id)
    assert isinstance(told.end, Finished), (Runs().root / id / "log.txt").read_text("utf8")
    (file,) = (Runs().root / id / CHECKPOINTS).rglob("events.out.tfevents.*")
    found = accumulator.EventAccumulator(str(file)).Reload()

    def curve(name: str) -> list[Any]:
        return [(point.step, point.value) for point in found.Scalars(name)]

    assert curve("train/loss") == [(step.step, pytest.approx(step.loss)) for step in told.steps]
    assert curve("eval/loss") == [(look.step, pytest.approx(look.loss)) for look in told.held_out]
