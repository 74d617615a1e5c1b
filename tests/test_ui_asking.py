"""Asking, watching the answer come, stopping it, carrying on, asking again."""

from __future__ import annotations

import pytest

from drkun_tui.consult import safety
from drkun_tui.consult.conversation import State
from drkun_tui.engine import client
from drkun_tui.engine.base import weights_read
from drkun_tui.engine.protocol import Loading
from drkun_tui.i18n import t
from drkun_tui.ui.progress import loading_text
from tests.conftest import MakeChild
from tests.ui_helpers import DIZZY, RAMBLING, Chat, chat, flat, is_running, plainly

RAMBLE = plainly(sampling=RAMBLING, think=False)


async def test_a_question_is_reasoned_and_answered_on_the_screen() -> None:
    async with chat() as it:
        assert "tok/s" not in it.header()
        turn = await it.ask(DIZZY)
        assert turn.state is State.DONE
        assert turn.question == DIZZY
        assert "".join(turn.reasoning.split()) in it.seen("#reasoning-text")
        transcript = it.seen("#transcript")
        assert transcript.startswith("问" + DIZZY + "答")
        assert "".join(turn.answer.split()) in transcript
        assert it.prompt.text == ""
        header = it.header()
        assert "starter" in header and "CPU" in header and "tok/s" in header
        used = turn.usage["prompt_tokens"] + turn.usage["thinking_tokens"] + turn.usage["answer_tokens"]
        assert f"{used / 1000:.1f}k/2.0k" in header


async def test_reasoning_and_answer_are_painted_while_they_come() -> None:
    async with chat(plainly(sampling=RAMBLING)) as it:
        await it.type(DIZZY + "\r")
        await it.until(
            lambda: it.app.session.turn and len(it.seen("#transcript")) > 100 and "tok/s" in it.header()
        )
        assert it.last.state is State.STREAMING
        await it.press("escape")


async def test_the_pane_is_live_while_it_thinks() -> None:
    async with chat(size=(120, 36)) as it:
        await it.type(DIZZY + "\r")
        title = it.pane.query_one("ReasoningTitle")
        await it.until(lambda: title.has_class("-live"))
        assert "思考中" in it.seen("ReasoningTitle")
        await it.until(lambda: not title.has_class("-live"))
        assert "思考中" not in it.seen("ReasoningTitle")


async def test_says_that_the_model_is_a_demonstration() -> None:
    async with chat() as it:
        assert t("consult.demonstration_short") in it.header()
        await it.ask("你好")
        assert t("consult.demonstration") in it.seen("#transcript")


async def test_an_emergency_is_told_with_the_question() -> None:
    async with chat(RAMBLE) as it:
        await it.type("胸口剧烈疼痛，出冷汗\r")
        await it.until(lambda: it.app.session.turn)
        advice = "".join(safety.advice(["chest_pain"], "zh").split())
        await it.until(lambda: advice in it.seen("#transcript"))
        assert it.app.session.turn, "it is told before the answer has ended"
        assert "120" in advice
        await it.press("escape")


async def test_an_ordinary_question_is_no_emergency() -> None:
    async with chat() as it:
        await it.ask("你好")
        assert "120" not in it.seen("#transcript")


# While the model loads


async def test_one_can_type_and_send_while_the_model_loads() -> None:
    async with chat(loaded=False) as it:
        await it.type("你好")
        assert not it.app.session.engine.loaded
        assert "你好" in it.seen("#prompt")
        await it.type("\r")
        assert not it.app.session.engine.loaded
        await it.until(lambda: it.turns)
        turn = await it.answered()
        assert turn.question == "你好"
        assert turn.state is State.DONE and turn.answer


async def test_loading_shows_its_progress() -> None:
    async with chat(loaded=False) as it:
        stages = [t(f"consult.loading_{stage}") for stage in ("start", "weights", "warmup")]
        await it.until(lambda: any(stage in it.header() for stage in stages))
        await it.loaded()
        await it.until(lambda: not any(stage in it.header() for stage in stages))


