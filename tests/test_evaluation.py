"""Evaluations for real: the bundled model answers a suite, is killed, goes on, is measured and compared."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest

pytest.importorskip("sacrebleu")

from drkun_tui import hardware, i18n, paths
from drkun_tui.engine import safe_mode
from drkun_tui.errors import DrkunError
from drkun_tui.evaluation import card, job
from drkun_tui.evaluation.asking import CONTEXT, spread
from drkun_tui.evaluation.comparison import compare
from drkun_tui.evaluation.evaluations import RESULT, Evaluation, Evaluations
from drkun_tui.evaluation.protocol import (
    Answered,
    Event,
    Failed,
    Finished,
    Loaded,
    Order,
    Prepared,
    Result,
    decode,
)
from drkun_tui.jobs import detached
from drkun_tui.library import provenance
from drkun_tui.library.plan import plan_load
from drkun_tui.library.provenance import Provenance
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings, save
from drkun_tui.training import recipe
from drkun_tui.training.data.dataset import prepare
from drkun_tui.training.runs import Runs
from tests.conftest import PATIENCE_S, starter_with, wait_until
from tests.test_cli import run
from tests.test_evaluation_suite import CMB, MEDQA, ROWS, write_lines

pytestmark = pytest.mark.timeout(900)

GREEDY = Sampling(temperature=0, max_tokens=160, seed=0)
SETTINGS = Settings(threads=1, sampling=GREEDY)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder for the whole module."""
    folder = tmp_path_factory.mktemp("evaluations")
    before = os.environ.get("DRKUN_HOME")
    os.environ["DRKUN_HOME"] = str(folder)
    i18n.set_language("zh")
    safe_mode.remember(paths.machine_file())
    yield folder
    if before is None:
        del os.environ["DRKUN_HOME"]
    else:
        os.environ["DRKUN_HOME"] = before


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test looks at the module's folder."""
    monkeypatch.setenv("DRKUN_HOME", str(place))
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    i18n.set_language("zh")


@pytest.fixture(scope="module")
def mixed(place: Path) -> Path:
    """A folder with questions of both kinds."""
    folder = place / "mixed"
    folder.mkdir()
    write_lines(folder / "answers.jsonl", ROWS)
    write_lines(folder / "cmb.jsonl", [CMB])
    write_lines(folder / "medqa.jsonl", [MEDQA, MEDQA | {"answer_idx": "Z"}])
    return folder


@pytest.fixture(scope="module")
def many(place: Path) -> Path:
    """Enough questions to be killed among."""
    rows = [
        {"question": f"{row['question']}第{n}次了", "answer": row["answer"]} for n in range(8) for row in ROWS
    ]
    return write_lines(place / "many.jsonl", rows)


def begin(path: Path | str, **changes: object) -> str:
    order = Order(suite=str(path), settings=SETTINGS, sequences=3)
    order = msgspec.structs.replace(order, **changes)

    async def start() -> str:
        return (await Evaluations().start(order)).id

    return asyncio.run(start())


def ended(id: str) -> Evaluation:
    def now() -> Evaluation:
        return asyncio.run(Evaluations().get(id))

    wait_until(lambda: not now().running)
    return now()


def events(id: str) -> list[Event]:
    return list(detached.events(Evaluations().root / id, decode))


@pytest.fixture(scope="module")
def whole(mixed: Path) -> Evaluation:
    """The bundled model on both kinds, undisturbed."""
    found = ended(begin(mixed))
    assert found.error is None, found.error
    return found


def result_of(evaluation: Evaluation) -> Result:
    assert evaluation.result is not None
    return evaluation.result


