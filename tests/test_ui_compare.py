"""The compare screen: real engines side by side, votes, narrow and wide, what goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.screen import Screen

from drkun_tui import i18n, paths
from drkun_tui.comparison import contestants, records
from drkun_tui.comparison.contestants import Contestant
from drkun_tui.comparison.records import Record, Vote
from drkun_tui.consult.conversation import State
from drkun_tui.i18n import t
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from drkun_tui.ui.screens.choose import Choose
from drkun_tui.ui.screens.compare import CompareScreen
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.contestants import ChooseContestants
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.widgets.contest_column import ComparedText, ContestColumn
from drkun_tui.ui.widgets.prompt import Prompt
from tests.gguf_files import lora
from tests.openai_server import WORDS, serving
from tests.ui_helpers import (
    RAMBLING,
    Chat,
    chat,
    flat,
    hold_on_gpu,
    is_running,
    plainly,
    settings_on_disk,
    stored,
)

DIZZY = "最近总是头晕，应该怎么办？"
TWO = ["starter", "starter+other"]


@pytest.fixture(autouse=True)
def adapter(home: Path) -> Path:
    """A LoRA in the store that changes what the bundled model says."""
    return lora(paths.model_store() / "other.gguf")


async def at_compare(it: Chat) -> CompareScreen:
    """The compare screen, once it knows who can take part."""
    await it.press("f5")
    screen = it.app.screen
    assert isinstance(screen, CompareScreen)
    await it.until(lambda: screen._possible is not None)
    return screen


async def compared(it: Chat, question: str = DIZZY) -> CompareScreen:
    """Ask in the compare screen, and wait for the end of all answers."""
    screen = it.app.screen if isinstance(it.app.screen, CompareScreen) else await at_compare(it)
    assert isinstance(screen, CompareScreen)
    screen.query_one(Prompt).focus()
    screen.query_one(Prompt).clear()
    await it.type(question + "\r")
    await it.until(lambda: screen._record is not None and "contest" not in it.working())
    await it.until(lambda: "marks" not in it.working())
    return screen


def columns(screen: CompareScreen) -> list[ContestColumn]:
    return list(screen.query(ContestColumn))


def shown(text: ComparedText) -> str:
    return "".join(span.text for line in text.lines for span in line)


def pids(screen: CompareScreen) -> list[int]:
    return screen._contest.pids if screen._contest else []


def displayed(screen: CompareScreen) -> list[bool]:
    return [column.display for column in columns(screen)]


def top(it: Chat) -> Screen[Any]:
    return it.app.screen


def kept() -> list[Record | Vote]:
    return list(records.read())


# Asking


async def test_two_models_answer_side_by_side() -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        screen = await compared(it)
        first, second = columns(screen)
        assert first.region.y == second.region.y and first.region.right <= second.region.x
        for column, name in ((first, "starter"), (second, "starter + other")):
            turn = column.turn
            assert turn is not None and turn.state is State.DONE
            assert flat(name) in it.seen()
            assert flat(turn.answer)[:30] in flat(shown(column.texts[1]))
        assert it.seen().count(flat(t("consult.demonstration"))) == 2
        assert "tok/s" in it.seen()
        # Both answers begin on one line of the screen.
        assert first.texts[1].region.y == second.texts[1].region.y
        [record] = kept()
        assert isinstance(record, Record)
        assert [answer.name for answer in record.answers] == ["starter", "starter + other"]
        assert record.sampling["seed"] == screen._seed
        assert not record.blind


async def test_differences_are_underlined_and_can_be_hidden() -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        screen = await compared(it)

        def underlined() -> str:
            return "".join(
                span.text
                for text in screen.query(ComparedText)
                for line in text.lines
                for span in line
                if "differs" in span.style
            )

        answers = [column.turn.answer for column in columns(screen) if column.turn]
        assert answers[0] != answers[1]
        assert underlined()
        await it.press("ctrl+t")
        await it.until(lambda: not underlined())
        await it.press("ctrl+t")
        await it.until(underlined)


async def test_another_seed_gives_other_answers_and_nothing_is_left_running() -> None:
    settings = plainly(contestants=TWO, sampling=Sampling(temperature=1.2, seed=1))
    async with chat(settings, loaded=False) as it:
        screen = await compared(it)
        assert screen._seed == 1
        before = [column.turn.answer for column in columns(screen) if column.turn]
        await it.press("ctrl+r")
        await it.until(lambda: len(kept()) == 2 and "contest" not in it.working())
        after = [column.turn.answer for column in columns(screen) if column.turn]
        assert screen._seed != 1
        assert after != before
        one, two = kept()
        assert isinstance(one, Record) and isinstance(two, Record)
        assert one.question == two.question == DIZZY


async def test_the_question_of_the_conversation_is_taken_up() -> None:
    stored(("高血压吃什么？", "低盐。"))
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        conversation = it.app.store.load(it.app.store.summaries()[0].id)
        it.app.session.conversation = conversation
        screen = await at_compare(it)
        assert screen.query_one(Prompt).text == "高血压吃什么？"
        assert screen.focused is screen.query_one(Prompt)


async def test_signs_of_an_emergency_are_answered_first() -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        await compared(it, "胸口突然疼得厉害，喘不上气")
        assert "120" in it.seen("#advice")
        await compared(it, "头晕")
        assert it.seen("#advice") == ""


async def test_esc_stops_all_and_keeps_what_has_come() -> None:
    async with chat(plainly(contestants=TWO, sampling=RAMBLING), loaded=False) as it:
        screen = await at_compare(it)
        await it.type(DIZZY + "\r")
        await it.until(
            lambda: (
                len(columns(screen)) == 2
                and all(c.turn and len(c.turn.reasoning + c.turn.answer) > 20 for c in columns(screen))
            )
        )
        running = pids(screen)
        assert len(running) == 2
        await it.press("escape")
        await it.until(lambda: "contest" not in it.working())
        assert [column.turn.state for column in columns(screen) if column.turn] == [State.CANCELLED] * 2
        assert not any(is_running(pid) for pid in running)
        assert top(it) is screen
        await it.press("escape")
        assert isinstance(top(it), ConsultScreen)


async def test_leaving_the_screen_ends_its_engines() -> None:
    async with chat(plainly(contestants=TWO, sampling=RAMBLING), loaded=False) as it:
        screen = await at_compare(it)
        await it.type(DIZZY + "\r")
        await it.until(lambda: len(pids(screen)) == 2)
        running = pids(screen)
        await it.press("f3")
        await it.until(lambda: not any(is_running(pid) for pid in running))


async def test_leaving_the_program_ends_them_too() -> None:
    async with chat(plainly(contestants=TWO, sampling=RAMBLING), loaded=False) as it:
        screen = await at_compare(it)
        await it.type(DIZZY + "\r")
        await it.until(lambda: len(pids(screen)) == 2)
        running = pids(screen)
        await it.app.action_quit()
        assert not any(is_running(pid) for pid in running)


async def test_in_turn_says_so_and_loads_one_at_a_time() -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        screen = await at_compare(it)
        await it.press("ctrl+o")
        await it.type(DIZZY + "\r")
        most = 0

        def ended() -> bool:
            nonlocal most
            most = max(most, len(pids(screen)))
            return screen._record is not None

        await it.until(ended)
        assert most == 1
        assert t("compare.bar_in_turn") in it.seen("ContestBar")


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("n", True)])
async def test_the_model_that_answers_may_be_asked_to_leave(
    monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool
) -> None:
    async with chat(plainly(contestants=TWO)) as it:
        session = it.app.session
        hold_on_gpu(it, monkeypatch)
        screen = await at_compare(it)
        await it.type(DIZZY + "\r")
        await it.until(lambda: isinstance(top(it), Confirm))
        assert flat(t("room.unload", name="starter")) in it.seen("#dialog")
        assert not screen._entered
        await it.press(answer)
        await it.until(lambda: screen._record is not None and "contest" not in it.working())
        assert session.engine.loaded is stays


async def test_what_is_not_loaded_alike_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on the GPU, one on the CPU, as where there is room for one."""
    entered = contestants.enter_all

    def apart(specs: list[str], settings: Settings, **more: Any) -> list[Contestant]:
        first, *others = entered(specs, settings, **more)
        load = msgspec.structs.replace(first.plan.load, device="cuda")
        return [Contestant(first.spec, dataclasses.replace(first.plan, load=load)), *others]

    monkeypatch.setattr(contestants, "enter_all", apart)
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        await compared(it)
        assert flat(t("compare.unlike", how="GPU、CPU")) in it.notice()


