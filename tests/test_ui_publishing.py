"""From the screens alone: an adapter becomes a GGUF that is asked, and is published with a reviewed card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("peft")

from textual.widgets import Input, OptionList, TextArea

from drkun_tui import paths
from drkun_tui.i18n import t
from drkun_tui.library import provenance
from drkun_tui.library.model import Model
from drkun_tui.library.provenance import Prompt, Provenance
from drkun_tui.publishing import converters, targets
from drkun_tui.publishing.preflight import is_matrix
from drkun_tui.settings import Settings
from drkun_tui.training import base_model, preflight, recipe
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.choose import Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.export import ExportScreen
from drkun_tui.ui.screens.publish import PublishScreen
from tests import publishing_files, transformers_models, ui_helpers
from tests.hub_server import HubServer, serving
from tests.hub_uploads import TOKEN
from tests.test_ui_models import at_models, dialog, highlight
from tests.ui_helpers import DIZZY, chat, flat, settings_on_disk

pytestmark = pytest.mark.timeout(900)

NAME = "drkun/taught"


@pytest.fixture
def adapter(home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An adapter of the bundled model, with its base beside it."""
    monkeypatch.setenv(converters.SOURCE, str(publishing_files.source(request.config.cache)))
    monkeypatch.setattr(ui_helpers, "PATIENCE_S", 400)
    made = recipe.parse('preset = "starter-cpu"\n[data]\npath = "demo"\n')
    base: Model = preflight.find_base(made, Settings())
    folder, name, _ = base_model.on_disk(base)
    adapter = transformers_models.lora(paths.model_store() / NAME, folder)
    told = (adapter / "adapter_config.json").read_text().replace(str(folder), name)
    (adapter / "adapter_config.json").write_text(told)
    prompt = Prompt(thinking_tags=("<think>", "</think>"))
    provenance.write(adapter, Provenance(base_model=name, prompt=prompt, recipe="x = 1", demonstration=True))
    return adapter


async def test_an_adapter_becomes_a_gguf_that_is_asked(adapter: Path) -> None:
    async with chat() as it:
        await at_models(it, "taught")
        await highlight(it, NAME)
        assert t("keys.export_model") in it.hints()
        await it.press("e")
        await dialog(it, ExportScreen)
        listing = it.app.screen.query_one(OptionList)
        assert listing.option_count == len(targets.COMMON)
        assert "Q4_K_M" in it.seen("#targets") and flat(t("publishing.about_lora")) in it.seen("#targets")
        await it.press("down", "down", "down", "enter")
        await dialog(it, Confirm)
        assert "taught-Q8_0" in it.seen("#dialog")
        await it.press("y")
        await it.until(lambda: it.app.exports_now and it.app.exports_now[0].running)
        assert flat(t("keys.stop_export")) in it.hints()
        await it.until(lambda: "taught-Q8_0" in it.seen("#progress"))
        assert "100" in it.seen("#progress") or "%" in it.seen("#progress")
        await it.press("escape")
        await it.until(lambda: "taught-Q8_0" in it.seen("#models"))
        await highlight(it, "drkun/taught-GGUF/taught-Q8_0")
        assert t("keys.export_model") not in it.hints()
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, ConsultScreen))
        made = "drkun/taught-GGUF/taught-Q8_0"
        await it.until(lambda: it.app.session.plan is not None and it.app.session.plan.model.name == made)
        await it.loaded()
        turn = await it.ask(DIZZY)
        assert turn.answer or turn.reasoning
    assert settings_on_disk().model == "drkun/taught-GGUF/taught-Q8_0"


async def test_an_importance_matrix_is_computed_on_what_is_named(adapter: Path, tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("最近总是头晕，应该怎么办？先卧床休息，并测量血压。\n" * 30, "utf8")
    async with chat(loaded=False) as it:
        await at_models(it, "taught")
        await highlight(it, NAME)
        await it.press("e")
        await dialog(it, ExportScreen)
        assert flat(t("publishing.imatrix_none")) in it.seen("#options")
        await it.press("i")
        await dialog(it, AskText)
        it.app.screen.query_one(Input).value = str(tmp_path / "nothing.txt")
        await it.press("enter")
        await dialog(it, ExportScreen)
        assert "nothing.txt" in it.seen("#options")
        await it.press("enter")
        await it.until(lambda: "nothing.txt" in it.notice())
        await it.press("i")
        await dialog(it, AskText)
        it.app.screen.query_one(Input).value = str(text)
        await it.press("enter")
        await dialog(it, ExportScreen)
        await it.press("enter")
        await dialog(it, Confirm)
        await it.press("y")
        await it.until(lambda: it.app.exports_now and it.app.exports_now[0].finished is not None)
        made = it.app.exports_now[0].request
        assert (made.imatrix_from, made.imatrix) == (str(text), "")
        matrix = made.result.with_suffix(".imatrix")
        assert is_matrix(matrix) and not is_matrix(text)


async def test_type_base_and_name_are_chosen(adapter: Path) -> None:
    """Two bases fit an adapter that names none; a type that is not listed and a name are taken, too."""
    store = paths.model_store()
    shutil.copytree(store / "drkun/starter-bf16", store / "other/base")
    told = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(told | {"base_model_name_or_path": ""}))
    provenance.write(adapter, Provenance(prompt=Prompt(), recipe="x = 1", demonstration=True))
    async with chat(loaded=False) as it:
        await at_models(it, "taught")
        await highlight(it, NAME)
        await it.press("e")
        await dialog(it, ExportScreen)
        await it.press("t")
        await dialog(it, Choose)
        listing = it.app.screen.query_one("#choices", OptionList)
        listing.highlighted = listing.get_option_index("Q2_K")
        await it.press("enter")
        await dialog(it, ExportScreen)
        assert "Q2_K" in it.seen("#targets")
        await it.press("n")
        await dialog(it, AskText)
        it.app.screen.query_one(Input).value = "mine/small"
        await it.press("enter")
        await dialog(it, ExportScreen)
        assert "mine/small" in it.seen("#options")
        await it.press("enter")
        await dialog(it, Choose)
        assert flat(t("publishing.base_question")) in it.seen()
        await it.press("escape")
        await dialog(it, ExportScreen)
        await it.until(lambda: flat(t("publishing.several_bases")) in it.notice())
        await it.press("enter")
        await dialog(it, Choose)
        await it.until(lambda: "other/base" in it.seen("#choices"))
        listing = it.app.screen.query_one("#choices", OptionList)
        listing.highlighted = listing.get_option_index("other/base")
        await it.press("enter")
        await dialog(it, Confirm)
        assert "mine/small-GGUF/small-Q2_K" in it.seen("#dialog")
        await it.press("n")
        await dialog(it, ExportScreen)
        assert "other/base" in it.seen("#options")
        # Not asked again, and it can be chosen anew.
        await it.press("b")
        await dialog(it, Choose)


