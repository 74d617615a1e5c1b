"""The reasoning pane beside the transcript, following the stream, choosing earlier answers, copying."""

from __future__ import annotations

import re

from drkun_tui.i18n import t
from tests.ui_helpers import DIZZY, RAMBLING, Chat, chat, plainly, settings_on_disk, stored

RAMBLE = plainly(sampling=RAMBLING, think=False)
CODE = "先量血压：\n\n```python\nprint('一')\n```\n\n再记下：\n\n```\nsys 120\ndia 80\n```\n"
USED = {"prompt_tokens": 20, "thinking_tokens": 41, "answer_tokens": 9}


def two_answers() -> None:
    """Two turns, whose reasoning differs."""
    stored(("头晕怎么办", "多休息。"), ("胃痛怎么办", CODE), reasoning="甲的思考", usage=USED)


async def opened(it: Chat) -> None:
    """Open the newest conversation from the list."""
    await it.until(lambda: t("consult.no_conversations") not in it.seen("#list"))
    await it.press("ctrl+l", "ctrl+l", "home", "enter")
    await it.until(lambda: it.turns)


async def test_the_reasoning_is_collapsed_and_shown_again() -> None:
    async with chat() as it:
        turn = await it.ask(DIZZY)
        beginning = turn.reasoning.strip()[:8]
        wide = it.transcript.size.width
        await it.press("ctrl+t")
        assert beginning not in it.seen()
        assert f"{turn.usage['thinking_tokens']}tok" in it.seen("ReasoningTitle")
        assert it.transcript.size.width > wide
        assert settings_on_disk().reasoning == "collapsed"
        await it.press("ctrl+t")
        assert beginning in it.seen("#reasoning-text")
        assert it.transcript.size.width == wide


async def test_the_reasoning_is_hidden_and_shown_again() -> None:
    async with chat() as it:
        turn = await it.ask(DIZZY)
        beginning = turn.reasoning.strip()[:8]
        await it.press("f7")
        assert it.seen("#reasoning") == ""
        assert beginning not in it.seen()
        assert settings_on_disk().reasoning == "hidden"
        await it.press("f7")
        assert beginning in it.seen("#reasoning-text")
    async with chat(plainly(reasoning="hidden"), loaded=False) as it:
        assert it.seen("#reasoning") == ""


async def test_the_reasoning_is_enlarged_and_put_back() -> None:
    async with chat() as it:
        turn = await it.ask(DIZZY)
        narrow = it.reasoning.size.width
        await it.press("f8")
        assert it.seen("#transcript") == ""
        assert "".join(turn.reasoning.split()) in it.seen("#reasoning-text")
        assert it.reasoning.size.width > 2 * narrow
        await it.press("f8")
        assert it.reasoning.size.width == narrow
        assert "".join(turn.answer.split())[:20] in it.seen("#transcript")
        await it.press("f8", "escape")
        assert it.reasoning.size.width == narrow


async def test_time_and_tokens_of_the_reasoning_are_shown() -> None:
    async with chat() as it:
        turn = await it.ask(DIZZY)
        tokens, seconds = turn.usage["thinking_tokens"], turn.timings["thinking_s"]
        assert tokens > 5
        assert f"{seconds:.1f}s{tokens}tok" in it.seen("ReasoningTitle")


async def test_an_earlier_answer_shows_its_reasoning_again() -> None:
    async with chat() as it:
        first, second = await it.ask(DIZZY), await it.ask("我最近胃痛")
        assert "".join(second.reasoning.split()) in it.seen("#reasoning-text")
        await it.press("alt+up")
        assert it.seen("#reasoning-text") == "".join(first.reasoning.split())
        assert f"{first.usage['thinking_tokens']}tok" in it.seen("ReasoningTitle")
        assert it.seen("#transcript").count("答>") == 1
        await it.press("alt+up")
        assert it.seen("#reasoning-text") == "".join(first.reasoning.split())
        await it.press("alt+down")
        assert it.seen("#reasoning-text") == "".join(second.reasoning.split())
        assert "答>" not in it.seen("#transcript")


async def test_an_answer_without_reasoning_says_so() -> None:
    stored(("头晕怎么办", "多休息。"))
    async with chat(loaded=False) as it:
        assert t("consult.no_turn") in it.seen("#reasoning-text")
        await opened(it)
        assert it.seen("#reasoning-text") == t("consult.no_reasoning")
        assert not re.search(r"\d", it.seen("ReasoningTitle"))


