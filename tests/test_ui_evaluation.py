"""Evaluations from the screens alone: begun in a form, followed, stopped, compared, put into a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sacrebleu")

from textual.widgets import Input

from drkun_tui import paths
from drkun_tui.evaluation.evaluations import Evaluation, Evaluations
from drkun_tui.evaluation.protocol import Answered, Order, Prepared, encode
from drkun_tui.i18n import set_language, t
from drkun_tui.jobs import detached
from drkun_tui.library import provenance
from drkun_tui.library.held import Held
from drkun_tui.library.plan import plan_load
from drkun_tui.library.provenance import Provenance
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from drkun_tui.ui.room import gains_on_gpu
from drkun_tui.ui.screens.choose import Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.evaluations import EvaluationsScreen
from drkun_tui.ui.screens.models import ModelsScreen
from drkun_tui.ui.screens.new_evaluation import NewEvaluationScreen
from drkun_tui.ui.screens.reader import Reader
from tests import transformers_models
from tests.test_evaluation_suite import CMB, ROWS, write_lines
from tests.test_ui_models import at_models, dialog, highlight
from tests.ui_helpers import Chat, chat, flat, hold_on_gpu, plainly, with_card

pytestmark = pytest.mark.timeout(900)

GIB = 1024**3

BRIEF = plainly(sampling=Sampling(temperature=0.7, max_tokens=48))
"""Short answers, and a temperature that an evaluation does not take over."""


@pytest.fixture(autouse=True)
def language(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the jobs, too."""
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Questions of both kinds, and a row without one."""
    return write_lines(tmp_path / "suite.jsonl", [*ROWS, {"question": "", "answer": "休息。"}])


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough to be stopped among."""
    rows = [
        {"question": f"{row['question']}第{n}次了", "answer": row["answer"]}
        for n in range(20)
        for row in ROWS
    ]
    return write_lines(tmp_path / "many.jsonl", rows)


async def fill(it: Chat, **values: object) -> None:
    """Type into the fields of the form."""
    for name, value in values.items():
        field = it.app.screen.query_one(f"#field-{name}", Input)
        field.focus()
        field.clear()
        await it.type(str(value))


async def evaluate(it: Chat, path: Path, **values: object) -> None:
    """Begin one of the model that is highlighted."""
    await it.press("t")
    await dialog(it, NewEvaluationScreen)
    await fill(it, suite=path, **values)
    await it.press("ctrl+s")
    await dialog(it, EvaluationsScreen)


def newest(it: Chat) -> Evaluation:
    return it.app.evaluations_now[0]


async def through(it: Chat, count: int = 1) -> None:
    """Wait until so many are through."""
    await it.until(lambda: [each.phase for each in it.app.evaluations_now].count("done") == count)


def answered(id: str) -> list[Answered]:
    return list(Evaluations().answers(id))


async def test_the_first_one_to_come_can_be_moved_to(suite: Path) -> None:
    async with chat(BRIEF, loaded=False) as it:
        await at_models(it)
        await it.press("l")
        await dialog(it, EvaluationsScreen)
        await it.until(lambda: flat(t("evaluation_screen.none")) in it.seen())
        # Begun elsewhere.
        await Evaluations().start(Order(suite=str(suite), settings=BRIEF))
        it.app.watch_evaluations()
        await it.until(lambda: it.app.focused is it.app.screen.query_one("#evaluations"))
        await through(it)


