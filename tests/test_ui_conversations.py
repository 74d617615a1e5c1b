"""The list of conversations: new ones, opening, searching, deleting."""

from __future__ import annotations

from textual.widgets import Input, OptionList

from drkun_tui.i18n import t
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.widgets.notice import Notice
from tests.ui_helpers import RAMBLING, Chat, chat, plainly, settings_on_disk, stored


async def listed(it: Chat) -> OptionList:
    """The list, filled, with the focus."""
    await it.until(lambda: t("consult.no_conversations") not in it.seen("#list"))
    listing = it.screen.query_one(OptionList)
    listing.focus()
    await it.pilot.pause()
    return listing


async def test_an_empty_list_says_so_and_the_first_question_stands_in_it() -> None:
    async with chat() as it:
        assert t("consult.no_conversations") in it.seen("#list")
        await it.ask("头晕怎么办？")
        shown = it.seen("#list")
        assert t("consult.today") + "头晕怎么办" in shown
        assert t("consult.no_conversations") not in shown


async def test_a_conversation_stands_in_the_list_while_it_is_answered() -> None:
    async with chat(plainly(sampling=RAMBLING)) as it:
        await it.type("头晕怎么办？\r")
        await it.streaming()
        assert "头晕怎么办" in it.seen("#list")
        assert it.app.session.turn
        await it.press("escape")


async def test_a_new_conversation_and_back_to_the_old_one() -> None:
    async with chat() as it:
        old = await it.ask("头晕怎么办？")
        await it.press("ctrl+n")
        assert not it.turns
        assert t("welcome.title") in it.seen("#transcript")
        assert t("consult.no_turn") in it.seen("#reasoning")
        await it.ask("胃痛三天")
        shown = it.seen("#list")
        assert "胃痛三天" in shown and "头晕怎么办" in shown
        assert shown.index("胃痛三天") < shown.index("头晕怎么办"), "the newest is on top"
        await listed(it)
        await it.press("end", "enter")
        await it.until(lambda: it.last.question == old.question)
        assert it.seen("#transcript").startswith("问头晕怎么办？答" + "".join(old.answer.split()))
        assert it.seen("#reasoning-text") == "".join(old.reasoning.split())
        assert it.prompt.has_focus
        await it.ask("还有恶心")
        assert len(it.turns) == 2
        assert [summary.turn_count for summary in it.app.store.summaries()] == [2, 1]


async def test_a_new_conversation_takes_the_system_prompt_of_the_settings() -> None:
    async with chat(plainly(system="你是医生。")) as it:
        await it.ask("你好")
        assert it.app.store.load(it.app.session.conversation.id).system == "你是医生。"


async def test_no_other_conversation_is_opened_during_an_answer() -> None:
    stored(("胃痛三天", "少食。"))
    async with chat(plainly(sampling=RAMBLING)) as it:
        await it.type("头晕怎么办\r")
        await it.streaming()
        for keys in (["ctrl+n"], ["ctrl+l", "ctrl+l", "end", "enter"]):
            await it.press(*keys)
            assert t("consult.busy") in it.notice()
            assert it.last.question == "头晕怎么办"
            it.screen.query_one(Notice).clear()
        await it.press("escape")


async def test_search_finds_two_chinese_characters_and_opens_the_right_turn() -> None:
    stored(("发热两天", "多喝水，注意休息。"))
    stored(
        ("头晕怎么办", "先量血压。"),
        ("胃痛三天", "少食多餐，忌辛辣。"),
        *((f"还有问题{number}", "回答。" * 90) for number in range(12)),
    )
    async with chat(loaded=False) as it:
        await it.press("ctrl+s")
        assert it.screen.query_one("#search", Input).has_focus
        await it.type("血压")
        await it.until(lambda: "先量血压" in it.seen("#conversations"))
        assert "发热" not in it.seen("#conversations")
        await it.press("backspace", "backspace")
        await it.type("辛辣")
        await it.until(lambda: "忌辛辣" in it.seen("#conversations"))
        await it.press("enter", "home", "enter")
        await it.until(lambda: it.turns)
        await it.scrolled(it.transcript)
        assert [turn.question for turn in it.turns[:2]] == ["头晕怎么办", "胃痛三天"]
        assert it.transcript.chosen is it.turns[1]
        assert "问胃痛三天答>少食多餐，忌辛辣。" in it.seen("#transcript")
        assert it.prompt.has_focus