def test_an_evaluation_tells_everything(whole: Evaluation) -> None:
    told = events(whole.id)
    assert isinstance(told[0], Prepared)
    assert isinstance(told[1], Loaded)
    assert isinstance(told[-1], Finished)
    answers = [event for event in told if isinstance(event, Answered)]
    assert sorted(answer.place for answer in answers) == [0, 1, 2, 3, 4]
    for answer in answers:
        assert answer.thinking and answer.tokens > 0
        assert not answer.failed
        assert bool(answer.loss_tokens) == bool(answer.bleu) == (answer.task == "answer")
        assert (answer.correct is None) == (answer.task == "answer")
    assert [bool(answer.advised is not None) for answer in sorted(answers, key=lambda a: a.place)] == [
        *(False, False, True, False, False)
    ]


def test_the_result_counts_what_was_answered(whole: Evaluation) -> None:
    result, told = result_of(whole), events(whole.id)
    answers = [event for event in told if isinstance(event, Answered)]
    references = [answer for answer in answers if answer.task == "answer"]
    loss = sum(answer.loss for answer in references) / sum(answer.loss_tokens for answer in references)
    found = result.figure("loss")
    assert found is not None
    assert found.value == pytest.approx(loss)
    assert found.count == 3
    choices = [answer for answer in answers if answer.task == "choice"]
    accuracy = result.figure("accuracy")
    assert accuracy is not None
    assert accuracy.value == sum(bool(answer.correct) for answer in choices) / 2
    assert accuracy.low < 0.35 and accuracy.high > 0.65
    assert (result.questions, result.answered, result.dropped) == (5, 5, {"wrong_letter": 1})
    assert result.demonstration
    assert "sacrebleu" in result.signature
    assert result.tokens == sum(answer.tokens for answer in answers)
    assert 0 < result.seconds < 300


@pytest.mark.usefixtures("unmeasured")
def test_a_killed_evaluation_keeps_its_answers_and_goes_on(many: Path) -> None:
    id = begin(many)
    folder = Evaluations().root / id

    def answered() -> list[Answered]:
        return [event for event in events(id) if isinstance(event, Answered)]

    wait_until(lambda: len(answered()) >= 4)
    state = detached.state(folder)
    assert state is not None
    pid = int(state.process.split()[0])
    engines = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    found = ended(id)
    assert found.phase == "failed"
    assert found.error is not None and found.error.kind == "died"
    before = answered()
    assert 4 <= len(before) < 24
    # The engine ends with whoever asks it.
    psutil.wait_procs(engines, timeout=PATIENCE_S)
    assert not any(engine.is_running() for engine in engines)
    with (folder / "events.jsonl").open("ab") as torn:
        torn.write(b'{"type":"answered","place":2')
    asyncio.run(Evaluations().resume(id))
    result = result_of(ended(id))
    assert result.questions == result.answered == 24
    after = answered()
    assert after[: len(before)] == before
    assert sorted(answer.place for answer in after) == list(range(24))
    told = [event for event in events(id) if isinstance(event, Prepared)]
    assert told[0] == told[1]


def test_a_stopped_evaluation_goes_on(many: Path) -> None:
    id = begin(many)
    wait_until(lambda: any(isinstance(event, Answered) for event in events(id)))
    asyncio.run(Evaluations().stop(id))
    found = ended(id)
    assert (found.phase, found.error) == ("stopped", None)
    with pytest.raises(DrkunError, match="还没有做完"):
        compare(Evaluations(), found, found)
    asyncio.run(Evaluations().resume(id))
    assert result_of(ended(id)).answered == 24


def test_one_that_is_through_does_nothing_again(whole: Evaluation) -> None:
    told = events(whole.id)
    asyncio.run(Evaluations().resume(whole.id))
    assert events(whole.id) == told


def test_another_model_does_not_go_on(many: Path, place: Path) -> None:
    copy = place / "copy.gguf"
    copy.write_bytes(paths.starter().read_bytes())
    id = begin(many, settings=msgspec.structs.replace(SETTINGS, model=str(copy)))
    wait_until(lambda: any(isinstance(event, Answered) for event in events(id)))
    asyncio.run(Evaluations().stop(id))
    ended(id)
    os.utime(copy, (1, 1))
    asyncio.run(Evaluations().resume(id))
    found = ended(id)
    assert found.error is not None
    assert found.error.kind == "model_changed"
    assert found.error.exit_code == 2