# Following


async def test_follows_the_stream_while_the_reader_is_at_the_end() -> None:
    async with chat(RAMBLE, size=(80, 20)) as it:
        view = it.transcript
        await it.type(DIZZY + "\r")
        await it.until(lambda: view.scroll_offset.y > 3)
        assert it.app.session.turn
        assert view.at_end
        before = view.scroll_offset.y
        await it.until(lambda: view.scroll_offset.y > before + 3)
        assert view.at_end
        await it.press("escape")
        await it.answered()
        assert view.at_end


async def test_a_reader_who_scrolled_up_is_left_there_and_follows_again() -> None:
    async with chat(RAMBLE, size=(80, 20)) as it:
        view = it.transcript
        await it.type(DIZZY + "\r")
        await it.until(lambda: view.max_scroll_y > 12)
        await it.press("pageup")
        await it.scrolled(view)
        there, lines = view.scroll_offset.y, len(view.lines)
        shown = it.seen("#transcript")
        await it.until(lambda: len(view.lines) > lines + 8)
        assert view.scroll_offset.y == there
        assert it.seen("#transcript") == shown
        assert it.app.session.turn
        await it.press("ctrl+end")
        await it.until(lambda: view.at_end)
        lines = len(view.lines)
        await it.until(lambda: len(view.lines) > lines + 3)
        assert view.at_end
        await it.press("pageup")
        await it.press("escape")
        await it.answered()
        assert not view.at_end


async def test_the_reasoning_follows_its_own_end() -> None:
    long = "".join(f"第{number}步，先想一想。\n" for number in range(60))
    stored(("头晕怎么办", "多休息。"), reasoning=long)
    async with chat(loaded=False) as it:
        await opened(it)
        assert it.reasoning.at_end
        assert "第59步" in it.seen("#reasoning-text")
        it.reasoning.focus()
        await it.press("home")
        await it.scrolled(it.reasoning)
        assert it.seen("#reasoning-text").startswith("第0步")
        await it.press("pagedown")
        await it.scrolled(it.reasoning)
        assert 0 < it.reasoning.scroll_offset.y < it.reasoning.max_scroll_y


async def test_earlier_turns_come_when_the_beginning_is_reached() -> None:
    stored(*((f"问题{number}。", f"回答{number}。") for number in range(70)))
    async with chat(loaded=False, animated=True) as it:
        await opened(it)
        assert "回答69。" in it.seen("#transcript")
        assert "问题39。" not in _text(it)
        it.transcript.focus()
        await it.press("home")
        await it.until(lambda: "问题39。" in _text(it))
        for _ in range(2):
            await it.scrolled(it.transcript)
            await it.press("home")
        await it.until(lambda: "问题0。" in _text(it))
        await it.scrolled(it.transcript)
        await it.press("home")
        await it.until(lambda: "问题0。" in it.seen("#transcript"))


def _text(it: Chat) -> str:
    return "".join(span.text for line in it.transcript.lines for span in line)


# Copying


async def test_the_chosen_answer_is_copied() -> None:
    two_answers()
    async with chat(loaded=False) as it:
        await opened(it)
        await it.press("ctrl+o")
        assert it.app.clipboard == CODE.strip()
        assert t("consult.copied_answer") in it.notice()
        await it.press("alt+up", "ctrl+o")
        assert it.app.clipboard == "多休息。"


async def test_the_last_code_block_is_copied() -> None:
    two_answers()
    async with chat(loaded=False) as it:
        await opened(it)
        await it.press("alt+o")
        assert it.app.clipboard.strip("\n") == "sys 120\ndia 80"
        assert t("consult.copied_code") in it.notice()
        await it.press("alt+up", "alt+o")
        assert t("consult.nothing_to_copy") in it.notice()
        assert it.app.clipboard.strip("\n") == "sys 120\ndia 80"


async def test_there_is_nothing_to_copy_at_first() -> None:
    async with chat() as it:
        for key in ("ctrl+o", "alt+o"):
            await it.press(key)
            assert t("consult.nothing_to_copy") in it.notice()
            await it.press("escape")
            assert it.notice() == ""
        assert it.app.clipboard == ""
