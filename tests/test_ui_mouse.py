"""The mouse: places, keys and answers can be clicked, text can be selected, the wheel scrolls."""

from __future__ import annotations

from rich.cells import cell_len
from textual.events import MouseScrollUp

from drkun_tui.i18n import t
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.help import HelpScreen
from drkun_tui.ui.screens.models import ModelsScreen
from drkun_tui.ui.screens.settings import SettingsScreen
from tests.ui_helpers import Chat, chat, stored


async def click(it: Chat, text: str, row: int) -> None:
    """Click in the middle of `text` in that row of the screen."""
    line = it.rows()[row]
    at = cell_len(line[: line.index(text)]) + cell_len(text) // 2
    await it.pilot.click(offset=(at, row % len(it.rows())))
    await it.settle()


async def opened(it: Chat) -> None:
    """Click the newest conversation in the list."""
    await it.until(lambda: t("consult.today") in it.seen("#list"))
    await it.pilot.click("#conversations", offset=(2, 1))
    await it.until(lambda: it.turns)


async def test_places_are_clicked_in_the_top_line() -> None:
    async with chat(loaded=False) as it:
        for place, screen in (("models", ModelsScreen), ("settings", SettingsScreen)):
            await click(it, t(f"place.{place}"), 0)
            await it.until(lambda screen=screen: isinstance(it.app.screen, screen))  # type: ignore[misc]
        await click(it, t("place.consult"), 0)
        await it.until(lambda: isinstance(it.app.screen, ConsultScreen))


async def test_keys_are_clicked_in_the_bottom_line() -> None:
    # While a model loads, its end takes Esc out of the line and moves the others.
    async with chat() as it:
        await click(it, t("keys.reasoning"), -1)
        await it.until(lambda: it.pane.has_class("-collapsed"))
        await click(it, t("keys.help"), -1)
        await it.until(lambda: isinstance(it.app.screen, HelpScreen))


async def test_an_answer_is_chosen_by_a_click() -> None:
    stored(("头晕怎么办", "多休息。"), reasoning="甲的思考")
    conversation = stored(("胃痛怎么办", "少食。"), ("发热呢", "喝水。"), reasoning="乙的思考")
    async with chat(loaded=False) as it:
        await opened(it)
        assert it.app.session.conversation.id == conversation.id
        first, last = it.turns
        for text, turn in (("少食。", first), ("喝水。", last), ("胃痛怎么办", first)):
            row = next(number for number, line in enumerate(it.rows()) if text in line)
            await click(it, text, row)
            assert it.transcript.chosen is turn
            assert ("答>" in it.seen("#transcript")) is (turn is first)


async def test_text_is_selected_and_copied() -> None:
    stored(("头晕怎么办", "一二三四五六七八九十。"))
    async with chat(loaded=False) as it:
        await opened(it)
        row = next(number for number, line in enumerate(it.rows()) if "一二三四" in line)
        line = it.rows()[row]
        at = cell_len(line[: line.index("三")])
        await it.pilot.mouse_down(offset=(at, row))
        await it.pilot.hover(offset=(at + 6, row))
        await it.pilot.mouse_up(offset=(at + 6, row))
        await it.until(lambda: it.screen.get_selected_text())
        selected = it.screen.get_selected_text() or ""
        assert selected.startswith("三四五") and selected in "三四五六七"
        painted = it.screen.get_component_rich_style("screen--selection").bgcolor
        strip = it.screen._compositor.render_strips()[row]
        marked = "".join(
            segment.text for segment in strip if segment.style and segment.style.bgcolor == painted
        )
        assert marked.strip() == selected


async def test_the_wheel_scrolls_the_answer() -> None:
    stored(*((f"问题{number}", "回答。\n\n" * 5) for number in range(12)))
    async with chat(loaded=False) as it:
        await opened(it)
        end = it.transcript.scroll_offset.y
        assert it.transcript.at_end and end > 0
        await it.pilot._post_mouse_events([MouseScrollUp], widget="#transcript", offset=(5, 5), times=1)
        await it.until(lambda: it.transcript.scroll_offset.y < end)
