"""Where the question is typed: several lines, history, keys that come faster than they are handled."""

from __future__ import annotations

from tests.ui_helpers import Chat, chat, stored


async def test_control_j_begins_a_new_line() -> None:
    async with chat(loaded=False) as it:
        await it.type("头晕")
        await it.press("ctrl+j")
        await it.type("三天")
        assert it.prompt.text == "头晕\n三天"
        assert [row.strip(" >") for row in it.rows()[-4:-2]] == ["头晕", "三天"]


async def test_the_prompt_grows_with_its_text_to_eight_rows() -> None:
    async with chat(loaded=False) as it:
        assert it.prompt.size.height == 1
        await it.type("一\n二\n三")
        assert it.prompt.size.height == 3
        await it.type("\n" * 9 + "末")
        assert it.prompt.size.height == 8
        assert "末" in it.seen("#prompt"), "the line with the cursor is in sight"
        assert it.hints(), "the bottom line is still there"
        await it.type("\r")
        await it.until(lambda: it.prompt.size.height == 1)


async def test_a_long_line_is_wrapped() -> None:
    async with chat(loaded=False, size=(80, 24)) as it:
        await it.type("头晕" * 60)
        assert it.prompt.size.height == 4
        assert it.seen("#prompt") == "头晕" * 60


async def test_history_goes_back_and_returns_the_draft() -> None:
    stored(("头晕怎么办", "休息。"), ("胃痛怎么办", "少食。"))
    async with chat(loaded=False) as it:
        await it.until(lambda: it.prompt._history)
        await it.type("草稿")
        await it.press("up")
        assert it.prompt.text == "胃痛怎么办"
        await it.press("up")
        assert it.prompt.text == "头晕怎么办"
        await it.press("up")
        assert it.prompt.text == "头晕怎么办"
        await it.press("down", "down")
        assert it.prompt.text == "草稿"
        await it.press("down")
        assert it.prompt.text == "草稿"


async def test_what_was_just_sent_is_in_the_history() -> None:
    async with chat(loaded=False) as it:
        await it.type("你好\r")
        await it.until(lambda: it.turns)
        await it.press("up")
        assert it.prompt.text == "你好"
        await it.press("down")
        assert it.prompt.text == ""


async def test_arrows_move_inside_a_text_of_several_lines() -> None:
    stored(("头晕怎么办", "休息。"))
    async with chat(loaded=False) as it:
        await it.until(lambda: it.prompt._history)
        await it.type("一\n二")
        await it.press("up")
        assert it.prompt.text == "一\n二"
        assert it.prompt.cursor_location[0] == 0
        await it.press("up")
        assert it.prompt.text == "头晕怎么办"


async def test_editing_keys_in_a_burst_keep_their_order() -> None:
    async with chat(loaded=False) as it:
        await it.type("头晕x\x7f三天\n疼\x1b[D甲\x1b[C乙")
        assert it.prompt.text == "头晕三天\n甲疼乙"


async def test_nothing_is_sent_without_a_question() -> None:
    async with chat(loaded=False) as it:
        await it.type("\r \n \r")
        assert not it.turns
        assert not it.app.store.summaries()


async def test_pasted_lines_stay_one_question() -> None:
    async with chat(loaded=False) as it:
        await it.type("\x1b[200~头晕\n三天\x1b[201~")
        assert it.prompt.text == "头晕\n三天"
        assert not it.turns


async def test_a_question_with_half_a_character_is_kept() -> None:
    async with chat() as it:
        it.prompt.replace_text("头晕\ud83d")
        turn = await _sent(it)
        assert turn.startswith("头晕")
        assert it.app.store.load(it.app.session.conversation.id).turns[0].question == turn


async def _sent(it: Chat) -> str:
    await it.press("enter")
    await it.until(lambda: it.turns)
    return (await it.answered()).question