async def test_an_export_is_stopped_and_leaves_nothing(adapter: Path) -> None:
    async with chat(loaded=False) as it:
        await at_models(it, "taught")
        await highlight(it, NAME)
        await it.press("e")
        await dialog(it, ExportScreen)
        await it.press("enter")
        await dialog(it, Confirm)
        await it.press("y")
        await it.until(lambda: it.app.exports_now and it.app.exports_now[0].running)
        await it.press("x")
        await it.until(lambda: not it.app.exports_now[0].running)
        await it.until(lambda: flat(t("publishing.phase_stopped")) in it.seen("#progress"))
    assert not list(paths.model_store().glob(".export-*"))
    assert not list(paths.model_store().rglob("*.gguf"))


async def test_what_cannot_be_exported_says_why(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"broken")
    async with chat(loaded=False) as it:
        await at_models(it, "taught")
        await highlight(it, NAME)
        await it.press("e")
        await dialog(it, ExportScreen)
        await it.press("enter")
        await it.until(lambda: "adapter_model.safetensors" in it.notice())
        assert isinstance(it.app.screen, ExportScreen)


# Publishing


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
        yield server


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_a_model_is_published_with_the_card_as_it_was_left(
    hub: HubServer, size: tuple[int, int]
) -> None:
    async with chat(loaded=False, size=size) as it:
        await at_models(it)
        await highlight(it, "starter")
        await it.press("p")
        await dialog(it, PublishScreen)
        screen = it.app.screen
        assert t("publishing.private") in it.seen("#facts")
        assert "apache-2.0" in screen.query_one(TextArea).text
        await it.press("f7", "f7")
        await it.type("me/starter\r")
        assert screen.query_one(Input).value == "me/starter"
        assert screen.query_one(TextArea).has_focus
        screen.query_one(TextArea).move_cursor(screen.query_one(TextArea).document.end)
        await it.type("reviewed")
        await it.press("ctrl+s")
        await dialog(it, Confirm)
        assert "me/starter" in it.seen("#dialog")
        await it.press("y")
        await it.until(lambda: "me/starter" in it.seen("#progress"))
        await it.until(lambda: hub.url.replace("http://", "") in it.seen("#progress"))
    data = hub.repositories["me/starter"].files["README.md"].data
    assert isinstance(data, bytes) and data.decode().rstrip().endswith("reviewed")
    assert hub.repositories["me/starter"].tags == ["private"]


async def test_a_repository_that_is_there_is_added_to_when_asked(hub: HubServer) -> None:
    async with chat(loaded=False, size=(80, 24)) as it:
        await at_models(it)
        await highlight(it, "starter")
        for times in (1, 2):
            await it.press("p")
            await dialog(it, PublishScreen)
            await it.type("me/starter\r")
            if times == 2:
                await it.press("f10")
                assert flat(t("publishing.adds")) in it.seen("#facts")
            await it.press("ctrl+s")
            await dialog(it, Confirm)
            assert (flat(t("publishing.adds")) in it.seen("#dialog")) is (times == 2)
            await it.press("y")
            await it.until(lambda: hub.url.replace("http://", "") in it.seen("#progress"))
            await it.press("escape")
            await it.until(lambda: not isinstance(it.app.screen, PublishScreen))
        assert [upload.request.update for upload in it.app.uploads_now] == [True, False]


async def test_a_card_with_a_path_of_this_machine_is_not_sent(hub: HubServer) -> None:
    async with chat(loaded=False) as it:
        await at_models(it)
        await highlight(it, "starter")
        await it.press("p")
        await dialog(it, PublishScreen)
        await it.type("me/starter\r")
        card = it.app.screen.query_one(TextArea)
        card.move_cursor(card.document.end)
        await it.type("/home/someone/data.csv ")
        await it.press("ctrl+s")
        await it.until(lambda: "/home/someone/data.csv" in it.notice())
        await it.press("escape")
        await it.until(lambda: not isinstance(it.app.screen, PublishScreen))
    assert not hub.authorizations


async def test_a_refused_token_is_told_in_one_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another-token-altogether")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "another-token-altogether")
    async with chat(loaded=False) as it:
        await at_models(it)
        await highlight(it, "starter")
        await it.press("p")
        await dialog(it, PublishScreen)
        await it.type("me/starter\r")
        await it.press("ctrl+s")
        await dialog(it, Confirm)
        await it.press("y")
        await it.until(lambda: flat(hub.url.replace("http://", "")) in it.seen("#progress"))
        assert "another-token" not in it.seen()
    assert "me/starter" not in hub.repositories
