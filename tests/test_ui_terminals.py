"""Any terminal: small, large, without colour, light or dark; and text that would steer it."""

from __future__ import annotations

import re

import pytest
from textual.widgets import OptionList

from drkun_tui.consult.conversation import State
from drkun_tui.i18n import t
from tests.conftest import starter_with
from tests.ui_helpers import DIZZY, RAMBLING, Chat, chat, gguf_folder, plainly, stored

HOSTILE = "[bold]粗[/] [/nothing] \x1b[31m红\x1b[0m \x1b]0;题\x07 \u202e倒\u202c \x9b2J \u200b\x07完"
BARS = " ▁▂▃▄▅▆▇█"
HARMLESS = "[bold]粗[/][/nothing]红倒2J完"


async def shown(it: Chat, title: str) -> None:
    """Open the conversation on the screen, and wait for the list to hold it."""
    await it.until(lambda: it.app.store.summaries())
    await it.until(lambda: it.screen.query_one(OptionList).get_option_at_index(0).id is None)
    it.screen.query_one(OptionList).focus()
    await it.press("home", "enter")
    await it.until(lambda: it.turns and it.last.question == title)


@pytest.mark.parametrize("size", [(20, 5), (40, 10), (80, 24), (200, 60)])
async def test_a_question_is_answered_at_any_size(size: tuple[int, int]) -> None:
    async with chat(size=size) as it:
        assert it.prompt.size.width >= 10 and it.prompt.size.height >= 1
        await it.type("你好")
        assert "你好" in it.seen("#prompt")
        await it.type("\r")
        await it.until(lambda: it.turns)
        turn = await it.answered()
        assert turn.state is State.DONE
        assert it.prompt.region.bottom <= size[1]
        rows = it.rows()
        assert len(rows) == size[1]
        it.transcript.focus()
        await it.press("home")
        await it.scrolled(it.transcript)
        assert "你好" in it.seen("#transcript")
        for key in ("f1", "escape", "f3", "escape", "f6", "escape", "ctrl+p", "escape", "ctrl+s", "escape"):
            await it.press(key)
        assert it.prompt.has_focus


async def test_resizing_keeps_everything() -> None:
    async with chat() as it:
        turn = await it.ask(DIZZY)
        for width, height in ((80, 24), (20, 5), (1, 1), (200, 60), (100, 30)):
            await it.pilot.resize_terminal(width, height)
            await it.settle()
        assert "".join(turn.answer.split()) in it.seen("#transcript")
        assert "".join(turn.reasoning.split()) in it.seen("#reasoning-text")
        assert it.transcript.at_end


async def test_a_narrow_screen_has_the_reasoning_above_the_answer() -> None:
    async with chat(size=(80, 24)) as it:
        turn = await it.ask(DIZZY)
        assert it.pane.region.bottom <= it.transcript.region.y
        assert it.pane.region.width == 80
        assert it.reasoning.size.height == 6
        assert "".join(turn.reasoning.split())[:20] in it.seen("#reasoning-text")
        assert it.seen("#list") == ""
        await it.press("ctrl+l")
        assert t("consult.today") in it.seen("#list"), "it lies over the transcript"
        await it.press("escape")
        assert it.seen("#list") == ""
        await it.press("ctrl+t")
        assert it.pane.size.height == 1
        await it.press("f8")
        assert it.seen("#transcript") == ""
        assert it.reasoning.size.height > 12
        await it.press("escape")
        assert it.seen("#transcript") != ""


async def test_a_wide_screen_has_them_side_by_side() -> None:
    async with chat(size=(120, 36), loaded=False) as it:
        assert it.seen("#list") != ""
        assert it.pane.region.x >= it.transcript.region.right
        assert it.pane.region.y == it.transcript.region.y


async def test_the_header_gives_way_in_a_narrow_terminal() -> None:
    async with chat(plainly(sampling=RAMBLING), size=(60, 20)) as it:
        await it.type(DIZZY + "\r")
        await it.until(lambda: "tok/s" in it.header() or "k/2.0k" in it.header())
        header = it.rows()[0]
        assert re.search(r"\d\.\dk/2\.0k", header), "the context used is the last to go"
        await it.press("escape")