# Blind


async def test_a_blind_comparison_hides_the_names_until_the_vote() -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        await at_compare(it)
        await it.press("ctrl+b")
        screen = await compared(it)
        seen = it.seen("#columns")
        assert "starter" not in seen and "other" not in seen
        assert "tok/s" not in seen
        assert flat(t("compare.vote_now", last=2)) in it.notice()
        assert t("keys.vote") in it.hints()
        await it.press("2")
        assert "starter" in it.seen("#columns") and "tok/s" in it.seen("#columns")
        chosen = screen._entered[1].name
        assert flat(chosen) in it.notice()
        record, vote = kept()
        assert isinstance(record, Record) and isinstance(vote, Vote)
        assert record.blind
        assert (vote.of, vote.best) == (record.id, 1)
        assert record.answers[1].name == chosen
        # Voted once.
        await it.press("1")
        assert len(kept()) == 2
        assert t("keys.vote") not in it.hints()
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Reader) and "1.000" in it.seen())


async def test_equally_good_is_a_vote() -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        await at_compare(it)
        await it.press("ctrl+b")
        await compared(it)
        await it.press("0")
        assert flat(t("compare.voted_equal")) in it.notice()
        assert [line.best for line in kept() if isinstance(line, Vote)] == [None]


async def test_what_cannot_be_kept_is_told_and_the_names_are_shown() -> None:
    paths.comparisons().mkdir()
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        screen = await at_compare(it)
        await it.press("ctrl+b")
        await it.type(DIZZY + "\r")
        await it.until(lambda: "comparisons.jsonl" in it.notice())
        assert "starter" in it.seen("#columns")
        assert screen._record is None
        assert t("keys.vote") not in it.hints()