def test_a_question_too_long_counts_and_stops_nothing(place: Path) -> None:
    path = write_lines(place / "long.jsonl", [ROWS[0], {"question": "头晕。" * 2000, "answer": "休息。"}])
    settings = msgspec.structs.replace(SETTINGS, context_length=512)
    result = result_of(ended(begin(path, settings=settings)))
    assert (result.questions, result.answered, result.failed) == (2, 1, {"prompt_too_long": 1})
    ends = result.figure("ends")
    assert ends is not None
    assert ends.count == 1


def test_a_loss_that_cannot_be_had_is_counted_and_told(place: Path) -> None:
    """An answer leaves out what is long ago in a dialogue; the loss is of all of it, as training has it."""
    turns = [("user", "头晕。" * 400), ("assistant", "多久了？"), ("user", "三天"), ("assistant", "先休息。")]
    messages = [{"role": role, "content": text} for role, text in turns]
    path = write_lines(place / "dialogue.jsonl", [{"messages": messages}, {"messages": messages[2:]}])
    settings = msgspec.structs.replace(SETTINGS, context_length=512)
    found = ended(begin(path, settings=settings))
    result = result_of(found)
    assert (result.answered, result.failed, result.unscored) == (2, {}, {"prompt_too_long": 1})
    loss = result.figure("loss")
    assert loss is not None and loss.count == 1
    assert "没有算出参考答案的损失：prompt_too_long 1" in run("eval", "--show", found.id).out


def test_a_suite_that_is_none_fails_with_its_sentence(place: Path) -> None:
    path = place / "empty.jsonl"
    path.write_bytes(b"")
    found = ended(begin(path))
    assert found.phase == "failed"
    assert found.error is not None
    assert (found.error.kind, found.error.exit_code) == ("empty", 2)
    assert isinstance(events(found.id)[-1], Failed)


@pytest.mark.parametrize(
    ("ram", "wished", "sequences"), [(64, 0, 16), (0.3, 0, 8), (0.05, 0, 2), (0.05, 5, 5)]
)
def test_the_memory_decides_how_many_are_asked_at_once(
    monkeypatch: pytest.MonkeyPatch, ram: float, wished: int, sequences: int
) -> None:
    plan = plan_load(SETTINGS)
    size = int(ram * 2**30)
    monkeypatch.setattr(hardware, "read", lambda: hardware.Hardware("cpu", 4, 8, size, size, [], ""))
    load = spread(plan, Order(suite="s", settings=SETTINGS, sequences=wished))
    assert load.sequences == sequences
    assert load.context_length == min(plan.load.context_length, CONTEXT)
    small = msgspec.structs.replace(SETTINGS, kv_cache="q4_0")
    more = spread(plan_load(small), Order(suite="s", settings=small, sequences=wished)).sequences
    # Keys and values of four bits leave room for more, where it is the memory that decides.
    assert (more > sequences) == (ram == 0.3)
    shorter = msgspec.structs.replace(SETTINGS, context_length=512)
    assert spread(plan_load(shorter), Order(suite="s", settings=shorter)).context_length == 512


# Comparison


def test_the_same_answers_show_no_difference(whole: Evaluation, mixed: Path) -> None:
    other = ended(begin(mixed))
    for difference in compare(Evaluations(), whole, other):
        assert not difference.shown, difference
        assert difference.low <= 0 <= difference.high
        if difference.p is not None:
            assert difference.p > 0.4