@pytest.mark.parametrize(("shown", "size"), [("zh", (80, 24)), ("en", (132, 40))])
async def test_the_chosen_model_is_measured_and_compared(
    shown: str, size: tuple[int, int], suite: Path
) -> None:
    set_language(shown)
    async with chat(BRIEF, loaded=False, size=size) as it:
        await at_models(it)
        assert flat(t("keys.evaluate")) in it.hints()
        await it.press("t")
        await dialog(it, NewEvaluationScreen)
        form = it.app.screen
        assert form.query_one("#field-model", Input).value == "starter"
        assert form.query_one("#field-suite", Input).has_focus
        await it.press("ctrl+s")
        assert flat(t("evaluation_screen.mend")) in it.notice()
        await fill(it, suite=suite.with_name("none.jsonl"))
        assert flat(t("evaluation_screen.missing")) in it.seen("#told-suite")
        await fill(it, suite=suite, limit="x")
        assert flat(t("evaluation_screen.bad_number")) in it.seen("#told-limit")
        await fill(it, limit="100")
        await it.press("ctrl+s")
        await dialog(it, EvaluationsScreen)
        await it.until(lambda: "suite.jsonl" in it.seen("#evaluations"))
        await through(it)
        await it.until(lambda: flat(t("evaluation.metric_bleu4")) in it.seen("#evaluation"))
        result = newest(it).result
        assert result is not None
        assert (result.questions, result.dropped) == (3, {"no_question": 1})
        assert (result.sampling["temperature"], result.sampling["max_tokens"]) == (0, 48)
        seen = it.seen("#evaluation")
        loss = result.figure("loss")
        assert loss is not None
        assert f"{loss.value:.4f}" in seen and f"{loss.low:.4f}–{loss.high:.4f}" in seen
        # The same again, compared: what is the same shows no difference.
        await it.press("n")
        await dialog(it, NewEvaluationScreen)
        # As the one that was highlighted was asked, or the two could not be compared.
        assert it.app.screen.query_one("#field-suite", Input).value == str(suite)
        assert it.app.screen.query_one("#field-limit", Input).value == "100"
        it.app.screen.query_one("#field-against").focus()
        await it.press("enter")
        await dialog(it, Choose)
        assert flat(t("evaluation_screen.same_suite")) in it.seen("#choices")
        await it.press("down", "enter")
        await dialog(it, NewEvaluationScreen)
        await it.press("ctrl+s")
        await dialog(it, EvaluationsScreen)
        await through(it, 2)
        assert newest(it).order.against == result.id
        await it.until(lambda: flat(t("evaluation_screen.nothing_shown")) in it.seen("#evaluation"))
        assert flat(t("evaluation.none_shown", p="0.0000 – 0.0000")) in it.seen("#evaluation")
        view = it.app.screen.query_one("#evaluation")
        await it.press("tab", "end")
        assert view.has_focus
        assert "McNemar" in it.seen("#evaluation")
        assert "[" in it.seen("#evaluation") and "=" in it.seen("#evaluation")
        assert flat(t("evaluation.demonstration")) in it.seen("#evaluation")
        # It can be left out again.
        await it.press("c")
        await dialog(it, Choose)
        await it.press("home", "enter")
        await dialog(it, EvaluationsScreen)
        await it.until(lambda: "McNemar" not in it.seen("#evaluation"))
        await it.press("escape")
        await dialog(it, ModelsScreen)
        await it.press("l")
        await dialog(it, EvaluationsScreen)
        await it.until(lambda: it.seen("#evaluations").count("suite.jsonl") == 2)


async def test_one_is_followed_stopped_resumed_and_removed(many: Path) -> None:
    async with chat(BRIEF, loaded=False) as it:
        await at_models(it)
        await evaluate(it, many, sequences=3)
        await it.until(lambda: "/60" in it.seen("#evaluation") and len(answered(newest(it).id)) > 2)
        left = flat(t("evaluation.progress", rate="0", left="").split("0")[0])
        await it.until(lambda: left in it.seen("#evaluation") and "==" in it.seen("#evaluation"))
        assert flat(t("keys.stop_evaluation")) in it.hints()
        await it.press("s")
        await it.until(lambda: newest(it).phase == "stopped")
        kept = len(answered(newest(it).id))
        assert kept < 60
        await it.until(lambda: f"{kept}/60" in it.seen("#evaluation"))
        await it.press("l")
        await dialog(it, Reader)
        await it.press("escape")
        await dialog(it, EvaluationsScreen)
        await it.press("r")
        await it.until(lambda: newest(it).running and len(answered(newest(it).id)) > kept)
        await it.until(lambda: "/60" in it.seen("#evaluation") and f"{kept}/60" not in it.seen("#evaluation"))
        await it.press("s")
        await it.until(lambda: newest(it).phase == "stopped")
        told = answered(newest(it).id)
        assert len({each.place for each in told}) == len(told)
        await it.press("d")
        await dialog(it, Confirm)
        await it.press("y")
        await it.until(lambda: not it.app.evaluations_now)
        await it.until(lambda: flat(t("evaluation_screen.none")) in it.seen("#evaluation"))
    assert not detached.folders(Evaluations().root)


async def test_one_of_an_earlier_program_is_found_again_and_goes_on(many: Path) -> None:
    async with chat(BRIEF, loaded=False) as it:
        await at_models(it)
        await evaluate(it, many, sequences=3)
        await it.until(lambda: len(answered(newest(it).id)) > 1)
    async with chat(BRIEF, loaded=False) as it:
        await at_models(it)
        await it.press("l")
        await dialog(it, EvaluationsScreen)
        await it.until(lambda: "/60" in it.seen("#evaluation"))
        assert newest(it).running
        await it.press("s")
        await it.until(lambda: newest(it).phase == "stopped")


async def test_what_fails_says_why_and_what_to_do(suite: Path, tmp_path: Path) -> None:
    """Other questions than those that it is to be compared with, and a file without any."""
    other = write_lines(tmp_path / "other.jsonl", [CMB])
    async with chat(BRIEF, loaded=False) as it:
        await at_models(it)
        await evaluate(it, suite)
        await through(it)
        first = newest(it).id
        await it.press("escape")
        await dialog(it, ModelsScreen)
        await evaluate(it, other, against=first)
        await it.until(lambda: newest(it).phase == "failed")
        await it.until(lambda: flat(t("evaluation.other_questions_hint")) in it.seen("#evaluation"))
        assert not answered(newest(it).id)
        await it.press("escape")
        await dialog(it, ModelsScreen)
        await it.press("t")
        await dialog(it, NewEvaluationScreen)
        await fill(it, suite=suite, model="nothing")
        await it.press("ctrl+s")
        await it.until(lambda: "nothing" in it.notice())
        await it.press("escape")
        await dialog(it, ModelsScreen)