async def test_a_search_without_a_match_says_so_and_escape_shows_all_again() -> None:
    stored(("头晕怎么办", "先量血压。"))
    async with chat(loaded=False) as it:
        await listed(it)
        await it.press("ctrl+s")
        await it.type("骨折")
        await it.until(lambda: t("consult.nothing_found") in it.seen("#list"))
        await it.press("escape")
        await it.until(lambda: "头晕怎么办" in it.seen("#conversations"))
        assert it.prompt.has_focus
        assert it.screen.query_one("#search", Input).value == ""


async def test_deleting_asks_first() -> None:
    stored(("胃痛三天", "少食。"))
    kept = stored(("头晕怎么办", "先量血压。"))
    async with chat(loaded=False) as it:
        for key in ("n", "escape", "enter"):
            await listed(it)
            await it.press("home", "delete")
            await it.until(lambda: isinstance(it.app.screen, Confirm))
            assert "".join(t("consult.delete_question").split()) in it.seen()
            await it.press(key)
            if key == "enter":
                assert isinstance(it.app.screen, Confirm), "nothing is lost by habit"
                await it.press("n")
            await it.until(lambda: not isinstance(it.app.screen, Confirm))
            assert len(it.app.store.summaries()) == 2
        await listed(it)
        await it.press("end", "delete")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: "胃痛三天" not in it.seen("#list"))
        assert [summary.id for summary in it.app.store.summaries()] == [kept.id]
        assert not it.app.store.search("少食")


async def test_deleting_the_open_conversation_begins_a_new_one() -> None:
    stored(("头晕怎么办", "先量血压。"))
    async with chat(loaded=False) as it:
        await listed(it)
        await it.press("home", "enter")
        await it.until(lambda: it.turns)
        await listed(it)
        await it.press("home", "delete", "y")
        await it.until(lambda: t("welcome.title") in it.seen("#transcript"))
        await it.until(lambda: t("consult.no_conversations") in it.seen("#list"))
        assert not it.turns


async def test_a_conversation_deleted_elsewhere_is_told() -> None:
    gone = stored(("头晕怎么办", "先量血压。"))
    async with chat(loaded=False) as it:
        await listed(it)
        it.app.store.delete_conversation(gone.id)
        await it.press("home", "enter")
        await it.until(lambda: t("store.missing") in it.notice())
        assert not it.turns


async def test_a_conversation_is_renamed() -> None:
    conversation = stored(("头晕怎么办", "先量血压。"))
    async with chat(loaded=False) as it:
        for key, title in (("escape", "头晕怎么办"), ("enter", "[b]父亲的血压")):
            await listed(it)
            await it.press("home", "r")
            await it.until(lambda: isinstance(it.app.screen, AskText))
            it.app.screen.query_one(Input).clear()
            await it.type("[b]父亲的血压")
            await it.press(key)
            await it.until(lambda title=title: title in it.seen("#list"))  # type: ignore[misc]
            assert it.app.store.load(conversation.id).title == title


async def test_the_list_is_folded_and_that_is_kept() -> None:
    async with chat(loaded=False) as it:
        await it.press("ctrl+l")
        assert it.seen("#list") == ""
        assert it.prompt.has_focus
        assert settings_on_disk().conversation_list is False
    async with chat(plainly(conversation_list=False), loaded=False) as it:
        assert it.seen("#list") == ""
        await it.press("ctrl+l")
        assert t("consult.search") in it.seen("#list")
        assert settings_on_disk().conversation_list is True


async def test_a_regenerated_answer_is_not_found_any_more() -> None:
    async with chat() as it:
        await it.ask("头晕怎么办")
        await it.press("ctrl+b")
        it.prompt.replace_text("胃痛三天")
        await it.press("enter")
        await it.until(lambda: it.turns and it.last.question == "胃痛三天")
        await it.answered()
        await it.press("ctrl+s")
        await it.type("头晕怎么办")
        await it.until(lambda: t("consult.nothing_found") in it.seen("#list"))
