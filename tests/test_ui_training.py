"""The training screen: runs of real processes are followed, stopped, killed, resumed, compared, removed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.events import Key
from textual.widgets import Input, TextArea

from drkun_tui import hardware, i18n, paths
from drkun_tui.consult.conversation import State
from drkun_tui.i18n import t
from drkun_tui.jobs import detached
from drkun_tui.library import inventory
from drkun_tui.library.plan import folders
from drkun_tui.training import preflight, recipe, runs
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Step, decode
from drkun_tui.ui.screens.choose import Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.new_run import NewRunScreen
from drkun_tui.ui.screens.pages import Pages
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.screens.recipe_editor import RecipeEditor
from drkun_tui.ui.screens.training import TrainingScreen
from drkun_tui.ui.table import size
from drkun_tui.ui.widgets.data_result import DataResult
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.row_list import RowList
from tests import training_runs
from tests.conftest import MakeChild
from tests.data_files import answer, pairs, question, write_lines
from tests.gguf_files import lora
from tests.hub_server import HubServer, serving
from tests.test_hardware import FakeNvml
from tests.ui_helpers import Chat, chat, flat, settings_on_disk

ENDLESS = {"total": 40, "wait_at": 25}
"""Waits after 25 of 40 steps until it is asked to stop."""


@pytest.fixture(autouse=True)
def job(child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are real processes that write what a trainer writes."""
    monkeypatch.setattr(runs, "JOB", child(training_runs.CHILD))
    yield
    for folder in detached.folders(training_runs.root()):
        if (now := detached.state(folder)) is not None and now.alive:
            training_runs.kill(folder)


async def at_training(it: Chat, seen: str = "") -> TrainingScreen:
    """The training screen, once it shows `seen`."""
    await it.press("f4")
    screen = it.app.screen
    assert isinstance(screen, TrainingScreen)
    await it.until(lambda: flat(seen) in it.seen())
    return screen


async def started(name: str, **plan: object) -> Path:
    folder = training_runs.put(name, **plan)
    await runs.Runs().resume(folder.name)
    return folder


# Watching


async def test_without_runs_it_says_what_to_do() -> None:
    async with chat(loaded=False) as it:
        await at_training(it, t("training_screen.none"))
        assert flat(t("training_screen.none_help"))[:20] in it.seen("#run-head")
        assert "n" + t("keys.new_run") in it.hints()
        assert t("keys.stop_run") not in it.hints()


async def test_the_first_run_to_come_can_be_moved_to() -> None:
    async with chat(loaded=False) as it:
        await at_training(it, t("training_screen.none"))
        await started("drkun/first", total=5)
        await started("drkun/second", total=6)
        it.app.watch_runs()
        await it.until(lambda: "6/6" in it.seen("#numbers"))
        await it.press("down")
        await it.until(lambda: "5/5" in it.seen("#numbers"))


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
@pytest.mark.parametrize("language", ["zh", "en"])
async def test_a_run_of_an_earlier_program_is_followed(language: str, size: tuple[int, int]) -> None:
    folder = await started("drkun/earlier", **ENDLESS)
    i18n.set_language(language)
    async with chat(loaded=False, size=size) as it:
        await at_training(it, "25 / 40")
        await it.until(lambda: flat(training_runs.QUESTION) in it.seen("#sample"))
        assert "drkun/earlier" in it.seen("#runs") and "25/40" in it.seen("#runs")
        assert flat(t("runs.phase_training")) in it.seen("#runs")
        assert flat(t("training_screen.by_model")) in it.seen("#sample")
        assert flat(t("training_screen.held_out")) in it.seen("#loss")
        assert any("\u2801" <= char <= "\u28ff" for char in it.seen("#loss"))
        assert "1,234" in it.seen("#numbers")
        # What comes is shown as it comes.
        (folder / "go").touch()
        await it.until(lambda: "40/40" in it.seen("#numbers"))
        await it.until(lambda: flat(t("runs.phase_done")) in it.seen("#runs"))