async def test_a_number_in_the_prompt_is_no_vote() -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        await at_compare(it)
        await it.press("ctrl+b")
        screen = await compared(it)
        screen.query_one(Prompt).focus()
        await it.type("3")
        await it.type("1")
        assert screen.query_one(Prompt).text == "31"
        assert screen._hidden
        assert len(kept()) == 1


async def test_the_order_is_drawn() -> None:
    """By the seed, so that who stands first says nothing."""
    settings = plainly(contestants=TWO, think=False, sampling=Sampling(temperature=0, max_tokens=5))
    async with chat(settings, loaded=False) as it:
        await at_compare(it)
        await it.press("ctrl+b")
        screen = await compared(it)
        first = [screen._entered[0].name]
        while len(set(first)) < 2 and len(first) < 12:
            await it.press("ctrl+r")
            await it.until(lambda: len(kept()) > len(first) and "contest" not in it.working())
            first.append(screen._entered[0].name)
        assert set(first) == {"starter", "starter + other"}


# Who takes part


async def test_contestants_are_chosen_and_remembered() -> None:
    async with chat(plainly(), loaded=False) as it:
        screen = await at_compare(it)
        assert flat(t("compare.choose_two")) in it.seen("#intro")
        await it.type(DIZZY + "\r")
        assert flat(t("compare.choose_two")) in it.notice()
        assert screen.query_one(Prompt).text == DIZZY
        await it.press("ctrl+l")
        await it.until(lambda: isinstance(it.app.screen, ChooseContestants))
        assert flat("starter + other") in it.seen("#possible")
        await it.press("enter")
        assert isinstance(it.app.screen, ChooseContestants)
        assert flat(t("compare.mark_two")) in it.seen("#dialog")
        await it.press("down", "space", "enter")
        assert top(it) is screen
        assert settings_on_disk().contestants == TWO
        await it.press("enter")
        await it.until(lambda: screen._record is not None)