async def test_a_question_can_be_taken_back_while_the_model_loads() -> None:
    async with chat(loaded=False) as it:
        await it.type("你好\r")
        await it.until(lambda: it.app.session.turn)
        assert not it.app.session.engine.loaded
        await it.press("escape")
        turn = await it.answered()
        assert (turn.state, turn.answer) == (State.CANCELLED, "")
        assert t("consult.state_cancelled") in it.seen("#transcript")
        await it.until(lambda: "load" not in it.working())
        assert it.app.session.engine.pid is None
        assert (await it.ask("你好")).state is State.DONE


SILENT = """
    import time
    time.sleep(600)
"""


async def test_escape_stops_a_load_that_says_nothing(
    child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = "Esc" + t("keys.stop")
    with monkeypatch.context() as patched:
        patched.setattr(client, "HOST", child(SILENT))
        async with chat(loaded=False) as it:
            await it.until(lambda: it.app.session.engine.pid)
            await it.until(lambda: t("consult.loading_start") in it.header() and stop in it.hints())
            pid = it.engine
            await it.press("escape")
            assert flat(t("consult.load_stopped")) in it.notice()
            await it.until(lambda: "load" not in it.working())
            assert not is_running(pid)
            assert f"starter{t('consult.not_loaded')}" in it.header()
            assert stop not in it.hints()
            patched.undo()
            assert (await it.ask("你好")).state is State.DONE
            assert t("consult.not_loaded") not in it.header()


async def test_a_model_that_is_chosen_after_a_stopped_load_is_loaded(
    child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(client, "HOST", child(SILENT))
        async with chat(loaded=False) as it:
            await it.until(lambda: it.app.session.engine.pid)
            await it.press("escape")
            await it.until(lambda: it.app.session.engine.pid is None)
            patched.undo()
            it.app.load_model()
            await it.loaded()


def test_loading_is_told_in_bytes_and_shards() -> None:
    sizes = [4_000_000_000, 3_000_000_000, 500_000_000]
    assert loading_text(weights_read(0.0, sizes)) == f"{t('consult.loading_weights')} 0.0 / 7.5 GB，分片 1/3"
    assert loading_text(weights_read(0.6, sizes)).endswith("4.5 / 7.5 GB，分片 2/3")
    assert loading_text(weights_read(1.0, sizes)).endswith("7.5 / 7.5 GB，分片 3/3")
    assert loading_text(weights_read(0.5, sizes[2:])).endswith(" 250 / 500 MB")
    assert loading_text(weights_read(0.5, [])).endswith(" 50%")
    assert loading_text(Loading("warmup", 0.0)) == t("consult.loading_warmup")


# Keys in a burst


async def test_a_burst_of_keys_keeps_its_order() -> None:
    async with chat(RAMBLE) as it:
        await it.type("头晕\n三天\r还有一点恶心")
        await it.until(lambda: it.turns)
        assert it.last.question == "头晕\n三天"
        await it.until(lambda: it.prompt.text == "还有一点恶心")
        await it.press("escape")
        await it.answered()


async def test_a_second_question_sent_at_once_is_given_back() -> None:
    async with chat(RAMBLE) as it:
        await it.type("头晕三天\r还有恶心\r")
        await it.streaming()
        assert [turn.question for turn in it.turns] == ["头晕三天"]
        assert it.prompt.text == "还有恶心"
        await it.press("escape")
        await it.answered()
        assert [turn.question for turn in it.turns] == ["头晕三天"]
        assert len(it.app.store.summaries()) == 1


async def test_a_question_sent_during_an_answer_is_given_back_and_told() -> None:
    async with chat(RAMBLE) as it:
        await it.type("头晕三天\r")
        await it.streaming()
        await it.type("还有恶心\r吗")
        await it.until(lambda: t("consult.busy") in it.notice())
        assert it.prompt.text == "还有恶心吗"
        assert len(it.turns) == 1
        await it.press("escape")


# Stopping, carrying on, asking again


async def stopped(it: Chat) -> str:
    """An answer that was stopped in its middle."""
    await it.type(DIZZY + "\r")
    await it.streaming()
    await it.press("escape")
    turn = await it.answered()
    assert turn.state is State.CANCELLED
    return turn.answer


async def test_escape_stops_and_keeps_what_has_come() -> None:
    async with chat(RAMBLE) as it:
        answer = await stopped(it)
        assert len(answer) >= 20
        shown = it.seen("#transcript")
        assert "".join(answer.split())[-20:] in shown
        assert t("consult.state_cancelled") in shown
        assert is_running(it.engine), "stopping an answer does not unload the model"
        kept = it.app.store.load(it.app.session.conversation.id).turns[0]
        assert (kept.answer, kept.state) == (answer, State.CANCELLED)


async def test_a_stopped_answer_is_carried_on() -> None:
    async with chat(RAMBLE) as it:
        answer = await stopped(it)
        assert "^G" in it.hints()
        await it.press("ctrl+g")
        await it.until(lambda: len(it.last.answer) > len(answer))
        assert it.last.state is State.STREAMING
        assert t("consult.state_cancelled") not in it.seen("#transcript")
        await it.press("escape")
        turn = await it.answered()
        assert turn.answer.startswith(answer) and len(turn.answer) > len(answer)
        assert len(it.turns) == 1


async def test_a_finished_answer_is_not_carried_on() -> None:
    async with chat() as it:
        turn = await it.ask("你好")
        answer = turn.answer
        assert "^G" not in it.hints()
        await it.press("ctrl+g")
        assert it.app.session.turn is None
        assert it.last.answer == answer


async def test_another_answer_to_the_same_question() -> None:
    async with chat() as it:
        first = await it.ask("你好")
        assert "^R" in it.hints()
        await it.press("ctrl+r")
        await it.until(lambda: it.turns and it.last is not first)
        second = await it.answered()
        assert second.question == first.question and second.answer
        assert it.turns == [second]
        assert it.seen("#transcript").count("问你好") == 1
        kept = it.app.store.load(it.app.session.conversation.id).turns
        assert [turn.id for turn in kept] == [second.id]


async def test_the_last_question_can_be_edited() -> None:
    async with chat() as it:
        first = await it.ask("你好")
        await it.type("草稿")
        await it.press("ctrl+b")
        assert it.prompt.text == "你好"
        assert t("consult.editing") in it.notice()
        await it.type("啊\r")
        await it.until(lambda: it.turns and it.last is not first)
        turn = await it.answered()
        assert [turn.question for turn in it.turns] == ["你好啊"]
        assert turn.state is State.DONE
        assert it.seen("#transcript").startswith("问你好啊")
        summaries = it.app.store.summaries()
        assert [(summary.title, summary.turn_count) for summary in summaries] == [("你好啊", 1)]


async def test_editing_can_be_given_up() -> None:
    async with chat() as it:
        await it.ask("你好")
        await it.press("ctrl+b", "escape")
        assert it.prompt.text == ""
        assert it.notice() == ""
        await it.ask("谢谢")
        assert [turn.question for turn in it.turns] == ["你好", "谢谢"]


async def test_a_follow_up_is_told_what_was_said_before() -> None:
    async with chat() as it:
        first = await it.ask("你好")
        second = await it.ask("谢谢")
        assert second.usage["prompt_tokens"] > first.usage["prompt_tokens"] + first.usage["answer_tokens"]
        assert second.usage["reused_tokens"] > first.usage["prompt_tokens"]


async def test_leaving_ends_the_engine_and_keeps_the_answer() -> None:
    async with chat(RAMBLE) as it:
        await it.type(DIZZY + "\r")
        turn = await it.streaming()
        engine = it.engine
        await it.press("ctrl+q")
        assert not is_running(engine)
        assert it.app.return_code == 0
        assert turn.state is State.CANCELLED
    async with chat(loaded=False) as it:
        summary = it.app.store.summaries()[0]
        kept = it.app.store.load(summary.id).turns[0]
        assert kept.state is State.CANCELLED and len(kept.answer) >= 20


async def test_a_program_ended_in_mid_answer_ends_quietly() -> None:
    async with chat(RAMBLE) as it:
        await it.type(DIZZY + "\r")
        turn = await it.streaming()
        it.app.exit()
    assert turn.state is State.CANCELLED