async def test_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat() as it:
        turn = await it.ask("你好")
        assert "".join(turn.answer.split()) in it.seen("#transcript")
        colours = {
            segment.style.color.get_truecolor()
            for strip in it.screen._compositor.render_strips()
            for segment in strip
            if segment.style and segment.style.color
        }
        assert colours and all(red == green == blue for red, green, blue in colours)


@pytest.mark.parametrize("theme", ["drkun-dark", "drkun-light"])
async def test_text_can_be_read_on_its_ground(theme: str) -> None:
    stored(
        ("头晕怎么办", "# 一\n\n- **粗** `码`\n\n> 引\n\n[链](http://a)"), reasoning="想", demonstration=True
    )
    async with chat(plainly(theme=theme), size=(120, 36)) as it:
        await shown(it, "头晕怎么办")
        assert not poorly_painted(it)
        for key in ("ctrl+b", "ctrl+s", "escape", "f3", "down", "f6", "down"):
            await it.press(key)
            assert not poorly_painted(it)


def poorly_painted(it: Chat) -> set[tuple[str, str, str]]:
    """Texts that are hard to read, with their colour and that of their ground."""
    poor = set()
    for strip in it.app.screen._compositor.render_strips():
        for segment in strip:
            style = segment.style
            if segment.text.strip(BARS) and style and style.color and style.bgcolor:
                front, back = style.color.get_truecolor(), style.bgcolor.get_truecolor()
                if _contrast(front, back) < 3:
                    poor.add((segment.text.strip(), front.hex, back.hex))
    return poor


def _contrast(front: tuple[int, int, int], back: tuple[int, int, int]) -> float:
    """By WCAG 2."""

    def luminance(colour: tuple[int, int, int]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# Text from outside


def harmless(it: Chat) -> bool:
    return not any(re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]", row) for row in it.rows())


async def test_text_from_outside_is_shown_as_it_is_and_steers_nothing() -> None:
    conversation = stored((HOSTILE, HOSTILE), reasoning=HOSTILE, model=HOSTILE, error=HOSTILE)
    async with chat() as it:
        it.app.store.rename(conversation.id, "\x1b[31m\u202e" + HOSTILE)
        it.screen.refresh_list()
        await shown(it, HOSTILE)
        assert it.seen("#transcript").count(HARMLESS) >= 3
        assert HARMLESS in it.seen("#reasoning-text")
        assert "[bold]粗[/]" in it.seen("#conversations")
        assert harmless(it)
        await it.press("ctrl+o")
        assert "\x1b" not in it.app.clipboard
        await it.press("ctrl+s")
        await it.type("[bold]粗")
        await it.until(lambda: it.seen("#conversations").count("[bold]粗[/]") >= 2)
        assert harmless(it)
        await it.press("escape")
        await it.type("\x1b[200~" + HOSTILE.replace("\x1b", "") + "\x1b[201~")
        assert "[bold]粗[/]" in it.seen("#prompt")
        await it.press("enter")
        await it.until(lambda: len(it.turns) == 2)
        await it.answered()
        assert harmless(it)


async def test_a_models_name_is_no_markup() -> None:
    starter_with(gguf_folder() / "[red]x[@click=app.quit]y.gguf")
    async with chat(plainly(model="[red]x[@click=app.quit]y")) as it:
        assert "[red]x" in it.header()
        await it.press("f3")
        await it.until(lambda: "[red]x" in it.seen("#models"))
        await it.until(lambda: "[red]x[@click=app.quit]y" in it.seen("#details"))
        assert it.app.return_code is None


async def test_a_setting_is_no_markup() -> None:
    keys = {"consult.edit": "[red]"}
    async with chat(plainly(system=HOSTILE, keys=keys), loaded=False, size=(120, 80)) as it:
        await it.press("f6")
        assert HARMLESS in it.seen("#settings") and "[RED]" in it.seen("#settings")
        assert harmless(it)