def written(place: Path, name: str, answers: list[Answered]) -> Evaluation:
    """An evaluation with these answers."""
    root = Evaluations(place / "written")
    folder = root.root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "order.json").write_bytes(msgspec.json.encode(Order(suite="s", settings=SETTINGS)))
    (folder / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in answers))
    result = Result(
        id=name, suite="s", fingerprint="f", model="m", adapter=None, engine="e", questions=len(answers),
        answered=len(answers), figures=(), tokens=0, seconds=0, sampling={}, think=True,
    )  # fmt: skip
    (folder / RESULT).write_bytes(msgspec.json.encode(result))
    return asyncio.run(root.get(name))


def scored(place: int, *, right: bool, loss: float) -> Answered:
    common = {"place": place, "id": str(place), "chosen": "A", "correct": right, "task": "choice"}
    return Answered(**common, loss=loss, loss_tokens=10)  # type: ignore[arg-type]


def test_a_difference_is_shown_where_there_is_one(place: Path) -> None:
    """Of 40 questions 12 are right only now and 2 were right only before: p of 14 throws of a coin."""
    before = [scored(n, right=n < 2 or n >= 20, loss=30 + n % 3) for n in range(40)]
    after = [scored(n, right=n >= 2 and (n < 14 or n >= 20), loss=20 + n % 5) for n in range(40)]
    root = Evaluations(place / "written")
    one, other = (
        written(place, "20260101-000000-aaaaaa", before),
        written(place, "20260101-000001-bbbbbb", after),
    )
    found = {each.name: each for each in compare(root, one, other)}
    accuracy = found["accuracy"]
    assert (accuracy.before, accuracy.after) == (22 / 40, 32 / 40)
    assert accuracy.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert accuracy.shown and accuracy.low > 0
    loss = found["loss"]
    assert loss.shown and loss.high < 0
    assert [loss.before, loss.after] == pytest.approx([3.0975, 2.2])
    # All choices could be read on both sides.
    assert found["parsed"].p == 1 and not found["parsed"].shown


def test_a_few_questions_show_nothing(place: Path) -> None:
    """Right three times more of eight: chance does that often."""
    before = [scored(n, right=n < 3, loss=20) for n in range(8)]
    after = [scored(n, right=n < 6, loss=20) for n in range(8)]
    root = Evaluations(place / "written")
    one, other = (
        written(place, "20260101-000002-cccccc", before),
        written(place, "20260101-000003-dddddd", after),
    )
    found = {each.name: each for each in compare(root, one, other)}
    assert found["accuracy"].p == pytest.approx(0.25)
    assert not found["accuracy"].shown
    assert not found["loss"].shown


def test_other_questions_are_not_compared(place: Path, whole: Evaluation) -> None:
    other = written(place, "20260101-000004-eeeeee", [scored(0, right=True, loss=1)])
    with pytest.raises(DrkunError) as raised:
        compare(Evaluations(), whole, other)
    assert raised.value.kind == "other_questions"


# The command


def test_the_command_prints_a_table_and_a_chart(whole: Evaluation) -> None:
    done = run("eval", "--show", whole.id[-6:])
    assert done.code == 0
    assert "BLEU-4（按字）" in done.out and "选择题答对" in done.out
    assert "[" in done.out and "%" in done.out
    assert "演示模型" in done.out


@pytest.mark.usefixtures("unmeasured")
def test_the_command_evaluates_and_compares(mixed: Path, whole: Evaluation) -> None:
    options = ("--threads", "1", "--max-tokens", "160", "--sequences", "3", "--against", whole.id, "--json")
    done = run("eval", str(mixed), *options)
    assert done.code == 0, done.err
    told = done.json
    assert told["questions"] == told["answered"] == 5
    assert told["fingerprint"] == result_of(whole).fingerprint
    assert told["sampling"]["temperature"] == 0
    assert {each["name"] for each in told["differences"]} >= {"loss", "bleu4", "accuracy", "ends"}
    assert not any(each["shown"] for each in told["differences"])
    shown = run("eval", "--show", told["id"], "--against", whole.id)
    assert "未见差异" in shown.out and "McNemar" in shown.out
    listed = run("eval", "--list", "--json").json["evaluations"]
    assert told["id"] in {each["id"] for each in listed}
    assert all(each["phase"] in ("done", "failed", "stopped") for each in listed)
    assert "已完成" in run("eval", "--list").out


