"""What goes wrong is told in a line, nothing is lost, and one can go on."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import msgspec
import pytest

from drkun_tui import paths, settings
from drkun_tui.consult.conversation import State
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.settings import Settings
from tests.conftest import starter_with
from tests.ui_helpers import (
    DIZZY,
    GREEDY,
    RAMBLING,
    Chat,
    chat,
    gguf_folder,
    is_running,
    plainly,
    settings_on_disk,
    stored,
)

RAMBLE = plainly(sampling=RAMBLING, think=False)


def flat(text: str) -> str:
    return "".join(text.split())


async def opened(it: Chat) -> None:
    """Open the newest conversation from the list."""
    await it.until(lambda: t("consult.no_conversations") not in it.seen("#list"))
    await it.press("ctrl+l", "ctrl+l", "home", "enter")
    await it.until(lambda: it.turns)


# The engine


async def test_an_engine_killed_in_mid_answer_costs_a_message() -> None:
    async with chat(RAMBLE) as it:
        await it.type(DIZZY + "\r")
        turn = await it.streaming()
        engine = it.engine
        os.kill(engine, signal.SIGKILL)
        await it.answered()
        told = flat(t("engine.engine_died", how="SIGKILL"))
        assert told in it.notice() and flat(t("engine.engine_died_hint")) in it.notice()
        assert turn.state is State.INTERRUPTED and len(turn.answer) >= 20
        shown = it.seen("#transcript")
        assert flat(turn.answer) in shown and flat(t("consult.state_interrupted")) in shown
        kept = it.app.store.load(it.app.session.conversation.id).turns[0]
        assert (kept.answer, kept.state) == (turn.answer, State.INTERRUPTED)
        await it.type("你好\r")
        await it.until(lambda: len(it.turns) == 2)
        await it.streaming()
        assert it.engine != engine
        assert it.notice() == ""
        await it.press("escape")
        assert (await it.answered()).answer


async def test_an_interrupted_answer_is_carried_on_by_another_engine() -> None:
    async with chat(RAMBLE) as it:
        await it.type(DIZZY + "\r")
        turn = await it.streaming()
        os.kill(it.engine, signal.SIGKILL)
        await it.answered()
        before = turn.answer
        await it.press("ctrl+g")
        await it.until(lambda: len(turn.answer) > len(before))
        await it.press("escape")
        await it.answered()
        assert turn.answer.startswith(before)
        assert turn.error == ""


async def test_an_engine_killed_while_idle_is_started_again() -> None:
    async with chat() as it:
        engine = it.engine
        os.kill(engine, signal.SIGKILL)
        await it.until(lambda: not is_running(engine))
        turn = await it.ask("你好")
        assert turn.question == "你好"
        if turn.state is not State.DONE:
            # The question may come before it is known that the engine has died.
            assert flat(t("engine.engine_died", how="SIGKILL")) in it.notice()
            await it.press("ctrl+r")
            await it.until(lambda: it.turns and it.last is not turn)
            turn = await it.answered()
        assert turn.state is State.DONE and it.engine != engine


# Models


def broken(kind: str) -> Path:
    file = gguf_folder() / "mine.gguf"
    whole = paths.starter().read_bytes()
    content = {"text": "网页".encode(), "empty": b"", "truncated": whole[: len(whole) // 2]}
    if kind != "missing":
        file.write_bytes(content[kind])
    return file


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "missing"])
async def test_a_model_that_is_not_one_falls_back_to_the_bundled_one(kind: str) -> None:
    async with chat(plainly(model=str(broken(kind)))) as it:
        await it.until(lambda: it.notice())
        assert "mine.gguf" in it.notice()
        assert flat(t("plan.fell_back", reason="")) in it.notice()
        assert "starter" in it.header()
        turn = await it.ask("你好")
        assert turn.state is State.DONE and turn.model == "starter"
        assert not paths.settings_file().exists(), "the choice is kept as it was"


async def test_a_model_whose_template_does_not_parse_is_told() -> None:
    starter_with(gguf_folder() / "odd.gguf", tokenizer__chat_template="{% for %}")
    async with chat(plainly(model="odd"), loaded=False) as it:
        await it.until(lambda: flat(t("engine.template_broken", reason="")) in it.notice())
        await it.type("你好\r")
        await it.until(lambda: it.turns)
        turn = await it.answered()
        assert turn.state is State.FAILED and turn.error
        assert flat(t("consult.state_failed")) in it.seen("#transcript")
        await it.press("f3")
        await it.until(lambda: "starter" in it.seen("#models"))
        await it.press("end", "enter")
        await it.loaded()
        await it.press("ctrl+r")
        await it.until(lambda: it.turns and it.last is not turn)
        assert (await it.answered()).state is State.DONE


async def test_a_model_without_a_template_is_told() -> None:
    starter_with(gguf_folder() / "bare.gguf", tokenizer__chat_template=None)
    async with chat(plainly(model="bare")) as it:
        await it.until(lambda: flat(t("engine.no_template")) in it.notice())
        assert (await it.ask("你好")).answer


async def test_a_gpu_without_its_kernels_is_told() -> None:
    async with chat(plainly()) as it:
        await it.loaded()
        ready = it.app.session.engine.ready
        assert ready is not None
        it.app.show_loading(msgspec.structs.replace(ready, not_fused="no C compiler"))
        await it.until(lambda: flat(t("engine.not_fused", reason="no C compiler")) in it.notice())


async def test_a_profile_that_does_not_work_here_falls_back() -> None:
    async with chat(plainly(profile="gpu8", model="gone")) as it:
        await it.until(lambda: flat(t("plan.fell_back", reason="")) in it.notice())
        assert "starter" in it.header() and "CPU" in it.header()


# The context


async def test_a_question_longer_than_the_context_is_given_back() -> None:
    long = "我头晕。" * 400
    async with chat(plainly(context_length=512)) as it:
        await it.type(f"\x1b[200~{long}\x1b[201~\r")
        await it.until(lambda: it.turns)
        turn = await it.answered()
        assert turn.state is State.FAILED
        await it.until(lambda: it.notice())
        assert flat(turn.error) in it.notice() and "448" in turn.error
        assert flat(t("engine.prompt_too_long_hint")) in it.notice()
        assert it.prompt.text == long
        it.prompt.clear()
        assert (await it.ask("你好")).state is State.DONE


async def test_a_full_context_says_how_many_turns_have_left() -> None:
    stored(*((f"问题{number}", "头晕时先坐下休息，再量血压。" * 6) for number in range(8)))
    async with chat(plainly(context_length=512, sampling=GREEDY)) as it:
        await opened(it)
        turn = await it.ask("我胃痛")
        assert turn.state is State.DONE
        assert 0 < turn.dropped_turns <= 8
        assert flat(t("consult.dropped", count=turn.dropped_turns)) in it.seen("#transcript")
        assert len(it.turns) == 9, "they leave the context, not the screen"
        used = turn.usage["prompt_tokens"]
        assert used < 512
        again = await it.ask("你好")
        assert again.dropped_turns >= turn.dropped_turns
        assert it.app.store.load(it.app.session.conversation.id).context_start == again.dropped_turns


# The disk


async def test_a_database_of_a_newer_version_is_left_alone() -> None:
    stored(("头晕怎么办", "先量血压。"))
    with sqlite3.connect(paths.database()) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    before = paths.database().read_bytes()
    async with chat() as it:
        await it.until(lambda: it.notice())
        assert "999" in it.notice() and flat(t("consult.not_kept")) in it.notice()
        turn = await it.ask("你好")
        assert turn.state is State.DONE
        assert "你好" in it.seen("#list")
    assert paths.database().read_bytes() == before


async def test_a_damaged_database_is_left_alone() -> None:
    paths.database().write_bytes(b"SQLite format 3\0" + b"?" * 5000)
    before = paths.database().read_bytes()
    async with chat(loaded=False) as it:
        await it.until(lambda: flat(t("consult.not_kept")) in it.notice())
    assert paths.database().read_bytes() == before


async def test_a_disk_that_fills_up_is_told_and_nothing_leaves_the_screen() -> None:
    async with chat(RAMBLE) as it:
        await it.type(DIZZY + "\r")
        turn = await it.streaming()
        db = it.app.store._db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        await it.until(lambda: flat(t("store.full")) in it.notice())
        had = len(turn.answer)
        assert it.app.session.turn, "the answer goes on"
        await it.until(lambda: len(turn.answer) > had + 20)
        await it.press("escape")
        await it.answered()
        assert flat(turn.answer)[-20:] in it.seen("#transcript")
        assert flat(t("store.full_hint")) in it.notice()
        # It is kept as soon as there is room again.
        db.execute("PRAGMA max_page_count = 1000000")
        await it.type("你好\r")
        await it.until(lambda: len(it.turns) == 2)
        await it.streaming()
        await it.press("escape")
        await it.answered()
        kept = it.app.store.load(it.app.session.conversation.id).turns
        assert [turn.answer for turn in kept] == [turn.answer for turn in it.turns]


async def test_broken_settings_are_told_and_left_alone() -> None:
    file = paths.settings_file()
    file.write_text("theme = [oops", "utf8")
    with pytest.raises(DrkunError) as told:
        settings.load(file)
    # As `drkun` starts it.
    async with chat(Settings(), notice=told.value, kept=False) as it:
        assert flat(str(file)) in it.notice()
        await it.press("f10")
        assert it.app.settings.think is False
        await it.press("f6")
        assert t("settings.think_false") in it.seen("#settings")
    assert file.read_text("utf8") == "theme = [oops"


async def test_settings_that_cannot_be_written_are_told_and_hold() -> None:
    paths.settings_file().mkdir()
    async with chat(loaded=False) as it:
        await it.press("ctrl+t")
        assert flat(t("error.settings_unsaved", reason="")) in it.notice()
        assert it.pane.has_class("-collapsed")


async def test_settings_survive_all_at_once() -> None:
    async with chat(loaded=False) as it:
        await it.press("ctrl+t", "f10", "ctrl+l")
    assert settings_on_disk() == plainly(reasoning="collapsed", think=False, conversation_list=False)
    async with chat(settings_on_disk(), loaded=False) as it:
        assert it.pane.has_class("-collapsed")
        assert it.seen("#list") == ""


async def test_an_answer_that_another_program_left_is_marked_as_interrupted() -> None:
    conversation = stored(
        ("头晕怎么办", "先量"), state=State.STREAMING, sampling={"temperature": 0, "think": False}
    )
    with sqlite3.connect(paths.database()) as db:
        db.execute("UPDATE turns SET writer = '1 gone'")
    db.close()
    async with chat() as it:
        await opened(it)
        assert it.app.session.conversation.id == conversation.id
        assert flat(t("consult.state_interrupted")) in it.seen("#transcript")
        assert "^G" in it.hints()
        await it.press("ctrl+g")
        # The rest of the answer may come and end between two looks.
        await it.until(lambda: it.app.session.last and it.app.session.last.state is State.DONE)
        turn = await it.answered()
        assert turn.answer.startswith("先量") and turn.state is State.DONE