async def test_an_adapter_is_compared_with_its_base_and_its_card_tells(home: Path, suite: Path) -> None:
    pytest.importorskip("peft")
    base = transformers_models.starter(paths.model_store() / "base")
    adapter = transformers_models.lora(paths.model_store() / "taught", base)
    provenance.write(adapter, Provenance(base_model="base"))
    (adapter / "README.md").write_text("# taught\n", "utf8")
    shorter = plainly(sampling=Sampling(temperature=0, max_tokens=12))
    async with chat(shorter, loaded=False, size=(132, 40)) as it:
        await at_models(it, "taught")
        await highlight(it, "base")
        await evaluate(it, suite)
        await through(it)
        assert flat(t("keys.evaluation_card")) not in it.hints()
        first = newest(it).id
        await it.press("escape")
        await dialog(it, ModelsScreen)
        await highlight(it, "taught")
        await evaluate(it, suite, against=first)
        await through(it, 2)
        await it.until(lambda: flat(t("evaluation.how_compared")) in it.seen("#evaluation"))
        differences = await it.app.evaluations.compare(first, newest(it).id)
        loss = next(each for each in differences if each.name == "loss")
        # Random numbers on top of the weights change every answer.
        assert loss.after != loss.before
        await it.until(lambda: f"{loss.low:.4f}–{loss.high:.4f}" in it.seen("#evaluation"))
        assert flat(t("keys.evaluation_card")) in it.hints()
        await it.press("w")
        await it.until(lambda: "README.md" in it.notice())
    text = (adapter / "README.md").read_text("utf8")
    assert text.startswith("# taught") and "### suite.jsonl" in text
    assert f"| response loss | {loss.before:.4f} | {loss.after:.4f} |" in text


async def test_a_long_history_of_answers_is_read_off_the_screen(many: Path) -> None:
    """Twenty thousand answers that were kept do not hold up the keys; how many there are is shown."""
    async with chat(BRIEF, loaded=False) as it:
        await at_models(it)
        await evaluate(it, many, sequences=3)
        await it.until(lambda: len(answered(newest(it).id)) > 0)
        await it.press("s")
        await it.until(lambda: newest(it).phase == "stopped")
        folder = Evaluations().root / newest(it).id
    one: dict[str, Any] = {"type": "answered", "id": "x", "task": "answer", "answer": "休息。" * 40}
    lines = (json.dumps(one | {"place": n, "at": 1.0 + n}) for n in range(20_000))
    prepared = Prepared(suite="many", rows=30_000, usable=30_000, questions=30_000)
    with (folder / "events.jsonl").open("a", encoding="utf8") as file:
        file.writelines(f"{line}\n" for line in (encode(prepared).decode(), *lines))
    kept = len(answered(folder.name))
    async with chat(BRIEF, loaded=False) as it:
        await at_models(it)
        await it.press("l")
        await dialog(it, EvaluationsScreen)
        await it.until(lambda: f"{kept:,}/30,000" in it.seen("#evaluation"))


# Room on the GPU


def test_a_model_that_holds_the_gpu_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_the_way(held: int, card: str = "", **changes: Any) -> bool:
        settings = Settings(model="starter", **changes)
        needed = gains_on_gpu(lambda machine: [plan_load(settings, machine=machine)])
        return needed(Held(held, card=card))

    assert not in_the_way(2 * GIB)
    with_card(monkeypatch, 5_000_000)
    assert in_the_way(2 * GIB)
    assert in_the_way(2 * GIB, "GPU-1") and in_the_way(2 * GIB, "GPU-0")
    assert not in_the_way(1_000_000)
    # One that is refused now, and would not be.
    assert in_the_way(2 * GIB, profile="gpu16")
    with_card(monkeypatch, 4 * GIB)
    assert not in_the_way(2 * GIB)


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("n", True)])
async def test_the_model_that_answers_may_be_asked_to_leave(
    monkeypatch: pytest.MonkeyPatch, suite: Path, answer: str, stays: bool
) -> None:
    async with chat(BRIEF) as it:
        session = it.app.session
        hold_on_gpu(it, monkeypatch)
        await at_models(it)
        await it.press("t")
        await dialog(it, NewEvaluationScreen)
        await fill(it, suite=suite)
        await it.press("ctrl+s")
        await dialog(it, Confirm)
        assert flat(t("room.unload", name="starter")) in it.seen("#dialog")
        await it.press(answer)
        await dialog(it, EvaluationsScreen)
        assert session.engine.loaded is stays
        await through(it)