@pytest.mark.usefixtures("unmeasured")
def test_the_command_stops_with_ctrl_c_and_goes_on(many: Path) -> None:
    command = [sys.executable, "-m", "drkun_tui", "eval", str(many), "--threads", "1", "--max-tokens", "160"]
    before = {each.id for each in asyncio.run(Evaluations().all())}

    def new() -> list[Evaluation]:
        return [each for each in asyncio.run(Evaluations().all()) if each.id not in before]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: any(isinstance(e, Answered) for each in new() for e in events(each.id)))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    (stopped,) = new()
    assert f"--resume {stopped.id}" in err.decode("utf8")
    assert stopped.phase == "stopped"
    done = run("eval", "--resume", stopped.id, "--json")
    assert done.json["answered"] == 24


@pytest.mark.usefixtures("unmeasured")
def test_one_that_goes_on_by_itself_is_stopped_and_removed(many: Path) -> None:
    settings = ("--threads", "1", "--max-tokens", "160")
    id = run("eval", str(many), *settings, "--detach", "--json").json["id"]
    assert run("eval", "--remove", id, "--yes", "--json").json["error"]["kind"] == "still_running"
    # One that still loads hears nothing, and may be killed before it does.
    wait_until(lambda: any(isinstance(event, Answered) for event in events(id)))
    assert run("stop", id, "--json").json == {"kind": "evaluation", "id": id, "phase": "stopped"}
    unasked = run("eval", "--remove", id, "--json")
    assert (unasked.code, unasked.json["error"]["kind"]) == (2, "remove_unconfirmed")
    assert run("eval", "--remove", id, "--yes", "--json").json == {"id": id, "removed": True}
    assert id not in run("eval", "--list").out


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        ((), "bad_usage", 2),
        (("a.jsonl", "--list"), "bad_usage", 2),
        (("no-such-suite",), "no_suite", 2),
        (("--show", "nothing"), "no_evaluation", 2),
        (("--resume", "nothing"), "no_evaluation", 2),
        (("--remove", "nothing"), "no_evaluation", 2),
        (("--remove", "nothing", "--list"), "bad_usage", 2),
        (("SUITE", "--against", "nothing"), "no_evaluation", 2),
        (("SUITE", "--model", "nothing"), "model_not_found", 3),
        (("SUITE", "--profile", "remote"), "remote", 2),
        (("SUITE", "--limit", "-3"), "bad_usage", 2),
        (("SUITE", "--task", "poem"), "bad_usage", 2),
    ],
)
def test_wrong_use_is_one_line(many: Path, arguments: tuple[str, ...], kind: str, code: int) -> None:
    before = len(asyncio.run(Evaluations().all()))
    done = run("eval", *(str(many) if each == "SUITE" else each for each in arguments), "--json")
    assert done.code == code
    assert done.json["error"]["kind"] == kind
    assert done.failure
    assert len(asyncio.run(Evaluations().all())) == before


