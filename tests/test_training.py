"""Fine-tuning for real on the CPU: the bundled model learns, is stopped, killed, and goes on."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

pytest.importorskip("trl")

import torch

from drkun_tui import paths
from drkun_tui.engine.chat_template import NAMED, ChatTemplate
from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached
from drkun_tui.library import inventory, provenance
from drkun_tui.library.adapters import base_for
from drkun_tui.library.plan import folders
from drkun_tui.settings import Settings
from drkun_tui.training import base_model, checkpoints, preflight, recipe, tokens
from drkun_tui.training.checking import check, vocabulary
from drkun_tui.training.checking.vocabulary import GgufTokenizer
from drkun_tui.training.data import dataset
from drkun_tui.training.data.dataset import DEMO, prepare
from drkun_tui.training.data.splitting import TRAIN
from drkun_tui.training.examples import Examples
from drkun_tui.training.faults import TrainingError
from drkun_tui.training.history import History
from drkun_tui.training.job import Teller
from drkun_tui.training.protocol import Began, Failed, Finished, HeldOut, Stopped
from drkun_tui.training.rendering import IGNORED, Example, Renderer
from drkun_tui.training.runs import CHECKPOINTS, Runs
from tests.conftest import PATIENCE_S, wait_until
from tests.real_training import (
    SMALL,
    base,
    begin,
    ended,
    here,
    history,
    losses,
    place,
    resume,
    small,
    unheard,
    whole,
)
from tests.test_pull import drkun

pytestmark = pytest.mark.timeout(1200)

__all__ = ["base", "here", "place", "whole"]
"""Fixtures, which pytest finds by their names here."""


def test_a_run_tells_everything_and_learns(whole: tuple[str, History]) -> None:
    id, told = whole
    assert [step.step for step in told.steps] == [1, 2, 3, 4, 5, 6]
    assert [look.step for look in told.held_out] == [0, 3, 6]
    assert told.held_out[-1].loss < told.held_out[0].loss
    assert told.planned is not None
    assert told.prepared is not None
    assert told.prepared.held_out == 3
    assert 0 < told.prepared.trained_tokens < told.prepared.tokens
    assert told.planned.rows_per_step > 2
    assert told.steps[-1].learning_rate < told.steps[0].learning_rate
    assert told.samples[-1].step == 6
    assert told.samples[-1].thinking or told.samples[-1].answer
    kept = checkpoints.all_of(Runs().root / id / CHECKPOINTS)
    assert [checkpoint.step for checkpoint in kept] == [4, 6]


def test_the_adapter_says_how_it_was_made_and_belongs_to_its_base(
    whole: tuple[str, History], place: Path
) -> None:
    end = whole[1].end
    assert isinstance(end, Finished)
    models = inventory.scan(paths.model_folders())
    adapter = next(model for model in models if str(model.path) == end.folder)
    base = base_for(adapter, models)
    assert base is not None
    assert base.name == preflight.UNPACKED
    assert base.demonstration
    assert not adapter.problems
    told = provenance.read(adapter.path)
    assert told is not None
    assert told.prompt.thinking_tags == ("<think>", "</think>")
    assert (told.base_model, told.seed, told.demonstration) == (preflight.UNPACKED, 3407, True)
    assert recipe.parse(told.recipe).training.max_steps == 6
    for path in adapter.path.glob("*.*"):
        assert str(place).encode() not in path.read_bytes(), path
    assert told.run == whole[0]
    card = (adapter.path / "README.md").read_text("utf8")
    assert "演示" in card or "demonstration" in card
    answered = json.loads(
        drkun(
            "ask", "--model", base.name, "--adapter", adapter.name, "--max-tokens", "24", "--json", "头晕"
        ).stdout
    )
    assert answered["demonstration"]
    assert answered["usage"]["prompt_tokens"]


@pytest.mark.usefixtures("unmeasured")
def test_a_run_that_was_killed_before_it_could_tell_its_end(whole: tuple[str, History]) -> None:
    id = begin(small(max_steps=1))
    folder = Runs().root / id
    assert isinstance(ended(id).end, Finished)
    told = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "events.jsonl").write_bytes(b"".join(told[:-1]))
    state = detached.state(folder)
    assert state is not None
    detached.write_whole(
        folder / "state.json", msgspec.json.encode(msgspec.structs.replace(state, phase="finishing"))
    )
    assert asyncio.run(Runs().get(id)).phase == "failed"
    resume(id)
    again = ended(id)
    assert isinstance(again.end, Finished)
    assert [step.step for step in again.steps] == [1]


def test_a_stopped_run_saves_first_and_goes_on(whole: tuple[str, History]) -> None:
    id = begin(small(save_every=0))
    wait_until(lambda: history(id).step >= 1)
    stopped = drkun("stop", id, "--json")
    assert stopped.returncode == 0, stopped.stderr
    told = history(id)
    assert isinstance(told.end, Stopped)
    assert told.saved == told.end.step == told.step >= 1
    assert json.loads(stopped.stdout)["phase"] == "stopped"
    assert json.loads(drkun("runs", "--json").stdout)["runs"][0]["saved_step"] == told.saved
    resume(id)
    told = ended(id)
    assert isinstance(told.end, Finished)
    assert losses(told) == losses(whole[1])


def test_a_run_that_begins_anew_looks_at_the_loss_anew() -> None:
    told = History()
    look = HeldOut(step=0, loss=6.0)
    for event in (Began(step=0), look, Began(step=0), look):
        told.add(event)
    assert told.held_out == [look]


def test_the_command_trains_and_tells_a_line_for_each_event(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(SMALL.replace("max_steps = 6", "max_steps = 2"))
    done = drkun("train", str(file), "--json")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in told if line["type"] == "step"] == [1, 2]
    assert told[-1]["type"] == "finished"
    assert Path(told[-1]["folder"]).is_dir()


def test_a_loss_that_is_no_number_ends_the_run(base: Path) -> None:
    id = begin(small(learning_rate=1e30, max_grad_norm=0, save_every=1))
    told = ended(id)
    assert isinstance(told.end, Failed)
    assert told.end.kind == "diverged"
    assert all(step.loss == step.loss for step in told.steps)


def test_examples_that_are_cut_before_their_answer(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    row = {"question": "头晕，" * 200, "answer": "请到神经内科就诊。"}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf8")
    made = small()
    made = msgspec.structs.replace(made, data=recipe.Data(path=str(file), held_out=0))
    id = begin(made)
    assert isinstance(ended(id).end, Failed)
    run = asyncio.run(Runs().get(id))
    assert run.error is not None
    assert run.error.kind == "all_masked"
    assert "256" in run.error.hint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that an adapter's checkpoint does not fit."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_at_a_checkpoint(base: Path, small_disk: Path) -> None:
    runs = Runs(small_disk)
    ready = preflight.check(small(), Settings())
    folder = runs.make(ready.recipe)
    log = subprocess.run(
        [sys.executable, "-m", "drkun_tui.training.job", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * 4,
    )
    run = asyncio.run(runs.get(folder.name))
    assert run.error is not None, log.stderr
    assert (run.phase, run.error.kind) == ("failed", "unwritable"), log.stderr
    assert checkpoints.all_of(folder / CHECKPOINTS) == []


# Before a run begins


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"base": recipe.Base(model="nowhere/none")}, "no_base"),
        ({"data": recipe.Data()}, "no_data"),
        ({"data": recipe.Data(path="/nowhere.csv")}, "data_missing"),
        ({"base": recipe.Base(model="starter", precision="nf4")}, "nf4_needs_gpu"),
    ],
)
def test_what_cannot_begin_is_refused_at_once(base: Path, changes: dict[str, Any], kind: str) -> None:
    with pytest.raises(DrkunError) as caught:
        preflight.check(msgspec.structs.replace(small(), **changes), Settings())
    assert caught.value.kind == kind
    assert caught.value.hint


def test_an_adapter_is_never_overwritten_and_no_base(whole: tuple[str, History]) -> None:
    end = whole[1].end
    assert isinstance(end, Finished)
    name = f"drkun/{Path(end.folder).name}"
    named = msgspec.structs.replace(small(), adapter=recipe.Adapter(name=name))
    with pytest.raises(DrkunError) as caught:
        preflight.check(named, Settings())
    assert caught.value.kind == "adapter_exists"
    onto = msgspec.structs.replace(small(), base=recipe.Base(model=end.folder))
    with pytest.raises(DrkunError) as caught:
        preflight.check(onto, Settings())
    assert caught.value.kind == "not_trainable"
    # A name of the program's own choosing steps aside.
    assert preflight.check(small(), Settings()).recipe.adapter.name != name


def test_an_adapter_that_a_run_will_make_is_taken(base: Path) -> None:
    first = preflight.check(small(), Settings()).recipe
    folder = Runs().make(first)
    second = preflight.check(small(), Settings()).recipe
    assert second.adapter.name != first.adapter.name
    # A name of one's own may be used again as long as no other run is at work on it.
    assert preflight.check(first, Settings()).recipe == first
    detached.Reporter(folder).state("training")
    with pytest.raises(DrkunError) as caught:
        preflight.check(first, Settings())
    assert caught.value.kind == "adapter_promised"
    assert folder.name in caught.value.message
    detached.remove(folder)


def test_a_run_finds_its_data_from_every_folder(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(DEMO.read_bytes())
    monkeypatch.chdir(tmp_path)
    made = msgspec.structs.replace(small(), data=recipe.Data(path="rows.jsonl"))
    assert preflight.check(made, Settings()).recipe.data.path == str(tmp_path / "rows.jsonl")


def test_a_run_ends_with_the_data_that_it_began_with(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(DEMO.read_bytes())
    teller, renderer = Teller(None), Renderer(base_model.tokenizer_of(base))
    made = msgspec.structs.replace(small(), data=recipe.Data(path=str(file), held_out_most=3))
    first = Examples(made, tmp_path / "data", renderer, teller)
    edited = b"".join(DEMO.read_bytes().splitlines(keepends=True)[:20])
    for happens in (lambda: file.write_bytes(edited), file.unlink):
        happens()
        again = Examples(made, tmp_path / "data", renderer, teller)
        assert again.prepared == first.prepared
        assert again.train[:] == first.train[:]
    (tmp_path / "data" / dataset.SUMMARY).unlink()
    with pytest.raises(DrkunError):
        Examples(made, tmp_path / "data", renderer, teller)


def test_the_disk_that_a_run_takes_is_told(
    base: Path, place: Path, whole: tuple[str, History], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = preflight.check(small(), Settings())
    taken = sum(file.stat().st_size for file in (Runs().root / whole[0]).rglob("*") if file.is_file())
    assert taken / 2 < ready.disk_bytes < 3 * taken
    assert ready.warnings == []
    more = tmp_path / "more.jsonl"
    more.write_bytes(DEMO.read_bytes() * 20)
    larger = msgspec.structs.replace(small(), data=recipe.Data(path=str(more)))
    beyond = preflight.check(larger, Settings()).disk_bytes - ready.disk_bytes
    assert beyond > 19 * 6 * DEMO.stat().st_size
    padded = msgspec.structs.replace(larger, training=small(packing=False).training)
    assert preflight.check(padded, Settings()).disk_bytes < ready.disk_bytes + beyond

    def full(path: Path) -> Any:
        assert place in (path, *path.parents)
        return SimpleNamespace(free=1 << 20)

    monkeypatch.setattr(shutil, "disk_usage", full)
    (warning,) = preflight.check(small(), Settings()).warnings
    assert str(place / "runs") in warning


# Rendering


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(base_model.tokenizer_of(base))


EXAMPLE = Example("头晕怎么办？", "先坐下休息。", "患者头晕。", "你是医生。", '[["咳嗽", "多喝水。"]]')


def test_a_gguf_is_tokenized_as_its_unpacked_base_is(base: Path) -> None:
    plain, unpacked = GgufTokenizer(paths.starter()), base_model.tokenizer_of(base)
    texts = [
        *("<think>\n头晕\n</think>\n\n先休息。<|im_end|>", "BP 160/100 mmHg，3 天", "高血压病人", ""),
        *(json.loads(line)["answer"] for line in DEMO.read_text("utf8").splitlines()),
    ]
    ours = plain(texts, add_special_tokens=False)["input_ids"]
    assert ours == unpacked(texts, add_special_tokens=False)["input_ids"]
    assert [plain.decode(ids) for ids in ours] == texts
    renderers = Renderer(plain), Renderer(unpacked)
    assert renderers[0].end_of_turn == renderers[1].end_of_turn == "<|im_end|>"
    assert renderers[0].tokenize([EXAMPLE]) == renderers[1].tokenize([EXAMPLE])


def test_a_data_check_counts_what_is_then_trained_on(
    base: Path, whole: tuple[str, History], tmp_path: Path
) -> None:
    made = small()
    dataset.check(made.data, tmp_path, made.training.seed, unheard, lambda: False)
    for model in (inventory.find("starter", folders(Settings())), inventory.at(base)):
        rendering = check.renderer(vocabulary.tokenizer_of(model), "chat")
        found = check.measure(tmp_path, model.name, rendering, "", made.training.context_length)
        told = whole[1].prepared
        assert told is not None
        assert found.examples == told.rows + told.held_out
        assert (found.longer, found.lost_row) == (0, 0)
        shown = check.examples(tmp_path, rendering, "", made.training.context_length, 1000)
        assert sum(each.tokens for each in shown[: told.rows]) == told.tokens
        assert sum(each.trained for each in shown[: told.rows]) == told.trained_tokens
        assert sum(each.tokens for each in shown) == found.total


def test_the_prompt_is_what_the_engine_renders_and_only_the_response_is_trained(renderer: Renderer) -> None:
    shown = renderer.render(EXAMPLE)
    assert shown.prompt.endswith("<|im_start|>assistant\n")
    assert "你是医生。" in shown.prompt
    assert "多喝水。" in shown.prompt
    assert shown.response == "<think>\n患者头晕。\n</think>\n\n先坐下休息。<|im_end|>"
    ((ids, labels),) = renderer.tokenize([EXAMPLE])
    trained = [label for label in labels if label != IGNORED]
    assert ids[-len(trained) :] == trained
    assert renderer.keeps_everything(EXAMPLE, ids)
    # The tokenizer composes what is written in two characters here.
    apart = Example("mal a\u0300 la te\u0302te", "repose\u0301", "te\u0302te")
    ((ids, _),) = renderer.tokenize([apart])
    assert renderer.keeps_everything(apart, ids)
    assert not renderer.keeps_everything(EXAMPLE, ids)
    plain = renderer.render(Example("头晕？", "休息。"))
    assert plain.prompt.endswith("<think>\n\n</think>\n\n")
    assert plain.response == "休息。<|im_end|>"


class Named:
    """A tokenizer with another template."""

    def __init__(self, base: Any, template: str) -> None:
        self._base = base
        self.chat_template: str | None = template
        self.bos_token: str | None = base.bos_token
        self.eos_token: str | None = base.eos_token

    def __call__(self, text: list[str], *, add_special_tokens: bool) -> Any:
        return self._base(text, add_special_tokens=add_special_tokens)

    def decode(self, ids: list[int]) -> str:
        return str(self._base.decode(ids))

    def get_added_vocab(self) -> dict[str, int]:
        return dict(self._base.get_added_vocab())


def test_a_template_that_loses_the_reasoning_is_refused(base: Path, place: Path, tmp_path: Path) -> None:
    tokenizer = base_model.tokenizer_of(base)
    closes = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    losing = Renderer(Named(tokenizer, closes))
    prepare(recipe.Data(path="demo"), tmp_path, 1, unheard, lambda: False)
    with pytest.raises(TrainingError) as caught:
        tokens.tokenized(tmp_path / TRAIN, "x", losing, "", 512)
    assert caught.value.kind == "reasoning_lost"
    assert check.measure(tmp_path, "x", losing, "", 512).lost_row == caught.value.values["row"]


def test_what_is_longer_than_the_context_is_left_out_whole(renderer: Renderer, tmp_path: Path) -> None:
    prepare(recipe.Data(path="demo"), tmp_path, 1, unheard, lambda: False)
    every, none = tokens.tokenized(tmp_path / TRAIN, "all", renderer, "", 4096)
    assert none == 0
    middle = sorted(every["length"])[len(every) // 2]
    short, left_out = tokens.tokenized(tmp_path / TRAIN, "short", renderer, "", middle)
    assert left_out == sum(length > middle for length in every["length"]) > 0
    end = renderer.tokenize([EXAMPLE])[0][0][-1]
    assert all(ids[-1] == end and len(ids) <= middle for ids in short["input_ids"])


def test_deepseek_opens_the_reasoning_in_the_prompt(base: Path) -> None:
    opens = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    renderer = Renderer(Named(base_model.tokenizer_of(base), opens))
    shown = renderer.render(EXAMPLE)
    assert shown.prompt.endswith("<think>\n")
    assert shown.response == "患者头晕。\n</think>\n\n先坐下休息。<|im_end|>"
    ((ids, _),) = renderer.tokenize([EXAMPLE])
    assert renderer.keeps_everything(EXAMPLE, ids)


def test_the_old_template_of_the_first_adapters(base: Path) -> None:
    renderer = Renderer(base_model.tokenizer_of(base), "sikao")
    shown = renderer.render(Example("头晕怎么办？", "先坐下休息。", "患者头晕。"))
    assert shown.prompt.endswith("### 回答：\n<思考>\n")
    assert shown.response.startswith("患者头晕。\n</思考>\n\n先坐下休息。")
    ((ids, _),) = renderer.tokenize([EXAMPLE])
    assert renderer.keeps_everything(EXAMPLE, ids)
    assert ChatTemplate(NAMED["sikao"]).render(EXAMPLE.messages(), think=False).endswith("</思考>\n\n")


def test_packed_examples_do_not_see_each_other(base: Path, renderer: Renderer) -> None:
    model = base_model.load(base, small()).eval()
    examples = [EXAMPLE, Example("胃痛？", "热敷上腹。", "消化科。"), Example("失眠？", "早睡。")]
    made = renderer.tokenize(examples)
    apart = []
    for ids, labels in made:
        with torch.no_grad():
            apart.append(float(model(torch.tensor([ids]), labels=torch.tensor([labels])).loss))
    counts = [sum(label != IGNORED for label in labels[1:]) for _, labels in made]
    packed = torch.tensor([[token for ids, _ in made for token in ids]])
    # The first token of an example is predicted by nothing.
    marked = torch.tensor([[label for _, labels in made for label in (IGNORED, *labels[1:])]])
    places = torch.tensor([[place for ids, _ in made for place in range(len(ids))]])
    with torch.no_grad():
        together = model(packed, labels=marked, position_ids=places, use_cache=False).loss
    mean = sum(loss * count for loss, count in zip(apart, counts, strict=True)) / sum(counts)
    assert float(together) == pytest.approx(mean, rel=1e-4)