async def test_the_consultation_shows_that_a_run_is_at_work_until_it_ends() -> None:
    folder = await started("drkun/shown", **ENDLESS)
    async with chat(loaded=True) as it:
        shown = flat(t("training_screen.status", percent="62%"))
        await it.until(lambda: shown in it.header())
        await it.type("你好\r")  # one can ask meanwhile
        await it.until(lambda: it.turns and it.last.state is State.DONE)
        (folder / "go").touch()
        await it.until(lambda: flat(t("training_screen.told_done", name="drkun/shown")) in it.notice())
        assert shown not in it.header()


async def test_a_killed_run_is_failed_with_its_remedy_and_resumes_without_double_steps() -> None:
    folder = await started("drkun/killed", **ENDLESS)
    async with chat(loaded=False) as it:
        screen = await at_training(it, "25 / 40")
        training_runs.kill(folder)
        await it.until(lambda: flat(t("runs.phase_failed")) in it.seen("#runs"))
        await it.until(lambda: flat(t("training.died")) in it.seen("#run-head"))
        assert "r" + t("keys.resume_run") in it.hints()
        (folder / "go").touch()
        await it.press("r")
        await it.until(lambda: flat(t("runs.phase_done")) in it.seen("#runs"))
        await it.until(lambda: "40/40" in it.seen("#numbers"))
        assert [step.step for step in screen._history.steps] == list(range(1, 41))
        told = [event.step for event in detached.events(folder, decode) if isinstance(event, Step)]
        assert len(told) == 25 + 30  # it went on from the checkpoint of step 10
        assert flat(t("training.died")) not in it.seen("#run-head")