def test_who_chats_with_a_server_evaluates_what_is_here(
    place: Path, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = place / "remote"
    monkeypatch.setenv("DRKUN_HOME", str(home))
    save(Settings(profile="remote", remote_url="http://127.0.0.1:9", language="zh"), paths.settings_file())
    done = run("eval", str(many), "--limit", "1", "--threads", "1", "--max-tokens", "8", "--json")
    assert done.code == 0, done.err
    assert (done.json["engine"], done.json["answered"]) == ("llama_cpp", 1)


def test_what_cannot_be_compared_is_not_answered_first(many: Path, whole: Evaluation) -> None:
    # Named in short, which the order does not keep.
    done = run("eval", str(many), "--threads", "1", "--against", whole.id[-6:], "--json")
    assert done.code == 2
    assert done.json["error"]["kind"] == "other_questions"
    newest = asyncio.run(Evaluations().all())[0]
    assert newest.phase == "failed"
    assert newest.order.against == whole.id
    assert not list(Evaluations().answers(newest.id))
    done = run("eval", str(many), "--against", newest.id, "--json")
    assert (done.code, done.json["error"]["kind"]) == (2, "no_result")


# A training run's held-out rows, and its adapter


def test_the_held_out_rows_of_a_run(place: Path) -> None:
    made = recipe.parse('preset = "starter-cpu"\n[data]\npath = "demo"\nheld_out_most = 4')
    folder = Runs().make(made)
    summary = prepare(made.data, folder / "data", made.training.seed, lambda *_: None, lambda: False)
    assert summary.held_out == 4
    done = run("eval", folder.name[-6:], "--threads", "1", "--max-tokens", "160", "--json")
    assert done.code == 0, done.err
    assert done.json["questions"] == 4
    assert folder.name in done.json["suite"]
    # They have reasoning, which the loss is over, too.
    loss = next(each for each in done.json["figures"] if each["name"] == "loss")
    assert loss["count"] == 4 and loss["value"] > 1


@pytest.fixture(scope="module")
def adapter(place: Path) -> tuple[Path, Path, str]:
    """The bundled model's weights, an adapter of random numbers, and the run that it says it is from."""
    pytest.importorskip("peft")
    from tests import transformers_models

    made = recipe.parse('preset = "starter-cpu"\n[data]\npath = "demo"\nheld_out_most = 4\nrows = 60')
    folder = Runs().make(made)
    summary = prepare(made.data, folder / "data", made.training.seed, lambda *_: None, lambda: False)
    base = transformers_models.starter(place / "models" / "base")
    target = transformers_models.lora(place / "models" / "adapter", base)
    provenance.write(target, Provenance(base_model="base", data_fingerprint=summary.fingerprint))
    (target / "README.md").write_text("---\ntags: [lora]\n---\n\n# adapter\n", "utf8")
    return base, target, folder.name


def test_an_adapter_is_asked_compared_and_its_card_tells(
    place: Path, adapter: tuple[Path, Path, str]
) -> None:
    base, target, _ = adapter
    demo = Path(recipe.__file__).with_name("demo.jsonl").read_text("utf8").splitlines()
    # A row that may have been trained on, and one that was not.
    suite = place / "suite.jsonl"
    suite.write_text("\n".join([*demo[:16], json.dumps(ROWS[1])]), "utf8")
    options = ("--threads", "1", "--max-tokens", "24", "--limit", "0", "--json", "--model", str(base))
    before = run("eval", str(suite), *options)
    assert before.code == 0, before.err
    assert before.json["overlap"] is None
    after = run(
        "eval", str(suite), *options, "--adapter", str(target), "--against", before.json["id"], "--card"
    )
    assert after.code == 0, after.err
    told = after.json
    assert told["engine"] == "transformers"
    assert told["overlap"]["rows"] > 0
    assert 0 < told["overlap"]["same"] < 16
    loss = next(each for each in told["differences"] if each["name"] == "loss")
    # Random numbers on top of the weights change every answer, and what follows from that is told.
    assert loss["after"] != loss["before"]
    assert loss["low"] < loss["after"] - loss["before"] < loss["high"]
    assert loss["shown"] == (not loss["low"] <= 0 <= loss["high"])
    text = (target / card.CARD).read_text("utf8")
    assert "# adapter" in text and "## Evaluation\n\n### suite.jsonl" in text
    assert "| response loss |" in text and "shown" in text
    assert f"{told['overlap']['same']} stand among" in text
    assert str(place) not in text
    again = run("eval", "--show", told["id"], "--card")
    assert again.code == 0, again.err
    assert (target / card.CARD).read_text("utf8").count("### suite.jsonl") == 1
    refused = run("eval", "--show", before.json["id"], "--card", "--json")
    assert refused.json["error"]["kind"] == "no_card"


def test_the_held_out_rows_were_not_trained_on(adapter: tuple[Path, Path, str]) -> None:
    base, target, id = adapter
    options = (
        "--threads",
        "1",
        "--max-tokens",
        "8",
        "--model",
        str(base),
        "--adapter",
        str(target),
        "--json",
    )
    done = run("eval", id, *options)
    assert done.code == 0, done.err
    assert done.json["overlap"]["rows"] > 40
    assert (done.json["overlap"]["same"], done.json["overlap"]["near"]) == (0, 0)


def test_an_adapter_is_another_when_its_weights_are_and_not_when_its_card_is(
    adapter: tuple[Path, Path, str],
) -> None:
    base, target, _ = adapter
    settings = Settings(model=str(base), adapter=str(target))
    before = job._subject(plan_load(settings))
    written_before = (target / card.CARD).read_text("utf8")
    card.write(target, "### other.jsonl\n\ntext\n")
    assert job._subject(plan_load(settings)) == before
    (target / card.CARD).write_text(written_before, "utf8")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        # Overwritten in place, which the folder's time does not tell.
        os.utime(target / name, (1, 1))
        after = job._subject(plan_load(settings))
        assert after != before
        before = after


@pytest.mark.parametrize("known", [True, False])
def test_what_was_exported_tells_what_it_was_trained_on(place: Path, known: bool) -> None:
    """Also where those data are no longer here: then nothing is known, and that is told."""
    made = recipe.parse('preset = "starter-cpu"\n[data]\npath = "demo"\nheld_out_most = 4\nrows = 60')
    folder = Runs().make(made)
    summary = prepare(made.data, folder / "data", made.training.seed, lambda *_: None, lambda: False)
    trained = Provenance(recipe="r", data_fingerprint=summary.fingerprint if known else "gone")
    model = starter_with(place / f"tuned-{known}.gguf", drkun__provenance=provenance.dump(trained))
    demo = Path(recipe.__file__).with_name("demo.jsonl").read_text("utf8").splitlines()
    suite = place / f"tuned-{known}.jsonl"
    suite.write_text("\n".join(demo[:16]), "utf8")
    options = ("--model", str(model), "--threads", "1", "--max-tokens", "4")
    done = run("eval", str(suite), *options)
    assert done.code == 0, done.err
    overlap = result_of(asyncio.run(Evaluations().all())[0]).overlap
    assert overlap is not None
    assert (overlap.rows > 40, overlap.same > 0) == (known, known)
    assert ("未检查与题目的重合" in done.out) != known


def test_a_card_has_a_section_for_each_suite(tmp_path: Path) -> None:
    provenance.write(tmp_path, Provenance())
    (tmp_path / card.CARD).write_text("# name\n\ntext\n", "utf8")
    card.write(tmp_path, "### one.jsonl\n\nfirst\n")
    card.write(tmp_path, "### two.jsonl\n\nsecond\n")
    card.write(tmp_path, "### one.jsonl\n\nanew\n")
    told = (tmp_path / card.CARD).read_text("utf8")
    assert told == "# name\n\ntext\n\n## Evaluation\n\n### two.jsonl\n\nsecond\n\n### one.jsonl\n\nanew\n"


def test_sections_below_the_evaluation_stay(tmp_path: Path) -> None:
    provenance.write(tmp_path, Provenance())
    own = "## Limits\n\nNone is known.\n\n### More\n\nRead on.\n"
    (tmp_path / card.CARD).write_text(f"# name\n\n## Evaluation\n\n### one.jsonl\n\nfirst\n\n{own}", "utf8")
    for text in ("anew", "again"):
        card.write(tmp_path, f"### one.jsonl\n\n{text}\n")
        told = (tmp_path / card.CARD).read_text("utf8")
        assert told == f"# name\n\n## Evaluation\n\n### one.jsonl\n\n{text}\n\n{own}"
