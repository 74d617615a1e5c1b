"""A base that two real GPUs share out: it learns what a whole one on each of them learns."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("trl")

import torch

from drkun_tui.training.protocol import Finished
from drkun_tui.training.recipe import Base
from tests.real_training import base, begin, ended, here, place, small

__all__ = ["base", "here", "place"]
"""Fixtures, which pytest finds by their names here."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
]


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