class BusyNvml(FakeNvml):
    """One card, at work."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any, busy: Any) -> int:  # noqa: N802
        busy._obj.gpu = 97
        return 0


async def test_the_gpu_is_watched_while_a_run_is_at_work_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, load = BusyNvml(), ctypes.CDLL
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name, *rest, **more: nvml if "nv" in str(name) else load(name, *rest, **more)
    )
    monkeypatch.setattr("drkun_tui.ui.screens.training.GPU_EVERY_S", 0.05)
    await started("drkun/on_cpu", **ENDLESS)
    await started("drkun/on_gpu", device="NVIDIA Made Up", **ENDLESS)
    async with chat(loaded=False) as it:
        await at_training(it, "25 / 40")
        await it.until(lambda: "97%" in it.seen("#numbers"))
        await it.press("down")
        await it.until(lambda: "97%" not in it.seen("#numbers"))
        await it.press("home")
        await it.until(lambda: "97%" in it.seen("#numbers"))
        await it.press("s")
        await it.until(lambda: "97%" not in it.seen("#numbers"))


async def test_what_a_model_says_reaches_the_screen_cleaned() -> None:
    await started(
        "drkun/rude", total=8, thinking="[b]x[/b]\x1b[31m红", answer="a\x1b]0;title\x07b\u202ec[/red]"
    )
    async with chat(loaded=False) as it:
        await at_training(it, "[b]x[/b]红")
        assert "abc[/red]" in it.seen("#sample")
        assert not set("\x1b\x07\u202e") & set("".join(it.rows()))


async def test_twenty_thousand_steps_are_drawn_rarely_and_once_for_each_column() -> None:
    await started("drkun/long", total=20_000)
    async with chat(loaded=False) as it:
        screen = await at_training(it, "20,000 / 20,000")
        await it.until(lambda: flat(t("runs.phase_done")) in it.seen("#run-head"))
        await it.until(lambda: len(screen._history.steps) == 20_000)
        before = screen.paints
        for _ in range(40):
            await it.press("down")
        # Nothing is new, so nothing is painted, whatever the keys do.
        assert screen.paints - before <= 2


async def test_a_list_without_room_waits_for_it_and_lets_the_application_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await started("drkun/one", total=20)
    monkeypatch.setattr(RowList, "DEFAULT_CSS", "RowList { display: none; }")
    async with chat(loaded=False) as it:
        screen = await at_training(it)
        await it.until(lambda: it.app.runs_now)
        screen.query_one("#runs").display = True
        await it.until(lambda: "20/20" in it.seen("#runs"))
        assert it.app.focused is screen.query_one("#runs")


async def test_a_run_that_is_still_being_read_shows_nothing_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await started("drkun/one", total=20)
    await started("drkun/two", total=30)
    async with chat(loaded=False) as it:
        screen = await at_training(it, "drkun/two")
        await it.until(lambda: "30/30" in it.seen("#numbers"))
        read, reads = asyncio.Event(), it.app.runs.history

        async def held(id: str) -> tuple[History, int]:
            await read.wait()
            return await reads(id)

        monkeypatch.setattr(it.app.runs, "history", held)
        await it.press("down")
        await it.until(lambda: "20/20" in it.seen("#numbers"))
        read.set()
        await it.until(lambda: len(screen._history.steps) == 20)


async def test_a_run_that_was_marked_before_it_was_read_is_drawn_whole() -> None:
    await started("drkun/long", total=2000)
    await started("drkun/other", total=20)
    async with chat(loaded=False) as it:
        screen = await at_training(it, "drkun/long")
        await it.until(lambda: [run.phase for run in it.app.runs_now] == ["done", "done"])
        # Faster than the events can be read.
        for key in ("down", "m", "up", "m"):
            it._send(Key(key, key if len(key) == 1 else None))
        await it.until(lambda: sorted(len(h.steps) for _, h in screen._marked.values()) == [20, 2000])


async def test_the_empty_screen_breaks_its_lines_anew() -> None:
    async with chat(loaded=False, size=(132, 40)) as it:
        await at_training(it, t("training_screen.none"))
        for width in (84, 60):
            await it.pilot.resize_terminal(width, 30)
            await it.until(lambda: flat(t("training_screen.none_help")) in it.seen("#run-head"))


async def test_a_terminal_that_is_resized_elsewhere_leaves_the_focus_where_it_was() -> None:
    await started("drkun/one", total=20)
    async with chat(loaded=False, size=(132, 40)) as it:
        screen = await at_training(it, "20/20")
        screen.query_one("#sample").focus()
        await it.settle()
        it._send(events.AppBlur())
        await it.settle()
        await it.pilot.resize_terminal(90, 30)
        it._send(events.AppFocus())
        await it.until(lambda: it.app.focused is screen.query_one("#sample"))


# Comparing


async def test_marked_runs_are_drawn_together_with_letters() -> None:
    await started("drkun/one", total=20)
    await started("drkun/two", total=30, bias=2.0)
    async with chat(loaded=False) as it:
        await at_training(it, "drkun/two")
        await it.until(lambda: "30/30" in it.seen("#numbers"))
        await it.press("home", "m", "down")
        await it.until(lambda: "20/20" in it.seen("#numbers"))
        await it.press("m")
        await it.until(lambda: "Adrkun/two" in it.seen("#loss") and "Bdrkun/one" in it.seen("#loss"))
        curves = [row for row in it.rows()[6:] if any("\u2801" <= char <= "\u28ff" for char in row)]
        assert any("A" in row for row in curves) and any("B" in row for row in curves)
        await it.press("m", "home", "m")
        await it.until(lambda: flat(t("training_screen.each_step")) in it.seen("#loss"))


# Actions


async def test_a_run_is_stopped_and_resumed() -> None:
    folder = await started("drkun/stopped", **ENDLESS)
    async with chat(loaded=False) as it:
        await at_training(it, "25 / 40")
        await it.press("s")
        await it.until(lambda: flat(t("runs.phase_stopped")) in it.seen("#runs"))
        await it.until(lambda: "r" + t("keys.resume_run") in it.hints())
        (folder / "go").touch()
        await it.press("r")
        await it.until(lambda: flat(t("runs.phase_done")) in it.seen("#runs"))


async def test_a_run_is_cancelled_after_a_question_that_says_what_is_lost() -> None:
    folder = await started("drkun/cancelled", **ENDLESS)
    async with chat(loaded=False) as it:
        await at_training(it, "25 / 40")
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "15" in it.seen("#dialog")
        await it.press("n")
        now = detached.state(folder)
        assert now is not None and now.alive
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: not detached.state(folder).alive)  # type: ignore[union-attr]
        await it.until(lambda: t("keys.stop_run") not in it.hints())


async def test_a_run_that_has_ended_is_removed_after_a_question() -> None:
    folder = await started("drkun/old", total=5)
    async with chat(loaded=False) as it:
        await at_training(it, t("runs.phase_done"))
        await it.press("d")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("n")
        assert folder.exists()
        await it.press("delete")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: flat(t("training_screen.none")) in it.seen("#run-head"))
        # A folder without its recipe is no run any more, while the rest of it is being removed.
        await it.until(lambda: not folder.exists())


async def test_the_log_is_read() -> None:
    await started("drkun/logged", total=5)
    async with chat(loaded=False) as it:
        await at_training(it, t("runs.phase_done"))
        await it.press("l")
        await it.until(lambda: isinstance(it.app.screen, Reader))
        await it.until(lambda: flat("to the log") in it.seen("#text"))


async def test_the_adapter_that_was_made_answers() -> None:
    adapter = lora(paths.model_store() / "made.gguf")
    await started("made", total=5, adapter=str(adapter))
    async with chat() as it:
        await it.press("ctrl+s")
        await it.until(lambda: not it.prompt.has_focus)
        await at_training(it, t("runs.phase_done"))
        await it.until(lambda: "c" + t("keys.chat_with") in it.hints())
        await it.press("c")
        await it.until(lambda: isinstance(it.app.screen, ConsultScreen))
        assert it.prompt.has_focus
        await it.until(lambda: "starter+made" in it.header() and "load" not in it.working())
        assert (settings_on_disk().model, settings_on_disk().adapter) == ("starter", "made")
        assert (await it.ask("你好")).adapter == "made"


# A new run


async def at_form(it: Chat) -> NewRunScreen:
    await at_training(it)
    await it.press("n")
    await it.until(lambda: isinstance(it.app.screen, NewRunScreen))
    screen = it.app.screen
    assert isinstance(screen, NewRunScreen)
    return screen


def field(it: Chat, name: str) -> Input:
    return it.app.screen.query_one(f"#field-{name}", Input)


async def fill(it: Chat, name: str, text: str) -> None:
    field(it, name).focus()
    field(it, name).clear()
    await it.type(text)


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_form_shows_a_preset_and_says_what_is_wrong_at_the_field(size: tuple[int, int]) -> None:
    async with chat(loaded=False, size=size) as it:
        await at_form(it)
        assert (field(it, "preset").value, field(it, "epochs").value) == ("starter-cpu", "3")
        for name, wrong, right in (("batch", "0", "2"), ("rate", "fast", "2e-4"), ("context", "1", "256")):
            await fill(it, name, wrong)
            assert it.app.screen.query_one(f"#told-{name}").has_class("-error")
            await fill(it, name, right)
            assert not it.app.screen.query_one(f"#told-{name}").has_class("-error")
        await fill(it, "steps", "10")
        assert flat(t("recipe.steps_and_epochs")) in it.seen("#told-epochs")
        await fill(it, "epochs", "")
        await fill(it, "data", "/nowhere/at/all")
        assert flat(t("training_screen.data_missing")) in it.seen("#told-data")
        await it.press("ctrl+s")
        assert flat(t("training_screen.mend")) in it.notice() and field(it, "data").has_focus
        await fill(it, "data", "demo")
        screen = it.app.screen
        assert isinstance(screen, NewRunScreen)
        made = screen._check()
        assert made is not None
        assert (made.preset, made.data.path, made.training.max_steps) == ("starter-cpu", "demo", 10)
        assert (made.training.epochs, made.training.batch_size, made.training.context_length) == (0, 2, 256)
        await it.press("escape")
        assert isinstance(it.app.screen, TrainingScreen)


async def test_presets_and_bases_are_chosen_by_keys_and_paths_completed(tmp_path: Path) -> None:
    (tmp_path / "dialogues.csv").write_text("ask,answer\n", "utf8")
    async with chat(loaded=False) as it:
        await at_form(it)
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Choose))
        await it.press("home", "enter")
        await it.until(lambda: field(it, "preset").value == sorted(recipe.presets())[0])
        await it.press("down", "enter")
        await it.until(lambda: isinstance(it.app.screen, Choose))
        # What it takes to train it, not to load it.
        first = recipe.presets()[sorted(recipe.presets())[0]]
        room = preflight.room_of(first, inventory.find("starter", folders(it.app.settings)), hardware.read())
        assert flat(t("training_screen.base_fits", need=size(room.needed), free="")) in it.seen()
        await it.press("enter")
        await it.until(
            lambda: isinstance(it.app.screen, NewRunScreen) and field(it, "base").value == "starter"
        )
        await fill(it, "data", f"{tmp_path}/dial")
        await it.until(lambda: field(it, "data")._suggestion)
        await it.press("right")
        assert field(it, "data").value == f"{tmp_path}/dialogues.csv"
        assert flat(t("training_screen.data_file", size="11 B")) in it.seen("#told-data")


async def test_the_whole_recipe_is_edited_with_its_errors_by_line() -> None:
    async with chat(loaded=False) as it:
        await at_form(it)
        await it.press("ctrl+e")
        await it.until(lambda: isinstance(it.app.screen, RecipeEditor))
        editor = it.app.screen.query_one(TextArea)
        text = editor.text
        line = next(n for n, row in enumerate(text.splitlines(), 1) if row.startswith("rank"))
        editor.text = text.replace("rank = 16", "rank = -1")
        await it.until(lambda: f"{line}" in it.notice() and "rank" in it.notice())
        await it.press("ctrl+s")
        assert isinstance(it.app.screen, RecipeEditor)
        editor.text = text.replace("rank = 16", "rank = 8").replace("dropout = 0.0", "dropout = 0.25")
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, NewRunScreen))
        assert field(it, "rank").value == "8"
        screen = it.app.screen
        assert isinstance(screen, NewRunScreen)
        made = screen._check()
        assert made is not None and made.adapter.dropout == 0.25


# Its data


def result(it: Chat) -> DataResult:
    return it.app.screen.query_one(DataResult)


def data_children() -> list[int]:
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"training.checking.job" in _read(path)
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    """Sixty rows of which eight are left out and one holds a telephone number."""
    rows = [*pairs(60), *pairs(6), {"question": question(80), "answer": "嗯"}]
    rows.append({"question": f"{question(81)}电话13812345678", "answer": answer(81)})
    rows.append({"question": question(82), "answer": "\x1b[31m请加微信 abc12345 咨询"})
    return write_lines(tmp_path / "问诊.jsonl", rows)


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_form_shows_what_is_in_the_data(size: tuple[int, int], dialogues: Path) -> None:
    async with chat(loaded=False, size=size) as it:
        await at_form(it)
        await fill(it, "data", str(dialogues))
        await it.until(lambda: result(it).tokens and result(it).tokens.examples == 61)  # type: ignore[union-attr]
        shown = it.seen("#data-result")
        for name, count in (("rows", 69), ("usable", 61)):
            assert flat(t("data.count", name=t(f"data.{name}"), count=count)) in shown
        for name, count in (("duplicate", 6), ("too_short", 1), ("advertisement", 1)):
            assert flat(t("data.count", name=t(f"data.reason_{name}"), count=count)) in shown
        assert flat(t("data.count", name=t("data.flag_personal"), count=1)) in shown
        assert flat(t("data.tokens_of", model="starter")) in shown
        assert "=====" in shown
        assert "^T" + t("keys.show_examples") in it.hints()

        await it.press("ctrl+t")
        await it.until(lambda: isinstance(it.app.screen, Pages) and "<|im_start|>" in it.seen("#text"))
        assert flat(t("data.legend", sign=">")) in it.seen("#dialog-title")
        view = it.app.screen.query_one("#text", LineView)
        texts = ["".join(span.text for span in line) for line in view.lines]
        assert texts[1].startswith("  <|im_start|>user")
        trained = [line for line in view.lines if line and line[0].text == "> "]
        assert all(span.style == "strong" for line in trained for span in line[1:])
        assert sum("<|im_end|>" in "".join(span.text for span in line) for line in trained) == 50
        await it.press("n")
        await it.until(lambda: "2/2" in it.seen("#dialog-title"))
        await it.until(lambda: len([line for line in view.lines if line and line[0].style == "label"]) == 11)
        await it.press("escape")

        await it.press("ctrl+r")
        await it.until(lambda: isinstance(it.app.screen, Choose))
        assert flat(t("data.flag_personal")) in it.seen("#choices")
        await it.press("home", "enter")
        await it.until(lambda: "abc12345" in it.seen("#text"))
        assert "\x1b" not in "".join(it.rows())
        await it.press("escape")
        await it.until(lambda: isinstance(it.app.screen, Choose))
        await it.press("end", "enter")
        await it.until(lambda: "13812345678" in it.seen("#text"))
        await it.press("escape")
        await it.until(lambda: isinstance(it.app.screen, Choose))
        await it.press("escape")
        await it.until(lambda: isinstance(it.app.screen, NewRunScreen))
        assert data_children()
        await it.press("escape")
        await it.until(lambda: not data_children())


async def test_a_check_ends_when_its_path_changes(tmp_path: Path, dialogues: Path) -> None:
    long = tmp_path / "long.jsonl"
    write_lines(
        long, [{"question": f"{question(n)}{n}", "answer": f"{answer(n)}{n}" * 4} for n in range(20_000)]
    )
    async with chat(loaded=False) as it:
        await at_form(it)
        await fill(it, "data", str(long))
        await it.until(lambda: result(it).can_show)
        (first,) = data_children()
        check = result(it).check
        assert check is not None and check._folder is not None
        left = check._folder
        assert left.exists()
        await fill(it, "data", str(dialogues))
        assert result(it).summary is None
        await it.until(lambda: result(it).tokens and result(it).tokens.examples == 61)  # type: ignore[union-attr]
        await it.until(lambda: first not in data_children())
        await fill(it, "data", "/nowhere")
        await it.until(lambda: not data_children())
        assert result(it).summary is None and not result(it).lines
        assert t("keys.show_examples") not in it.hints()
        await it.until(lambda: not left.exists())


async def test_data_that_are_none_and_a_child_that_dies(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("", "utf8")
    async with chat(loaded=False) as it:
        await at_form(it)
        await fill(it, "data", f"{tmp_path}/empty.csv")
        await it.until(lambda: flat(t("data.empty", path=f"{tmp_path}/empty.csv")) in it.seen("#data-result"))
        await fill(it, "data", "demo")
        await it.until(lambda: result(it).tokens)
        for child in data_children():
            os.kill(child, signal.SIGKILL)
        await it.until(lambda: flat(t("data.check_died", reason="SIGKILL")) in it.seen("#data-result"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    pytest.importorskip("datasets")
    with serving() as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


async def test_a_hub_data_set_is_fetched_once_somebody_says_so(tmp_path: Path, hub: HubServer) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [*pairs(40), *pairs(5)])
    hub.add("datasets/someone/talks", {"train.jsonl": path.read_bytes()})
    async with chat(loaded=False) as it:
        await at_form(it)
        await fill(it, "data", "someone/talks")
        assert flat(t("training_screen.data_hub_enter")) in it.seen("#told-data")
        assert result(it)._request is None
        await it.press("enter")
        assert it.app.screen.focused is field(it, "name")
        await it.until(lambda: result(it).tokens and result(it).tokens.examples == 40)  # type: ignore[union-attr]
        assert flat(t("training_screen.data_hub")) in it.seen("#told-data")
        shown = it.seen("#data-result")
        assert flat(t("data.count", name=t("data.reason_duplicate"), count=5)) in shown
        await it.press("ctrl+t")
        await it.until(lambda: isinstance(it.app.screen, Pages) and "<|im_start|>" in it.seen("#text"))
        await it.press("escape")
        # What was said of one name is not said of the next.
        await fill(it, "data", "someone/talks2")
        assert result(it)._request is None
        await it.until(lambda: not data_children())


async def test_a_hub_that_cannot_be_reached_or_lacks_the_data_set(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("datasets/someone/talks", {"train.jsonl": b""})
    async with chat(loaded=False) as it:
        await at_form(it)
        await fill(it, "data", "someone/nothing")
        await it.press("enter")
        await it.until(lambda: flat("someone/nothing") in it.seen("#data-result") and result(it)._error)
        assert flat(t("data.hub_failed", name="someone/nothing", reason="").rstrip("。. ")) in it.seen(
            "#data-result"
        )
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        await fill(it, "data", "someone/talks")
        await it.press("enter")
        told = t("data.hub_unreachable", name="someone/talks") + t("data.hub_unreachable_hint")
        await it.until(lambda: flat(told) in it.seen("#data-result"))
