"""Recipes: what they take, and what they say about what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from drkun_tui.errors import DrkunError
from drkun_tui.training import recipe
from drkun_tui.training.history import History, smoothed
from drkun_tui.training.protocol import Began, Event, Finished, HeldOut, Planned, Saved, Step, decode, encode


@pytest.fixture(autouse=True)
def chinese(home: Path) -> None:
    """The texts of the catalogue."""


def test_data_of_ones_own_take_the_place_of_the_presets() -> None:
    made = recipe.parse('preset = "drkun-r1-8b"\n[data]\npath = "my.csv"').data
    assert (made.path, made.hub, made.config) == ("my.csv", "", "")
    made = recipe.parse('preset = "starter-cpu"\n[data]\nhub = "org/dialogues"\nconfig = "zh"').data
    assert (made.path, made.hub, made.config) == ("", "org/dialogues", "zh")
    assert recipe.parse('preset = "drkun-r1-8b"\n[data]\nrows = 9').data.config == "zh"


def test_presets_are_recipes_that_read_back() -> None:
    presets = recipe.presets()
    assert set(presets) == {"drkun-r1-8b", "qwen3-4b-medical", "deepdoctor-en", "starter-cpu"}
    for made in presets.values():
        assert recipe.parse(recipe.dump(made)) == made
    tutorial = presets["drkun-r1-8b"]
    training, adapter = tutorial.training, tutorial.adapter
    assert (adapter.rank, adapter.alpha, len(adapter.targets)) == (16, 16, 7)
    assert (training.batch_size, training.gradient_accumulation, training.learning_rate) == (2, 4, 2e-4)
    assert (training.warmup_steps, training.max_steps, training.scheduler) == (5, 75, "linear")
    assert (training.optimizer, training.weight_decay, training.seed) == ("adamw_8bit", 0.01, 3407)
    assert training.context_length == 2048
    assert training.packing


def test_a_file_changes_what_it_writes_of_a_preset() -> None:
    made = recipe.parse('preset = "starter-cpu"\n[training]\nmax_steps = 7\n[adapter]\nrank = 4\n')
    assert (made.training.max_steps, made.training.epochs, made.adapter.rank) == (7, 0, 4)
    assert made.training.learning_rate == recipe.presets()["starter-cpu"].training.learning_rate


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[training]\nepochs = 1\nbatch_size = 0\n", 3, "training.batch_size 必须是整数 ≥ 1"),
        ("[training]\nepochs = 1\nbatchsize = 1\n", 3, "不认识 training.batchsize"),
        ("[training]\nepochs = 1\nscheduler = 'exp'\n", 3, "cosine"),
        ("[training]\nepochs = 1\nlearning_rate = -1\n", 3, "数字 > 0"),
        ("[training]\nepochs = 1\nlearning_rate = inf\n", 3, "数字 > 0"),
        ("[training]\nepochs = inf\n", 2, "数字 ≥ 0"),
        ("[training]\nepochs = 1\nmax_grad_norm = nan\n", 3, "数字 ≥ 0"),
        ("[training]\nepochs = 1\nmax_steps = 5\n", 2, "同时给了 max_steps 和 epochs"),
        ("[base]\nmodel = 'x'\n", 0, "max_steps"),
        ("[adapter]\ntargets = 'q_proj'\n[training]\nepochs = 1\n", 2, "列表"),
        ("[adapter]\ntargets = []\n[training]\nepochs = 1\n", 2, "targets 为空"),
        ("[data]\ncolumns = {question = 3}\n[training]\nepochs = 1\n", 2, "带引号的文本"),
        ("[data]\npath = 'a'\nhub = 'b'\n[training]\nepochs = 1\n", 3, "path 和 hub"),
        ("preset = 'none'\n", 1, "starter-cpu"),
        ("training = 3\n", 1, "小节"),
        ("\n[training\n", 2, "TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(DrkunError) as caught:
        recipe.parse(text, "my.toml")
    assert caught.value.kind == "bad_recipe"
    assert says in caught.value.message
    assert ("第" in caught.value.message) == bool(line)
    assert not line or f"my.toml 第 {line} 行" in caught.value.message


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("x.toml", "absent.toml"):
        with pytest.raises(DrkunError, match=name) as caught:
            recipe.load(tmp_path / name)
        assert caught.value.kind == "no_recipe"


def step(number: int, loss: float) -> Step:
    return Step(step=number, loss=loss, learning_rate=0.1, epoch=0.0, tokens=number)


def test_a_history_has_each_step_once() -> None:
    planned = Planned(
        backend="peft",
        device="CPU",
        total_steps=4,
        rows_per_step=1,
        batch_size=1,
        gradient_accumulation=1,
        trainable_parameters=1,
        parameters=2,
    )
    told: list[Event] = [
        *(planned, Began(step=0), step(1, 3.0), step(2, 2.0), Saved(step=2), step(3, 1.0)),
        *(HeldOut(step=3, loss=9.0), planned, Began(step=2), step(3, 1.5), HeldOut(step=3, loss=1.0)),
        *(step(4, 1.0), Finished(step=4, folder="x")),
    ]
    history = History.of(decode(encode(event)) for event in told)
    assert [(s.step, s.loss) for s in history.steps] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]
    assert [(h.step, h.loss) for h in history.held_out] == [(3, 1.0)]
    assert (history.step, history.total_steps, history.saved) == (4, 4, 2)
    assert isinstance(history.end, Finished)


def test_the_smoothed_curve_begins_where_the_losses_do() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([4.0, 2.0], 0.5) == pytest.approx([4.0, 8 / 3])
