"""A run begun from the form, with the trainer that everybody gets; and room made for it."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("trl")

from textual.widgets import Input

from drkun_tui import hardware
from drkun_tui.hardware import Gpu, Hardware
from drkun_tui.i18n import t
from drkun_tui.settings import Settings
from drkun_tui.training import preflight, recipe, runs
from drkun_tui.training.preflight import Room
from drkun_tui.training.protocol import Finished
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.new_run import NewRunScreen
from drkun_tui.ui.screens.training import TrainingScreen
from tests import training_runs
from tests.conftest import MakeChild
from tests.ui_helpers import Chat, chat, flat

GIB = 1024**3


async def begin(it: Chat, **values: str) -> None:
    """Fill in the form and say yes to what the run will take."""
    await it.press("f4", "n")
    await it.until(lambda: isinstance(it.app.screen, NewRunScreen))
    for name, text in values.items():
        field = it.app.screen.query_one(f"#field-{name}", Input)
        field.focus()
        field.clear()
        await it.type(text)
    await it.press("ctrl+s")
    await it.until(lambda: isinstance(it.app.screen, Confirm))
    assert flat(t("training_screen.start_question", name="drkun/starter-starter-cpu")) in it.seen("#dialog")
    await it.press("y")


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_a_run_from_the_form_to_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads that spin while they wait for each other take the cores of the screen that is looked at.
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    async with chat(loaded=False, size=(120, 40)) as it:
        await begin(it, steps="2", epochs="", batch="2", context="128", rank="4")
        await it.until(lambda: isinstance(it.app.screen, TrainingScreen))
        await it.until(lambda: "drkun/starter-starter-cpu" in it.seen("#runs"))
        (run,) = await runs.Runs().all()
        async for _ in runs.Runs().follow(run.id):
            # Its own pace is the trainer's; what is painted is looked at when it is through.
            assert it.app._exception is None
        await it.until(lambda: flat(t("runs.phase_done")) in it.seen("#runs"))
        await it.until(lambda: "2/2" in it.seen("#numbers"))
        assert any("\u2801" <= char <= "\u28ff" for char in it.seen("#loss"))
        history, _ = await runs.Runs().history(run.id)
        assert isinstance(history.end, Finished)
        assert [step.step for step in history.steps] == [1, 2]
        assert (run.recipe.adapter.rank, run.recipe.training.context_length) == (4, 128)
        adapter = preflight.adapter_folder("drkun/starter-starter-cpu")
        assert (adapter / "adapter_model.safetensors").stat().st_size > 10_000


# Room


def test_who_is_asked_to_leave() -> None:
    tight, roomy = Room(6 * GIB, 5 * GIB, on_gpu=True), Room(6 * GIB, 7 * GIB, on_gpu=True)
    assert tight.asks_for(2 * GIB)
    assert not tight.asks_for(0)
    assert not roomy.asks_for(2 * GIB)


def test_room_is_looked_for_on_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe.presets()["starter-cpu"]
    here = hardware.read()
    plain = dataclasses.replace(here, gpus=[])
    monkeypatch.setattr(hardware, "read", lambda: plain)
    assert preflight.room(made, Settings()).on_gpu is False
    assert preflight.room(made, Settings()).free == plain.ram_available
    card = Gpu("card", 8 * GIB, 3 * GIB, "nvidia 1", "nvidia")
    monkeypatch.setattr(hardware, "read", lambda: dataclasses.replace(here, gpus=[card]))
    room = preflight.room(made, Settings())
    assert (room.on_gpu, room.free) == (True, 3 * GIB)
    assert 0 < room.needed < 3 * GIB


def with_memory(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    here: Hardware = dataclasses.replace(hardware.read(), gpus=[], ram_available=available)
    monkeypatch.setattr(hardware, "read", lambda: here)


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("n", True)])
async def test_the_model_that_answers_may_be_asked_to_leave(
    child: MakeChild, monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool
) -> None:
    monkeypatch.setattr(runs, "JOB", child(training_runs.CHILD))
    async with chat() as it:
        engine = it.app.session.engine
        assert engine.loaded
        with_memory(monkeypatch, GIB // 4)
        await begin(it)
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert flat(t("room.unload", name="starter")) in it.seen("#dialog")
        await it.press(answer)
        await it.until(lambda: "drkun/starter-starter-cpu" in it.seen("#runs"))
        assert engine.loaded is stays
        with_memory(monkeypatch, 64 * GIB)
        await it.press("escape")
        # The next question loads it again.
        assert (await it.ask("你好")).answer


async def test_nobody_is_asked_where_there_is_room(child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "JOB", child(training_runs.CHILD))
    async with chat() as it:
        with_memory(monkeypatch, 64 * GIB)
        await begin(it)
        await it.until(lambda: "drkun/starter-starter-cpu" in it.seen("#runs"))
        assert it.app.session.engine.loaded
