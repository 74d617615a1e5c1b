"""Sixteen bits: which kind a GPU computes in, and the steps that float16 leaves out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
from transformers import TrainerState

from drkun_tui.training.base_model import computes_bf16
from drkun_tui.training.callback import RunCallback
from drkun_tui.training.faults import TrainingError
from drkun_tui.training.history import History
from drkun_tui.training.job import Teller
from drkun_tui.training.trainer import RunTrainer
from tests.real_training import small


def test_emulated_bfloat16_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def turing(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", turing)
    assert not computes_bf16()
    # An older PyTorch counts no emulation, and cannot be asked.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert computes_bf16()


class Half(RunTrainer):
    """A trainer of which only the scale of the loss is there."""

    def __init__(self, scaler: Any) -> None:
        self.accelerator = SimpleNamespace(scaler=scaler)
        self.args: Any = SimpleNamespace(world_size=1)


@pytest.mark.parametrize(
    ("scale", "norm", "goes_on"),
    [
        (None, 1.0, True),
        (None, float("inf"), False),
        (65536.0, float("inf"), True),
        (65536.0, float("nan"), True),
        (0.5, float("inf"), False),
    ],
)
def test_a_step_that_float16_left_out_is_no_divergence(
    scale: float | None, norm: float, goes_on: bool
) -> None:
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    history = History()
    recipe = small(evaluate_every=0, sample_every=0)
    unused: Any = None
    callback = RunCallback(Half(scaler), recipe, unused, unused, Teller(None), history)
    state = TrainerState(global_step=1, max_steps=2)

    def made(loss: float) -> None:
        callback.made(state, torch.tensor(loss), torch.tensor(norm), 1e-4, now=True)

    if goes_on:
        made(2.0)
        assert [(step.step, step.loss) for step in history.steps] == [(1, 2.0)]
        assert history.steps[0].grad_norm == (norm if scale is None else 0.0)
    else:
        with pytest.raises(TrainingError) as caught:
            made(2.0)
        assert caught.value.kind == "diverged_unsaved"
    with pytest.raises(TrainingError):
        made(float("nan"))