async def test_with_one_model_it_says_how_to_get_another(adapter: Path) -> None:
    await asyncio.to_thread(adapter.unlink)
    async with chat(plainly(), loaded=False) as it:
        await at_compare(it)
        assert flat(t("compare.only_one")) in it.seen("#intro")


async def test_a_model_that_has_gone_meanwhile_is_told_and_the_question_stays(adapter: Path) -> None:
    async with chat(plainly(contestants=TWO), loaded=False) as it:
        screen = await at_compare(it)
        await asyncio.to_thread(adapter.unlink)
        await it.type(DIZZY + "\r")
        await it.until(lambda: "other" in it.notice())
        assert screen.query_one(Prompt).text == DIZZY
        assert kept() == []


async def test_a_server_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (url, does):
        monkeypatch.setenv("DRKUN_REMOTE_URL", url)
        host = url.removeprefix("http://")
        async with chat(plainly(contestants=["starter", "remote"]), loaded=False) as it:
            screen = await at_compare(it)
            assert host in it.seen("ContestBar")
            assert does.asked == []
            await compared(it)
            assert host in it.seen("ContestBar")
            assert flat("".join(WORDS)) in it.seen("#columns")
            assert flat(t("remote.by_model")) in it.seen("#columns")
            does.status = 500
            await it.press("ctrl+r")
            await it.until(lambda: len(kept()) == 2)
            assert "500" in it.notice()
            states = [column.turn.state for column in columns(screen) if column.turn]
            assert states == [State.DONE, State.FAILED]


# Sizes


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("theme", ["drkun-dark", "drkun-light"])
async def test_a_narrow_screen_shows_one_at_a_time(language: str, theme: str) -> None:
    i18n.set_language(language)
    settings = plainly(contestants=TWO, language=language, theme=theme)
    async with chat(settings, size=(80, 24), loaded=False) as it:
        screen = await compared(it)
        second = columns(screen)[1]
        assert displayed(screen) == [True, False]
        assert flat(t("keys.next_column")) in it.hints()
        assert "1" in it.seen("ContestBar")
        await it.press("f8")
        assert displayed(screen) == [False, True]
        assert flat("starter + other") in it.seen("#columns")
        await it.until(lambda: "marks" not in it.working())
        assert second.turn
        assert flat(second.turn.answer)[:20] in it.seen("#columns")
        await it.press("alt+left")
        assert displayed(screen) == [True, False]
        for place in ("consult", "compare", "settings"):
            assert flat(t(f"place.{place}")) in it.header()


async def test_a_screen_that_grows_shows_all() -> None:
    async with chat(plainly(contestants=TWO), size=(80, 24), loaded=False) as it:
        screen = await compared(it)
        await it.pilot.resize_terminal(200, 60)
        await it.until(lambda: all(column.display and column.size.width > 80 for column in columns(screen)))
        await it.until(lambda: "marks" not in it.working())
        assert any("differs" in s.style for x in screen.query(ComparedText) for line in x.lines for s in line)
        await it.pilot.resize_terminal(80, 24)
        await it.until(lambda: displayed(screen) == [True, False])


