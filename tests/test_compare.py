"""Comparisons: what differs, who takes part, real engines side by side, what is kept, who won."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from drkun_tui import hardware, paths
from drkun_tui.commands.compare import Streamed
from drkun_tui.comparison import contestants, records, votes
from drkun_tui.comparison.contest import Contest, News, Order, order, shuffled, unlike
from drkun_tui.comparison.contestants import Contestant, enter, enter_all
from drkun_tui.comparison.differences import common, differing, tokens
from drkun_tui.comparison.records import Answer, Record, Vote
from drkun_tui.consult.conversation import State
from drkun_tui.engine.protocol import Delta
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Gpu, Hardware
from drkun_tui.library.plan import Plan
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from drkun_tui.training import recipe as recipes
from drkun_tui.training import runs
from tests.conftest import LONG, MakeChild, has_ended
from tests.gguf_files import lora
from tests.model_files import put_base, put_lora
from tests.openai_server import THOUGHTS, WORDS, serving
from tests.test_cli import DRKUN, end_of, engine_of, run, start

DIZZY = "最近总是头晕，应该怎么办？"
SEEDED = Sampling(seed=3)
SETTINGS = Settings(threads=1)
"""One thread: two that wait for each other are slow beside other work."""
TOGETHER, IN_TURN = Order(True, ""), Order(False, "")
GIB = 1024**3


@pytest.fixture(autouse=True)
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands speak the language that the tests read."""
    for name in ("LC_MESSAGES", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")


@pytest.fixture
def adapter() -> Path:
    """A LoRA in the store that changes what the bundled model says."""
    return lora(paths.model_store() / "other.gguf")


def words(text: str) -> list[str]:
    return [text[a:b] for a, b in tokens(text)]


def marked(*texts: str) -> list[str]:
    """Of each text, what differs, passages apart."""
    each = [words(text) for text in texts]
    out = []
    for own, marks in zip(each, differing(each), strict=True):
        runs_of = "".join(word if mark else " " for word, mark in zip(own, marks, strict=True))
        out.append("|".join(runs_of.split()))
    return out


# Differences


def test_chinese_is_compared_by_characters_and_english_by_words() -> None:
    assert words("头晕了 take 500mg, 好。") == ["头", "晕", "了", "take", "500mg", ",", "好", "。"]


def test_what_differs_is_marked_on_both_sides() -> None:
    assert marked("建议低盐饮食，多休息。", "建议低脂饮食，多休息。") == ["盐", "脂"]
    assert marked("先说明原因。", "您好，先说明原因。") == ["", "您好，"]
    assert marked("take two pills daily", "take three pills daily") == ["two", "three"]


def test_the_same_text_has_no_differences_whatever_its_white_space() -> None:
    assert marked("头晕。\n\n多休息。", "头晕。多休息。") == ["", ""]
    # A model that goes round in a circle, whose every word is frequent.
    assert marked("多喝水，" * 200, "多喝水，" * 200) == ["", ""]


def test_a_lone_character_is_no_common_passage() -> None:
    one, other = marked("我的头很疼了", "他说的是胃口")
    assert (one, other) == ("我的头很疼了", "他说的是胃口")


def test_in_the_first_of_three_differs_what_no_other_has() -> None:
    first, second, third = marked("低盐饮食，戒烟戒酒。", "低盐饮食。", "戒烟戒酒。")
    assert first in ("", "，")
    assert second + third == ""


def test_nothing_differs_from_nothing() -> None:
    assert differing([]) == []
    assert differing([["a", "b"]]) == [[False, False]]
    assert differing([["a"], []]) == [[True], []]


@given(st.lists(st.sampled_from("ab，头晕"), max_size=60), st.lists(st.sampled_from("ab，头晕"), max_size=60))
def test_common_passages_are_common_and_in_order(one: list[str], other: list[str]) -> None:
    here = there = 0
    for ours, theirs, size in common(one, other):
        assert ours >= here and theirs >= there and size > 0
        assert one[ours : ours + size] == other[theirs : theirs + size]
        here, there = ours + size, theirs + size


# Who takes part


def test_a_model_with_and_without_an_adapter(adapter: Path) -> None:
    base, changed = enter_all(["starter", "starter+other"], SETTINGS)
    assert (base.name, changed.name) == ("starter", "starter + other")
    assert base.plan.load.adapter is None
    assert changed.plan.load.adapter == str(adapter)
    assert changed.plan.load.path == base.plan.load.path


def test_an_adapter_alone_brings_its_base(adapter: Path) -> None:
    for spec in ("other", str(adapter)):
        entered = enter(spec, SETTINGS)
        assert entered.name == "starter + other"
        assert entered.plan.load.path == str(paths.starter())


def test_a_name_with_a_plus_of_its_own_is_found_first() -> None:
    lora(paths.model_store() / "a+b.gguf")
    assert enter("starter+a+b", SETTINGS).name == "starter + a+b"
    assert enter("a+b", SETTINGS).name == "starter + a+b"


@pytest.mark.parametrize(
    ("specs", "kind"),
    [
        (["starter"], "too_few"),
        ([], "too_few"),
        (["starter"] * 7, "too_many"),
        (["starter", "starter"], "twice"),
        (["starter", "missing"], "model_not_found"),
        (["starter", "starter+missing"], "model_not_found"),
        (["starter", "+"], "model_not_found"),
        (["starter", "starter+starter"], "adapter_not_usable"),
        (["starter", "remote"], "profile_unavailable"),
    ],
)
def test_who_cannot_take_part(specs: list[str], kind: str) -> None:
    with pytest.raises(DrkunError) as caught:
        enter_all(specs, SETTINGS)
    assert caught.value.kind == kind
    assert caught.value.exit_code in (2, 3)


def test_a_server_takes_part_whatever_the_consultation_uses(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRKUN_REMOTE_URL", "http://127.0.0.1:9")
    settings = msgspec.structs.replace(SETTINGS, profile="remote")
    here, there, named = enter_all(["starter", "remote", "remote:big:q4"], settings)
    assert (here.plan.load.engine, there.plan.load.engine) == ("llama_cpp", "openai")
    assert (there.plan.load.model, named.plan.load.model) == ("", "big:q4")


def test_everyone_that_can_be_entered(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = paths.home() / "runs"
    assert contestants.available(SETTINGS, root) == {
        "starter": "starter",
        "starter+other": "starter + other",
    }
    monkeypatch.setenv("DRKUN_REMOTE_URL", "http://127.0.0.1:9")
    assert contestants.available(SETTINGS, root)["remote"] == "127.0.0.1:9"
    monkeypatch.setenv("DRKUN_REMOTE_URL", "nonsense")
    assert "remote" not in contestants.available(SETTINGS, root)


def test_the_adapter_in_use_is_compared_with_its_base(adapter: Path) -> None:
    known = contestants.available(SETTINGS, paths.home() / "runs")
    chosen = msgspec.structs.replace(SETTINGS, adapter="other")
    assert contestants.usual(chosen, known) == ["starter", "starter+other"]
    last = msgspec.structs.replace(chosen, contestants=["starter+other", "gone", "starter"])
    assert contestants.usual(last, known) == ["starter+other", "starter"]


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="no engine for safetensors")
def test_a_checkpoint_is_asked_as_its_run_trains_it() -> None:
    put_base(paths.model_store() / "base")
    folder = paths.home() / "runs" / "20260101-000000-abcdef"
    checkpoint = folder / runs.CHECKPOINTS / "checkpoint-20"
    checkpoint.mkdir(parents=True)
    recipe = recipes.Recipe(
        base=recipes.Base(model="base"),
        data=recipes.Data(path="demo", system="你是医生。", template="sikao"),
        adapter=recipes.Adapter(name="drkun/mine"),
        training=recipes.Training(epochs=1),
    )
    (folder / runs.RECIPE).write_text(recipes.dump(recipe), "utf8")
    put_lora(checkpoint)
    known = contestants.available(SETTINGS, paths.home() / "runs")
    assert known[f"base+{checkpoint}"] == "base + drkun/mine@20"
    plan = enter(f"base+{checkpoint}", SETTINGS).plan
    assert plan.name == "base + drkun/mine@20"
    assert plan.load.adapter == str(checkpoint)
    assert (plan.load.template, plan.system("")) == ("sikao", "你是医生。")
    assert plan.thinks(True)


def test_a_scale_belongs_to_its_adapter(adapter: Path) -> None:
    lora(paths.model_store() / "third.gguf", 3)
    settings = msgspec.structs.replace(SETTINGS, adapter="other", adapter_scale=0.5)
    specs = ["starter", "starter+other", "starter+third"]
    scales = [one.plan.load.adapter_scale for one in enter_all(specs, settings)]
    assert scales == [1.0, 0.5, 1.0]
    assert [one.plan.load.adapter_scale for one in enter_all(specs, settings, 1.5)][1:] == [1.5, 1.5]


# Memory


def machine(ram: int, *gpus: Gpu) -> Hardware:
    return Hardware("cpu", 2, 2, ram, ram, list(gpus), "")


def test_all_at_once_where_memory_allows(adapter: Path) -> None:
    plans = [contestant.plan for contestant in enter_all(["starter", "starter+other"], SETTINGS)]
    assert order(plans, machine(8 * GIB)).together
    tight = order(plans, machine(150 * 1024**2))
    assert not tight.together
    assert "150 MiB" in tight.reason
    assert not order(plans, machine(8 * GIB), in_turn=True).together


def test_what_is_not_loaded_alike_is_told(adapter: Path) -> None:
    one, other = (contestant.plan for contestant in enter_all(["starter", "starter+other"], SETTINGS))

    def loaded(**changes: Any) -> Plan:
        return dataclasses.replace(one, load=msgspec.structs.replace(one.load, **changes))

    here = {"engine": "transformers", "device": "cuda"}
    assert unlike([one, other]) == ""
    assert "GPU" in unlike([one, loaded(device="cuda")])
    assert "nf4" in unlike([loaded(**here, weights="nf4"), loaded(**here)])
    # A GGUF is loaded as it is, and a server's model is not loaded here.
    assert unlike([loaded(**here, weights="nf4"), loaded(device="cuda"), loaded(device="elsewhere")]) == ""


def test_servers_take_no_memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRKUN_REMOTE_URL", "http://127.0.0.1:9")
    plans = [one.plan for one in enter_all(["remote:a", "remote:b"], SETTINGS)]
    told = order(plans, machine(0))
    assert told.together
    assert "MiB" not in told.reason


def test_memory_of_the_gpu_and_of_the_machine_are_two(adapter: Path) -> None:
    plans = [contestant.plan for contestant in enter_all(["starter", "starter+other"], SETTINGS)]
    on_gpu = msgspec.structs.replace(plans[0].load, device="cuda")
    moved = [dataclasses.replace(plan, load=on_gpu) for plan in plans]
    card = Gpu("Made Up", 24 * GIB, 100 * 1024**2, "nvidia 570.1", "nvidia")
    assert order(plans, machine(8 * GIB, card)).together
    assert not order(moved, machine(8 * GIB, card)).together


def test_the_order_of_a_blind_comparison_is_drawn_by_its_seed() -> None:
    entered = [Contestant(name, None) for name in "abcd"]  # type: ignore[arg-type]
    orders = {tuple(one.spec for one in shuffled(entered, seed, DIZZY)) for seed in range(60)}
    assert len(orders) > 12
    assert all(sorted(found) == list("abcd") for found in orders)
    assert shuffled(entered, 5, "a") == shuffled(entered, 5, "a")
    assert len({tuple(one.spec for one in shuffled(entered, 5, str(n))) for n in range(60)}) > 12


# Asking


@pytest_asyncio.fixture
async def both(adapter: Path, known_machine: None) -> AsyncIterator[dict[bool, Contest]]:
    """The bundled model with and without an adapter: at once, and one after the other."""
    entered = enter_all(["starter", "starter+other"], SETTINGS)
    made = {
        told.together: Contest(entered, told, paths.home(), paths.machine_file())
        for told in (TOGETHER, IN_TURN)
    }
    yield made
    for contest in made.values():
        pids = contest.pids
        await contest.close()
        assert all(has_ended(pid) for pid in pids)


async def asked(contest: Contest, sampling: Sampling = SEEDED) -> list[tuple[int, News]]:
    return [told async for told in contest.ask(DIZZY, sampling=sampling)]


async def test_both_answer_the_same_question_with_the_same_seed(both: dict[bool, Contest]) -> None:
    for contest in both.values():
        await asked(contest)
    for turn, alone in zip(both[True].answers, both[False].answers, strict=True):
        assert (turn.state, turn.question, turn.sampling["seed"]) == (State.DONE, DIZZY, 3)
        assert turn.answer
        assert turn.timings["load_s"] > 0
        assert turn.usage["answer_tokens"] > 0
        # Who answers beside it changes nothing of what a model says.
        assert (turn.reasoning, turn.answer) == (alone.reasoning, alone.answer)
    first, second = both[True].answers
    assert first.answer != second.answer
    assert (first.adapter, second.adapter) == (None, "other")


async def test_at_once_both_are_there_together(both: dict[bool, Contest]) -> None:
    most = 0
    async for _ in both[True].ask(DIZZY, sampling=SEEDED):
        most = max(most, len(both[True].pids))
    assert most == 2


async def test_at_once_neither_waits_for_the_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers' models, which say a word and then nothing more."""
    with serving() as (url, does):
        monkeypatch.setenv("DRKUN_REMOTE_URL", url)
        does.chunks, does.fault = does.chunks[:1], "stall"
        entered = enter_all(["remote:made-up", "remote:another"], SETTINGS)
        contest = Contest(entered, TOGETHER, paths.home(), paths.machine_file())
        said = set()
        try:
            async for index, news in contest.ask(DIZZY, sampling=SEEDED):
                assert not isinstance(news, DrkunError)
                if isinstance(news, Delta):
                    said.add(index)
                if said == {0, 1}:
                    contest.stop()
        finally:
            await contest.close()
    assert [turn.state for turn in contest.answers] == [State.CANCELLED] * 2


async def test_in_turn_one_has_gone_before_the_next_comes(both: dict[bool, Contest]) -> None:
    most, indices = 0, []
    async for index, _ in both[False].ask(DIZZY, sampling=SEEDED):
        most = max(most, len(both[False].pids))
        indices.append(index)
    assert most == 1
    assert indices == sorted(indices)
    assert both[False].pids == []


@pytest.mark.parametrize("together", [True, False])
async def test_a_stop_keeps_what_has_come(both: dict[bool, Contest], together: bool) -> None:
    contest = both[together]
    async for _, news in contest.ask(DIZZY, sampling=LONG):
        if isinstance(news, Delta):
            contest.stop()
    assert [turn.state for turn in contest.answers] == [State.CANCELLED] * 2
    first, second = contest.answers
    assert first.reasoning + first.answer + second.reasoning + second.answer
    if not together:
        assert second.reasoning + second.answer == ""


async def test_one_whose_engine_is_killed_does_not_take_the_other_along(both: dict[bool, Contest]) -> None:
    contest, errors = both[True], []
    async for index, news in contest.ask(DIZZY, sampling=LONG):
        if index == 0 and isinstance(news, Delta) and contest._engines[0].pid:
            os.kill(contest._engines[0].pid, signal.SIGKILL)
        if isinstance(news, DrkunError):
            errors.append((index, news.kind))
    assert errors == [(0, "engine_died")]
    assert [turn.state for turn in contest.answers] == [State.INTERRUPTED, State.LENGTH]


async def test_who_leaves_in_the_middle_leaves_no_process(both: dict[bool, Contest]) -> None:
    contest = both[True]
    answers = contest.ask(DIZZY, sampling=LONG)
    async for _, news in answers:
        if isinstance(news, Delta):
            break
    await answers.aclose()  # type: ignore[attr-defined]
    pids = contest.pids
    await contest.close()
    assert all(has_ended(pid) for pid in pids)


async def test_a_server_beside_a_model_of_this_machine(
    known_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as (url, _):
        monkeypatch.setenv("DRKUN_REMOTE_URL", url)
        entered = enter_all(["starter", "remote"], SETTINGS)
        plans = [one.plan for one in entered]
        contest = Contest(entered, order(plans, hardware.read()), paths.home(), paths.machine_file())
        try:
            await asked(contest)
        finally:
            await contest.close()
    here, there = contest.answers
    assert (here.state, there.state) == (State.DONE, State.DONE)
    assert (there.reasoning, there.answer) == ("".join(THOUGHTS), "".join(WORDS))
    assert (here.profile, there.profile) == ("cpu", "remote")


# What is kept


def answer(name: str, **more: Any) -> Answer:
    fields: dict[str, Any] = {
        "model": name, "adapter": None, "profile": "cpu", "engine": "llama_cpp", "demonstration": False,
        "thinking": "", "answer": f"{name} 说", "state": "done", "thinking_truncated": False, "error": "",
        "usage": {}, "timings": {},
    }  # fmt: skip
    return Answer(name=name, **fields | more)


def record(id: str, *names: str) -> Record:
    return Record(
        id=id,
        at=1.0,
        question="问",
        sampling={"seed": 3},
        red_flags=[],
        together=True,
        blind=True,
        answers=[answer(name) for name in names],
    )


def test_comparisons_and_votes_are_kept_in_order() -> None:
    one, two = record("1", "a", "b"), record("2", "b", "a")
    records.keep(one)
    records.vote(one, 0)
    records.keep(two)
    found = list(records.read())
    assert [found[0], found[2]] == [one, two]
    assert isinstance(found[1], Vote)
    assert (found[1].of, found[1].best) == ("1", 0)
    assert paths.comparisons().stat().st_mode & 0o777 == 0o600


def test_a_torn_line_costs_itself_alone() -> None:
    records.keep(record("1", "a", "b"))
    raw = paths.comparisons().read_bytes()
    paths.comparisons().write_bytes(raw + raw[: len(raw) // 2] + b"\n\xff\xfe\n{}\n[]\n" + raw[:40])
    records.keep(record("2", "a", "b"))
    assert [line.id for line in records.read() if isinstance(line, Record)] == ["1", "2"]


def test_writers_beside_each_other_tear_nothing() -> None:
    def write(name: str) -> None:
        for number in range(20):
            records.keep(record(f"{name}{number}", "a" * 5000, "b"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({line.id for line in records.read() if isinstance(line, Record)}) == 60


def test_a_file_that_cannot_be_written_or_read_is_told(home: Path) -> None:
    assert list(records.read()) == []
    paths.comparisons().mkdir()
    with pytest.raises(DrkunError) as caught:
        records.keep(record("1", "a", "b"))
    assert caught.value.kind == "not_kept"
    with pytest.raises(DrkunError) as caught:
        list(records.read())
    assert caught.value.kind == "unreadable"


# Votes


def vote(of: str, best: int | None) -> Vote:
    return Vote(of=of, at=2.0, best=best)


def test_votes_are_counted_by_pair_wherever_each_stood() -> None:
    lines: list[records.Line] = [
        record("1", "a", "b"), vote("1", 0),
        record("2", "b", "a"), vote("2", 1),
        record("3", "b", "a"), vote("3", 0),
        record("4", "a", "b"), vote("4", None),
        record("5", "a", "b"),
    ]  # fmt: skip
    [pair] = votes.tally(lines)
    assert (pair.one, pair.other, pair.wins, pair.losses, pair.equal) == ("a", "b", 2, 1, 1)


def test_the_best_of_three_beats_both_others() -> None:
    found = votes.tally([record("1", "c", "a", "b"), vote("1", 0)])
    pairs = {(pair.one, pair.other): (pair.wins, pair.losses, pair.equal) for pair in found}
    assert pairs == {("a", "c"): (0, 1, 0), ("b", "c"): (0, 1, 0), ("a", "b"): (0, 0, 1)}


def test_of_two_votes_on_one_comparison_the_last_counts_and_nonsense_does_not() -> None:
    cast = [vote("1", 0), vote("1", 1), vote("1", 2), vote("1", -1), vote("gone", 0)]
    [pair] = votes.tally([record("1", "a", "b"), *cast])
    assert (pair.wins, pair.losses) == (0, 1)


# The command


@pytest.mark.usefixtures("known_machine")
def test_the_command_gives_one_object(adapter: Path) -> None:
    told = run("compare", DIZZY, "--model", "starter", "--model", "starter+other", "--seed", "3", "--json")
    assert told.code == 0
    assert told.json["sampling"]["seed"] == 3
    assert told.json["together"] is True
    names = [found["name"] for found in told.json["answers"]]
    assert names == ["starter", "starter + other"]
    assert all(found["answer"] and found["state"] == "done" for found in told.json["answers"])
    assert told.json["answers"][0]["answer"] != told.json["answers"][1]["answer"]
    [kept] = records.read()
    assert isinstance(kept, Record)
    assert [found.answer for found in kept.answers] == [found["answer"] for found in told.json["answers"]]
    assert not kept.blind


@pytest.mark.usefixtures("known_machine")
def test_the_command_for_people_names_both_and_says_how_it_asked(adapter: Path) -> None:
    told = run(
        *("compare", "胸口突然疼得厉害，喘不上气", "--model", "starter", "--model", "starter+other"),
        *("--in-turn", "--max-tokens", "60", "--threads", "1"),
    )
    assert told.code == 0
    assert told.out.index("== 1  starter") < told.out.index("== 2  starter + other")
    assert "\x1b" not in told.out
    assert "依次回答" in told.err
    assert "120" in told.err
    assert "演示模型" in told.err


@pytest.mark.usefixtures("known_machine")
def test_the_same_without_a_seed_draws_one_for_all(adapter: Path) -> None:
    told = run("compare", "你好", "--model", "starter", "--model", "other", "--max-tokens", "5", "--json")
    assert isinstance(told.json["sampling"]["seed"], int)


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("你好", "--model", "starter"), 2, "too_few"),
        (("你好",), 2, "too_few"),
        (("", "--model", "starter", "--model", "starter"), 2, "no_question"),
        (("你好", "--model", "starter", "--model", "missing"), 3, "model_not_found"),
        (("你好", "--model", "starter", "--model", "remote"), 2, "profile_unavailable"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], code: int, kind: str) -> None:
    told = run("compare", *arguments, "--json")
    assert told.code == code
    assert told.json["error"]["kind"] == kind
    assert told.failure
    assert not paths.comparisons().exists()


@pytest.mark.usefixtures("known_machine")
def test_one_that_fails_leaves_the_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (url, does):
        monkeypatch.setenv("DRKUN_REMOTE_URL", url)
        does.status = 500
        told = run(
            "compare", "你好", "--model", "starter", "--model", "remote", "--max-tokens", "30", "--json"
        )
    assert told.code == 4
    assert [found["state"] for found in told.json["answers"]] in (["done", "failed"], ["length", "failed"])
    assert "500" in told.json["answers"][1]["error"]


def test_what_cannot_be_kept_is_shown_all_the_same() -> None:
    paths.comparisons().mkdir()
    with serving() as (url, _):
        models = ("--model", "remote:made-up", "--model", "remote:another")
        told = run("compare", "你好", *models, "--json", env={"DRKUN_REMOTE_URL": url})
    assert [found["answer"] for found in told.json["answers"]] == ["".join(WORDS)] * 2
    assert told.code == 4
    assert "comparisons.jsonl" in told.failure


@pytest.mark.usefixtures("known_machine")
def test_an_interrupt_keeps_what_has_come(adapter: Path) -> None:
    models = ("--model", "starter", "--model", "starter+other")
    endless = ("--repeat-penalty", "0.5", "--max-tokens", "0")
    process = start(*DRKUN, "compare", "你好", *models, *endless, "--json")
    engine_of(process)
    assert process.stderr
    told = b""
    while told.count("开始回答".encode()) < 2:
        told += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    ran = end_of(process)
    assert ran.code == 130
    assert [found["state"] for found in ran.json["answers"]] == ["cancelled", "cancelled"]


@pytest.mark.usefixtures("known_machine")
def test_an_interrupt_ends_a_load_that_takes_an_hour(child: MakeChild, home: Path, adapter: Path) -> None:
    child("")
    (home / "modules" / "llama_cpp.py").write_text("import time\ntime.sleep(3600)\n")
    process = start(*DRKUN, "compare", "你好", "--model", "starter", "--model", "other", "--json")
    engine = engine_of(process)
    process.send_signal(signal.SIGINT)
    ran = end_of(process)
    assert ran.code == 130
    assert [found["state"] for found in ran.json["answers"]] == ["cancelled", "cancelled"]
    assert has_ended(engine)


def at_terminal(*words: str, vote: str = "") -> str:
    """What ``drkun compare`` writes on a terminal, where somebody answers its question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*DRKUN, "compare", *words], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    # A terminal whose other end is closed is an error to its reader.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 1024):
            seen += piece
            if vote and seen.decode(errors="ignore").rstrip().endswith("直接回车不投票："):
                os.write(ours, vote.encode() + b"\n")
                vote = ""
    os.close(ours)
    assert process.wait() == 0
    return seen.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[\d*m|\s", "", text)


@pytest.mark.usefixtures("known_machine")
def test_on_a_terminal_answers_come_one_below_the_other_and_differences_are_underlined(adapter: Path) -> None:
    text = at_terminal(DIZZY, "--model", "starter", "--model", "other", "--seed", "3")
    [kept] = (line for line in records.read() if isinstance(line, Record))
    one, other = (words(found.answer) for found in kept.answers)
    assert one != other
    streamed, again = text.split("== 不同之处")
    assert "\x1b[4m" in again and "\x1b[4m" not in streamed
    # Nothing is lost by it, and each stands below its name, its reasoning before its answer.
    told = [streamed.index("== 1  starter"), streamed.index("== 2  starter + other")]
    for found, part in zip(kept.answers, (streamed[told[0] : told[1]], streamed[told[1] :]), strict=True):
        assert plain(found.thinking) + plain(found.answer) in plain(part)
        assert plain(found.answer) in plain(again)


async def test_who_stands_below_waits_for_who_stands_above(
    both: dict[bool, Contest], capsys: pytest.CaptureFixture[str]
) -> None:
    contest = both[True]
    shown = Streamed(contest, ["one", "other"], anonymous=False)
    shown.begin()
    async for index, news in contest.ask(DIZZY, sampling=SEEDED):
        # The first ends last.
        if index == 1:
            shown.add(index, news)
    assert "other" not in capsys.readouterr().out
    shown.end()
    told = capsys.readouterr().out
    assert "== 2  other" in told and plain(contest.answers[1].answer) in plain(told)


@pytest.mark.usefixtures("known_machine")
@pytest.mark.parametrize(("said", "best"), [("2", 1), ("0", None), ("", "none")])
def test_a_blind_comparison_asks_for_a_vote_and_then_tells(
    adapter: Path, said: str, best: int | str | None
) -> None:
    models = ("--model", "starter", "--model", "other")
    text = at_terminal(DIZZY, *models, "--seed", "3", "--blind", vote=said or "\n")
    kept, *voted = list(records.read())
    assert isinstance(kept, Record) and kept.blind
    before, after = text.split("== 揭晓")
    assert "starter" not in before and "tok/s" not in before
    assert "== 1" in before and "== 2" in before
    for number, found in enumerate(kept.answers, 1):
        assert f"{number}  {found.name}" in after
    assert [(vote.of, vote.best) for vote in voted if isinstance(vote, Vote)] == (
        [] if best == "none" else [(kept.id, best)]
    )


@pytest.mark.usefixtures("known_machine")
def test_without_a_terminal_nobody_can_vote(adapter: Path) -> None:
    told = run("compare", DIZZY, "--model", "starter", "--model", "other", "--blind")
    assert told.code == 2
    assert "--blind" in told.failure
    assert not paths.comparisons().exists()


def test_the_table_of_votes() -> None:
    told = run("compare", "--votes")
    assert (told.code, told.out.strip()) == (0, "还没有盲评投票")
    for number in range(6):
        kept = record(str(number), "a", "b")
        records.keep(kept)
        records.vote(kept, 0)
    [pair] = run("compare", "--votes", "--json").json["pairs"]
    assert pair.pop("p") == pytest.approx(0.03125)
    assert pair == {"one": "a", "other": "b", "wins": 6, "losses": 0, "equal": 0}
    assert "0.031" in run("compare", "--votes").out


def test_the_settings_are_as_in_the_file(home: Path) -> None:
    """Temperature and the rest come from where the consultation's come from."""
    (home / "settings.toml").write_text("[sampling]\ntemperature = 0.0\nmax_tokens = 4\n")
    with serving() as (url, does):
        told = run(
            *("compare", "你好", "--model", "remote:made-up", "--model", "remote:another", "--json"),
            env={"DRKUN_REMOTE_URL": url},
        )
        assert told.code == 0
        assert json.dumps(told.json)
        assert sorted((body["model"], body["temperature"], body["max_tokens"]) for body in does.asked) == [
            ("another", 0.0, 4),
            ("made-up", 0.0, 4),
        ]
        assert len({body["seed"] for body in does.asked}) == 1
