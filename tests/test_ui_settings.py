"""Settings, the model picker, languages, themes, help, the command palette: all of it kept."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.widgets import Input, OptionList

import drkun_tui.ui
from drkun_tui import i18n, paths
from drkun_tui.app import DrkunApp
from drkun_tui.i18n import t
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from drkun_tui.ui.keys import display
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.help import HelpScreen
from drkun_tui.ui.screens.settings import AskKey, SettingsScreen
from drkun_tui.ui.widgets.prompt import Prompt
from tests.conftest import starter_with
from tests.ui_helpers import RAMBLING, Chat, chat, gguf_folder, plainly, settings_on_disk, stored


async def at_row(it: Chat, name: str) -> SettingsScreen:
    """The settings screen with the row `name` highlighted."""
    if not isinstance(it.app.screen, SettingsScreen):
        await it.press("f6")
    screen = it.app.screen
    assert isinstance(screen, SettingsScreen)
    index = next(i for i, row in enumerate(screen._shown) if not isinstance(row, str) and row.name == name)
    listing = screen.query_one(OptionList)
    listing.highlighted = listing.get_option_index(str(index))
    await it.pilot.pause()
    return screen


async def write(it: Chat, name: str, text: str) -> None:
    """Give the setting `name` a new text or number."""
    await at_row(it, name)
    await it.press("enter")
    await it.until(lambda: isinstance(it.app.screen, AskText))
    it.app.screen.query_one(Input).clear()
    await it.type(text + "\r")
    await it.until(lambda: isinstance(it.app.screen, SettingsScreen))


async def map_key(it: Chat, name: str, key: str) -> None:
    """Give the action `name` another key."""
    await at_row(it, name)
    await it.press("enter")
    await it.until(lambda: isinstance(it.app.screen, AskKey))
    await it.press(key)
    await it.until(lambda: isinstance(it.app.screen, SettingsScreen))


def offered(it: Chat) -> int:
    """How many entries the palette shows."""
    options = it.app.screen.query(OptionList)
    return options.first().option_count if options else 0


# Settings


async def test_the_temperature_is_changed_and_used() -> None:
    async with chat() as it:
        await it.press("f6")
        assert "Enter更改" in it.hints()
        await write(it, "temperature", "1.5")
        assert t("settings.temperature") + "1.5" in it.seen("#settings")
        assert it.app.settings.sampling.temperature == 1.5
        assert settings_on_disk().sampling.temperature == 1.5
        await it.press("escape")
        turn = await it.ask("你好")
        assert turn.sampling["temperature"] == 1.5


@pytest.mark.parametrize(("name", "wrong"), [("temperature", "热"), ("top_p", "7"), ("threads", "-1")])
async def test_a_wrong_value_is_told_and_not_kept(name: str, wrong: str) -> None:
    async with chat(loaded=False) as it:
        before = it.app.settings
        await write(it, name, wrong)
        assert t(f"settings.{name}") in it.notice()
        assert it.app.settings == before
        assert not paths.settings_file().exists()
        assert wrong not in it.seen("#settings")


async def test_a_setting_goes_back_to_its_default() -> None:
    sampling = Sampling(temperature=1.5, seed=4)
    async with chat(Settings(sampling=sampling, threads=1, system="你是医生。"), loaded=False) as it:
        await at_row(it, "temperature")
        await it.press("delete")
        assert it.app.settings.sampling == Sampling(seed=4)
        await at_row(it, "system")
        await it.press("backspace")
        assert it.app.settings.system == ""
        assert settings_on_disk() == Settings(sampling=Sampling(seed=4), threads=1)


async def test_sampling_without_a_seed_can_be_kept() -> None:
    async with chat(Settings(threads=1), loaded=False) as it:
        await write(it, "temperature", "1.5")
        assert settings_on_disk().sampling == Sampling(temperature=1.5)


async def test_leaving_the_field_changes_nothing() -> None:
    async with chat(loaded=False) as it:
        await at_row(it, "system")
        await it.press("enter")
        await it.type("你是医生。")
        await it.press("escape")
        await it.until(lambda: isinstance(it.app.screen, SettingsScreen))
        assert it.app.settings.system == ""
        await it.press("escape")
        assert isinstance(it.app.screen, ConsultScreen)
        assert it.prompt.has_focus


async def test_the_context_length_reloads_the_model() -> None:
    async with chat() as it:
        before = it.engine
        await write(it, "context_length", "512")
        await it.press("escape")
        await it.until(lambda: it.app.session.engine.loaded and it.engine != before)
        await it.until(lambda: "0.0k/0.5k" in it.header())


async def test_choices_go_round() -> None:
    async with chat(loaded=False) as it:
        await at_row(it, "reasoning")
        for value in ("collapsed", "hidden", "shown", "collapsed"):
            await it.press("enter")
            assert it.app.settings.reasoning == value
            assert t(f"settings.reasoning_{value}") in it.seen("#settings")
        await at_row(it, "think")
        await it.press("enter")
        assert it.app.settings.think is False
        assert settings_on_disk() == plainly(think=False, reasoning="collapsed")
        await it.press("escape")
        assert it.pane.has_class("-collapsed"), "what was chosen is what is seen"
        assert t("consult.no_think") in it.header()


async def test_a_key_is_mapped_anew_and_put_back() -> None:
    async with chat(loaded=False) as it:
        await map_key(it, "consult.reasoning", "f9")
        assert settings_on_disk().keys == {"consult.reasoning": "f9"}
        await it.press("escape")
        assert "F9思考" in it.hints()
        await it.press("ctrl+t")
        assert not it.pane.has_class("-collapsed")
        await it.press("f9")
        assert it.pane.has_class("-collapsed")
        await at_row(it, "consult.reasoning")
        await it.press("delete")
        assert settings_on_disk().keys == {}
        await it.press("escape", "ctrl+t")
        assert not it.pane.has_class("-collapsed")


async def test_mapped_keys_are_there_at_the_next_start() -> None:
    async with chat(plainly(keys={"prompt.send": "f9", "consult.list": "f10"})) as it:
        assert "F9发送" in it.hints()
        await it.type("你好")
        await it.press("enter")
        assert not it.turns
        await it.press("f9")
        await it.until(lambda: it.turns)
        assert (await it.answered()).question.strip() == "你好"
        await it.press("f10")
        assert it.seen("#list") == ""


async def test_a_key_that_is_taken_is_told() -> None:
    async with chat(loaded=False) as it:
        await map_key(it, "consult.reasoning", "ctrl+r")
        assert t("settings.key_taken", action=t("keys.regenerate")).replace(" ", "") in it.notice()


async def test_escape_leaves_a_key_as_it_is() -> None:
    async with chat(loaded=False) as it:
        await map_key(it, "consult.reasoning", "escape")
        assert it.app.settings.keys == {}


# Languages and themes


async def test_everything_is_shown_in_english_and_the_conversation_stays() -> None:
    async with chat() as it:
        turn = await it.ask("头晕怎么办")
        await at_row(it, "language")
        await it.press("enter")
        await it.until(lambda: it.app.settings.language == "zh")
        await at_row(it, "language")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, ConsultScreen) and i18n.language() == "en")
        await it.until(lambda: "Today" in it.seen("#list"))
        assert "ConsultModelsTrainingCompareSettings" in it.header()
        assert "".join(t("consult.demonstration_short").split()) in it.header()
        assert "starter" in it.header()
        shown = it.seen("#transcript")
        assert shown.startswith("Q头晕怎么办A" + "".join(turn.answer.split()))
        assert "".join(t("consult.demonstration").split()) in shown
        assert "Reasoning" in it.seen("ReasoningTitle")
        assert "EnterSend" in it.hints() and "F1Help" in it.hints()
        assert it.seen("#prompt") == "".join(t("consult.placeholder").split())
        assert settings_on_disk().language == "en"
        await it.ask("谢谢")
        assert [turn.question for turn in it.turns] == ["头晕怎么办", "谢谢"]
        await it.press("f6")
        assert "Temperature" in it.seen() and "温度" not in it.seen()


async def test_the_language_stays_while_an_answer_comes() -> None:
    async with chat(plainly(sampling=RAMBLING)) as it:
        await it.type("头晕怎么办\r")
        turn = await it.streaming()
        await at_row(it, "language")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, ConsultScreen))
        assert t("consult.busy") in it.notice()
        assert it.app.settings.language == "auto"
        had = len(turn.answer)
        await it.until(lambda: len(turn.answer) > had)
        await it.press("escape")
        assert (await it.answered()).answer


async def test_the_theme_is_changed_and_kept() -> None:
    async with chat(loaded=False) as it:
        assert it.app.theme == "drkun-dark" and it.app.current_theme.dark
        dark = it.screen.styles.background
        await at_row(it, "theme")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, CommandPalette))
        await it.type("drkun-light")
        await it.until(lambda: offered(it) == 1)
        await it.press("enter")
        await it.until(lambda: it.app.theme == "drkun-light")
        await it.until(lambda: it.screen.styles.background != dark)
        assert settings_on_disk().theme == "drkun-light"
        assert isinstance(it.app.screen, SettingsScreen)
        await it.until(lambda: "drkun-light" in it.seen("#settings"))
    async with chat(settings_on_disk(), loaded=False) as it:
        assert it.app.theme == "drkun-light"


async def test_an_unknown_theme_falls_back() -> None:
    async with chat(plainly(theme="gone"), loaded=False) as it:
        assert it.app.theme == "drkun-dark"


# Thinking


async def test_without_thinking_the_next_answer_has_no_reasoning() -> None:
    async with chat() as it:
        assert (await it.ask("头晕怎么办")).reasoning
        await it.press("f10")
        assert t("consult.think_off") in it.notice()
        assert t("consult.no_think") in it.header()
        assert settings_on_disk().think is False
        turn = await it.ask("我最近胃痛")
        assert turn.reasoning == "" and turn.answer
        assert it.seen("#reasoning-text") == t("consult.no_reasoning")
        await it.press("f10")
        assert t("consult.think_on") in it.notice()
        assert t("consult.no_think") not in it.header()


async def test_a_model_without_a_switch_for_thinking_says_so() -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    starter_with(gguf_folder() / "plain.gguf", tokenizer__chat_template=template)
    async with chat(plainly(model="plain")) as it:
        await it.press("f10")
        assert t("consult.cannot_toggle") in it.notice()


# Help and commands


def owners() -> Iterator[type[DOMNode]]:
    """Every screen and widget of ours, and the application."""
    for module in pkgutil.walk_packages(drkun_tui.ui.__path__, "drkun_tui.ui."):
        for thing in vars(importlib.import_module(module.name)).values():
            if isinstance(thing, type) and issubclass(thing, DOMNode) and thing.__module__ == module.name:
                yield thing
    yield DrkunApp


def bindings(owner: type[DOMNode]) -> list[Binding]:
    return [binding for binding in vars(owner).get("BINDINGS", []) if isinstance(binding, Binding)]


def test_every_binding_has_an_id_and_a_help_text_in_both_languages() -> None:
    seen: dict[str, type[DOMNode]] = {}
    for owner in owners():
        for binding in bindings(owner):
            assert binding.id, binding
            assert binding.id not in seen, binding.id
            seen[binding.id] = owner
            assert binding.description.startswith("keys."), binding
            for language in i18n.LANGUAGES:
                texts = i18n.catalogue(language)
                assert texts[binding.description] and texts[f"{binding.description}_help"], binding
    assert len(seen) > 30


async def test_the_settings_and_the_document_list_every_key_that_can_be_mapped() -> None:
    document = (Path(drkun_tui.__file__).parents[1] / "docs" / "keys.md").read_text("utf8")
    ids = {binding.id for owner in owners() for binding in bindings(owner)}
    assert [id for id in sorted(filter(None, ids)) if f"`{id}`" not in document] == []
    async with chat(loaded=False) as it:
        await it.press("f6")
        screen = it.app.screen
        assert isinstance(screen, SettingsScreen)
        assert set(screen._keys()) == ids


async def test_help_lists_every_key_as_it_is_now() -> None:
    keys = {"consult.reasoning": "f9", "app.models": "f11"}
    async with chat(plainly(keys=keys), loaded=False, size=(120, 60)) as it:
        await it.press("f1")
        await it.until(lambda: t("help.title") in it.seen("#help"))
        shown = it.seen("#help")
        for owner in (DrkunApp, ConsultScreen, Prompt):
            for binding in bindings(owner):
                assert binding.id
                key = display(keys.get(binding.id, binding.key).split(",")[0])
                texts = t(binding.description) + t(f"{binding.description}_help")
                assert "".join(texts.split()) in shown, binding
                assert key.replace(" ", "") in shown, binding
        assert "^T" not in shown
        await it.press("f1")
        assert isinstance(it.app.screen, ConsultScreen)
        for key in ("escape", "q"):
            await it.press("f1", key)
            assert isinstance(it.app.screen, ConsultScreen)


async def test_help_of_another_place_lists_its_keys() -> None:
    async with chat(loaded=False) as it:
        await it.press("f3", "f1")
        await it.until(lambda: t("help.title") in it.seen("#help"))
        assert isinstance(it.app.screen, HelpScreen)
        assert t("keys.scan_help") in it.seen("#help")
        assert t("keys.regenerate_help") not in it.seen("#help")


async def test_an_action_is_run_by_name() -> None:
    async with chat(loaded=False) as it:
        await it.press("ctrl+p")
        await it.until(lambda: isinstance(it.app.screen, CommandPalette))
        await it.until(lambda: t("keys.new") in it.seen())
        assert t("keys.palette_help") in it.seen() and "Search" not in it.seen()
        await it.type(t("keys.hide_reasoning"))
        await it.until(lambda: offered(it) == 1)
        assert t("keys.hide_reasoning_help") in it.seen()
        await it.press("enter")
        await it.until(lambda: it.pane.has_class("-hidden"))


async def test_the_palette_offers_every_action_that_is_possible() -> None:
    paging = {"consult.page_up", "consult.page_down"}  # the prompt's own keys, while it has the focus
    async with chat(loaded=False) as it:
        names = {command.title for command in it.app.get_system_commands(it.app.screen)}
        for owner in (DrkunApp, ConsultScreen, Prompt):
            for binding in bindings(owner):
                if binding.id not in paging:
                    possible = it.screen.check_action(binding.action.split("(")[0], ())
                    assert (t(binding.description) in names) is bool(possible), binding
        assert set(i18n.LANGUAGES.values()) <= names
        assert t("keys.theme") in names
        assert t("keys.export") not in names


async def test_the_conversation_is_exported_by_name(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = stored(("头晕怎么办", "先量血压。"))
    monkeypatch.chdir(paths.home())
    async with chat(loaded=False) as it:
        await it.until(lambda: "头晕怎么办" in it.seen("#list"))
        await it.press("ctrl+l", "ctrl+l", "home", "enter")
        await it.until(lambda: it.turns)
        await it.press("ctrl+p")
        await it.type(t("keys.export"))
        await it.until(lambda: offered(it) == 1)
        await it.press("enter")
        file = paths.home() / f"drkun-{conversation.id}.md"
        await it.until(file.exists)
        assert "先量血压。" in file.read_text("utf8")
        await it.until(lambda: file.name in it.notice())