async def test_pages_scroll_all_answers_together() -> None:
    settings = plainly(contestants=TWO, sampling=Sampling(temperature=0, repeat_penalty=0.5, max_tokens=400))
    async with chat(settings, size=(100, 20), loaded=False) as it:
        screen = await compared(it)
        answers = [column.texts[1] for column in columns(screen)]
        await it.until(lambda: all(answer.max_scroll_y > 10 for answer in answers))
        for answer in answers:
            answer.scroll_home(animate=False)
        await it.press("pagedown")
        await it.until(lambda: answers[0].scroll_offset.y == answers[1].scroll_offset.y > 0)


async def test_the_help_lists_its_keys() -> None:
    async with chat(plainly(contestants=TWO), size=(120, 50), loaded=False) as it:
        await at_compare(it)
        await it.press("f1")
        for key in ("contestants", "another_seed", "blind", "vote", "votes", "marks", "order", "next_column"):
            assert flat(t(f"keys.{key}_help"))[:20] in it.seen()


# The remote profile in the consultation


async def test_the_profile_remote_is_chosen_and_says_where_questions_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving() as (url, does):
        monkeypatch.setenv("DRKUN_REMOTE_URL", url)
        host = url.removeprefix("http://")
        async with chat(size=(140, 36)) as it:
            assert flat(t("welcome.how")) in it.seen("#transcript")
            await it.press("f9")
            await it.until(lambda: isinstance(it.app.screen, Choose) and it.app.screen.query("#choices"))
            assert host in it.seen("#choices")
            await it.press("end", "enter")
            await it.until(lambda: host in it.header())
            await it.until(lambda: host in it.seen("#transcript"))
            assert flat(t("welcome.how")) not in it.seen("#transcript")
            turn = await it.ask(DIZZY)
            assert turn.answer == "".join(WORDS)
            assert turn.usage["prompt_tokens"] == 21
            assert flat(t("remote.by_model")) in it.seen("#transcript")
            assert flat(t("consult.by_model")) not in it.seen("#transcript")
            # One that breaks off keeps what has come.
            does.fault, does.chunks = "cut", does.chunks[:-4]
            turn = await it.ask(DIZZY)
            assert turn.state is State.INTERRUPTED
            assert turn.answer == "".join(WORDS[:-1])
            assert host in it.notice()


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_on_a_narrow_screen_it_is_said_too_where_questions_go(language: str) -> None:
    i18n.set_language(language)
    settings = plainly(remote_url="http://127.0.0.1:9", profile="remote", language=language)
    async with chat(settings, size=(80, 24), loaded=False) as it:
        await it.until(lambda: "127.0.0.1:9" in it.header())
        assert "127.0.0.1:9" in it.seen("#transcript")


async def test_who_chooses_a_model_that_is_here_is_answered_by_it() -> None:
    with serving() as (url, does):
        async with chat(plainly(remote_url=url, profile="remote"), loaded=False) as it:
            await it.until(lambda: it.app.session.plan)
            await it.press("f3")
            await it.until(lambda: "starter" in it.seen())
            await it.press("enter")
            await it.until(lambda: settings_on_disk().profile == "auto")
            turn = await it.ask("你好")
            assert (turn.model, does.asked) == ("starter", [])


async def test_without_an_address_the_profile_says_why_it_cannot_be_chosen() -> None:
    async with chat(loaded=False) as it:
        await it.press("f9")
        await it.until(lambda: isinstance(it.app.screen, Choose) and it.app.screen.query("#choices"))
        assert flat(t("hardware.profile_remote_none")) in it.seen("#choices")


async def test_the_servers_address_is_a_setting() -> None:
    with serving() as (url, _):
        settings = plainly(remote_url=url, profile="remote", remote_model="made-up")
        async with chat(settings, loaded=False) as it:
            turn = await it.ask(DIZZY)
            assert turn.answer == "".join(WORDS)
            assert turn.model == f"made-up@{url.removeprefix('http://')}"
            await it.press("f6")
            assert flat(t("settings.remote_url")) in it.seen()
