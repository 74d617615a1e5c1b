"""The models screen: what is there, what is used, adapters, imports, removals, and fetching from a hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from drkun_tui import hardware, paths
from drkun_tui.hardware import Gpu
from drkun_tui.i18n import t
from drkun_tui.library import fit
from drkun_tui.library.hub.downloads import Download
from drkun_tui.library.hub.protocol import Request
from drkun_tui.library.hub.recommended import first_choice
from drkun_tui.profiles import GIB
from drkun_tui.ui.guide import proposal
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.choose import Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.fetch import FetchScreen
from drkun_tui.ui.screens.models import ModelsScreen
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.table import size
from drkun_tui.ui.widgets.download_list import _title
from drkun_tui.ui.widgets.row_list import RowList
from tests.conftest import starter_with
from tests.gguf_files import lora, write
from tests.hub_server import HubServer, serving
from tests.model_files import CONFIG, put_base, put_json, put_lora, put_safetensors
from tests.ui_helpers import Chat, chat, flat, gguf_folder, plainly, settings_on_disk

REPO = "drkun/second-GGUF"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with two quantisations of one model."""
    with serving() as server:
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        weights = starter_with(home / "weights", general__name="Second").read_bytes()
        files: dict[str, bytes | Path] = {
            "README.md": "# 第二个模型\n\n说明。".encode(),
            "second-Q4_K_M.gguf": weights,
            "second-Q8_0.gguf": weights + b"\0" * 4096,
        }
        server.add(REPO, files, tags=["gguf", "zh"], downloads=1234)
        yield server


async def at_models(it: Chat, name: str = "starter") -> ModelsScreen:
    """The models screen once it lists `name`."""
    await it.press("f3")
    await it.until(lambda: name in it.seen("#models"))
    screen = it.app.screen
    assert isinstance(screen, ModelsScreen)
    return screen


async def highlight(it: Chat, name: str) -> None:
    """Go to the line of the model `name`, by keys."""
    screen = it.app.screen
    assert isinstance(screen, ModelsScreen)
    await it.press("home")
    for _ in range(len(screen.query_one(RowList).lines)):
        if screen.highlighted == name:
            return
        await it.press("down")
    raise AssertionError(name)


async def dialog(it: Chat, kind: type) -> None:
    await it.until(lambda: isinstance(it.app.screen, kind))


# Using a model


async def test_another_model_is_loaded_and_answers() -> None:
    starter_with(gguf_folder() / "second.gguf", general__name="Second")
    async with chat() as it:
        first = it.engine
        screen = await at_models(it, "second")
        assert "*starter" in it.seen("#models") and "Q4_K_M" in it.seen("#models")
        assert "qwen3" in it.seen("#details") and "2,048" in it.seen("#details")
        assert screen.query_one("#models").has_focus and "Enter使用" in it.hints()
        await highlight(it, "second")
        await it.press("enter")
        await dialog(it, ConsultScreen)
        await it.until(lambda: it.app.session.engine.loaded and it.engine != first)
        assert "second" in it.header()
        assert t("consult.demonstration_short") not in it.header()
        assert settings_on_disk().model == "second"
        turn = await it.ask("你好")
        assert (turn.model, turn.demonstration) == ("second", False)
        assert t("consult.by_model") in it.seen("#transcript")


async def test_profiles_that_do_not_work_say_why_and_cannot_be_chosen() -> None:
    async with chat() as it:
        await it.press("f9")
        await dialog(it, Choose)
        profiles = it.app.screen.query_one(OptionList)
        for name in ("gpu8", "gpu16"):
            option = profiles.get_option(name)
            assert option.disabled
            assert "GPU" in str(option.prompt)
        assert "*" + t("profile.auto") in it.seen("#choices")
        engine = it.engine
        await it.press("end", "enter")
        await it.until(lambda: it.app.settings.profile == "cpu")
        await it.until(lambda: it.app.session.engine.loaded and it.engine != engine)
        assert settings_on_disk().profile == "cpu"


async def test_broken_models_are_listed_with_their_problem_and_not_loaded() -> None:
    (gguf_folder() / "broken.gguf").write_text("网页", "utf8")
    async with chat() as it:
        engine = it.engine
        await at_models(it, "broken")
        await highlight(it, "broken")
        assert "GGUF" in it.seen("#details")
        await it.press("enter")
        await it.until(lambda: it.notice())
        assert isinstance(it.app.screen, ModelsScreen)
        assert "broken.gguf" in it.notice()
        assert it.app.settings.model == "starter"
        assert it.engine == engine


async def test_models_put_there_later_are_found_by_another_scan() -> None:
    async with chat(loaded=False) as it:
        await at_models(it)
        starter_with(gguf_folder() / "second.gguf")
        await it.press("r")
        await it.until(lambda: "second" in it.seen("#models"))
        await it.press("escape")
        assert isinstance(it.app.screen, ConsultScreen)


async def test_a_scan_leaves_the_highlight_where_it_is_among_names_of_one_file(user_home: Path) -> None:
    store = user_home / ".ollama" / "models"
    write(store / "blobs" / f"sha256-{'a' * 64}")
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'a' * 64}"}
    for tag in ("4b", "latest"):
        put_json(store / "manifests/registry.ollama.ai/library/qwen3" / tag, {"layers": [layer]})
    async with chat(loaded=False) as it:
        screen = await at_models(it, "qwen3:latest")
        await highlight(it, "qwen3:latest")
        write(gguf_folder() / "another.gguf")
        await it.press("r")
        await it.until(lambda: "another" in it.seen("#models"))
        assert screen.highlighted == "qwen3:latest"


# Adapters


async def test_an_adapter_is_used_with_its_base_which_stays_loaded() -> None:
    lora(gguf_folder() / "shift.gguf")
    async with chat() as it:
        engine = it.engine
        await at_models(it, "shift")
        assert "+shift" in it.seen("#models")
        await highlight(it, "shift")
        await it.press("enter")
        await it.until(lambda: it.app.settings.adapter == "shift" and "load" not in it.working())
        assert it.engine == engine
        assert "starter+shift" in it.header()
        await at_models(it, "shift")
        await it.press("s")
        await dialog(it, AskText)
        it.app.screen.query_one(Input).clear()
        await it.type("0.5\r")
        await it.until(lambda: it.app.settings.adapter_scale == 0.5 and "load" not in it.working())
        assert it.engine == engine
        assert settings_on_disk().adapter_scale == 0.5
        turn = await it.ask("你好")
        assert turn.adapter == "shift"


async def test_a_strength_belongs_to_the_adapter_that_it_was_set_for() -> None:
    lora(gguf_folder() / "shift.gguf")
    lora(gguf_folder() / "turn.gguf", seed=2)

    async def use(it: Chat, name: str) -> float:
        await at_models(it, name)
        await highlight(it, name)
        await it.press("enter")
        await it.until(lambda: it.app.settings.adapter == name and "load" not in it.working())
        return it.app.settings.adapter_scale

    async with chat(plainly(adapter="shift", adapter_scale=0.5)) as it:
        assert await use(it, "shift") == 0.5
        assert await use(it, "turn") == 1.0


async def test_a_scan_looks_at_the_free_memory_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = hardware.read()

    async def scan(it: Chat, free: int) -> None:
        now = replace(machine, ram_available=free, gpus=[])
        monkeypatch.setattr(hardware, "read", lambda: now)
        await it.press("r")
        await it.until(lambda: flat(size(free)) in it.header())
        await it.until(lambda: flat(fit.size_text(free)) in it.seen("#details"))

    async with chat(loaded=False) as it:
        await at_models(it)
        await scan(it, 2 * GIB)
        await scan(it, 7 * GIB)


async def test_a_strength_that_is_none_is_told() -> None:
    lora(gguf_folder() / "shift.gguf")
    async with chat(plainly(adapter="shift")) as it:
        await at_models(it, "shift")
        await it.press("s")
        await dialog(it, AskText)
        it.app.screen.query_one(Input).clear()
        await it.type("7\r")
        await it.until(lambda: flat(t("models.scale_bad")) in it.notice())
        assert it.app.settings.adapter_scale == 1.0


async def test_an_adapter_without_its_base_offers_to_fetch_that(hub: HubServer) -> None:
    put_lora(gguf_folder() / "medical", base_model_name_or_path=REPO)
    async with chat(loaded=False) as it:
        await at_models(it, "medical")
        await highlight(it, "medical")
        assert REPO in it.seen("#details")
        await it.press("enter")
        await dialog(it, Confirm)
        await it.press("y")
        await dialog(it, FetchScreen)
        await it.until(lambda: REPO in it.seen("#found"))


async def test_an_adapter_whose_base_is_here_and_does_not_fit_is_refused(home: Path) -> None:
    put_base(gguf_folder() / "Qwen" / "Tiny", CONFIG | {"vocab_size": 64})
    put_lora(gguf_folder() / "medical", base_model_name_or_path="Qwen/Tiny")
    tensors = {"base_model.model.lm_head.lora_A.weight": [4, 96]}
    put_safetensors(gguf_folder() / "medical" / "adapter_model.safetensors", tensors)
    async with chat(loaded=False) as it:
        await at_models(it, "medical")
        await highlight(it, "medical")
        await it.press("enter")
        await it.until(lambda: "96" in it.notice())
        assert isinstance(it.app.screen, ModelsScreen)


# Import, rename, remove, read


async def test_a_file_is_imported_by_copying(tmp_path: Path) -> None:
    elsewhere = starter_with(tmp_path / "elsewhere.gguf", general__name="Second")
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("i")
        await dialog(it, AskText)
        await it.type(f"{elsewhere}\r")
        await dialog(it, Choose)
        await it.press("enter")
        await it.until(lambda: "elsewhere" in it.seen("#models"))
        assert (paths.model_store() / "elsewhere.gguf").read_bytes() == elsewhere.read_bytes()


async def test_what_is_no_model_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("...", "utf8")
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("i")
        await dialog(it, AskText)
        await it.type(f"{tmp_path / 'notes.txt'}\r")
        await dialog(it, Choose)
        await it.press("enter")
        await it.until(lambda: "notes.txt" in it.notice())
        assert not list(paths.model_store().glob("notes*"))


async def test_the_model_in_use_is_renamed_and_stays_in_use() -> None:
    starter_with(gguf_folder() / "second.gguf", general__name="Second")
    async with chat(plainly(model="second")) as it:
        await at_models(it, "second")
        await it.press("n")
        await dialog(it, AskText)
        it.app.screen.query_one(Input).clear()
        await it.type("我的模型\r")
        await it.until(lambda: "*我的模型" in it.seen("#models"))
        assert settings_on_disk().model == "我的模型"


async def test_a_model_is_removed_after_a_question() -> None:
    file = starter_with(gguf_folder() / "second.gguf", general__name="Second")
    async with chat(loaded=False) as it:
        await at_models(it, "second")
        await highlight(it, "second")
        await it.press("delete")
        await dialog(it, Confirm)
        assert "17.1MB" in it.seen("#dialog")
        await it.press("n")
        assert file.exists()
        await it.press("delete")
        await dialog(it, Confirm)
        await it.press("y")
        await it.until(lambda: "second" not in it.seen("#models"))
        assert not file.exists()


async def test_the_bundled_model_cannot_be_removed() -> None:
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("delete")
        await it.until(lambda: it.notice())
        assert "starter" in it.notice()
        assert paths.starter().exists()


async def test_what_the_files_say_and_the_card_can_be_read() -> None:
    base = put_base(gguf_folder() / "org" / "base")
    (base / "README.md").write_text("---\nlicense: mit\n---\n# 卡片\n\n正文", "utf8")
    async with chat(loaded=False) as it:
        await at_models(it, "org/base")
        await it.press("end", "v")
        await dialog(it, Reader)
        await it.until(lambda: "qwen3.block_count:8" in it.seen("#text") or "qwen3" in it.seen("#text"))
        await it.press("escape")
        await highlight(it, "org/base")
        await it.press("c")
        await dialog(it, Reader)
        await it.until(lambda: "卡片正文" in it.seen("#text"))
        assert "license" not in it.seen("#text")


# Fetching


async def test_a_model_is_found_fetched_and_answers(hub: HubServer) -> None:
    async with chat() as it:
        await at_models(it)
        await it.press("d")
        await dialog(it, FetchScreen)
        await it.type("second\r")
        await it.until(lambda: REPO in it.seen("#found"))
        assert "1,234" in it.seen("#found")
        await it.until(lambda: "第二个模型说明。" in it.seen("#card"))
        await it.press("enter")
        await dialog(it, Choose)
        assert "*Q8_0" in it.seen("#choices") and "Q4_K_M" in it.seen("#choices")
        await it.press("up", "enter")
        await dialog(it, ModelsScreen)
        await it.until(lambda: t("downloads.phase_done") in it.seen("DownloadList"))
        await it.until(lambda: "second-Q4_K_M" in it.seen("#models"))
        assert REPO in it.notice()
        name = f"{REPO}/second-Q4_K_M"
        await highlight(it, name)
        await it.press("enter")
        await it.until(lambda: it.app.settings.model == name and "load" not in it.working())
        assert (await it.ask("你好")).model == name


async def test_of_two_files_of_one_quantisation_either_can_be_fetched(hub: HubServer) -> None:
    files = {
        f"{name}-Q4_K_M.gguf": name[:1].encode() * count for name, count in (("one", 2000), ("two", 3000))
    }
    hub.add("drkun/twins", {**files, "README.md": b"# card", "model.safetensors": b"x" * 4000})
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("d")
        await dialog(it, FetchScreen)
        await it.type("twins\r")
        await it.until(lambda: "drkun/twins" in it.seen("#found"))
        await it.press("enter")
        await dialog(it, Choose)
        assert "one-Q4_K_M" in it.seen("#choices") and "two-Q4_K_M" in it.seen("#choices")
        assert "safetensors" in it.seen("#choices")
        await it.press("home", "enter")
        await dialog(it, ModelsScreen)
        await it.until(lambda: t("downloads.phase_done") in it.seen("DownloadList"))
    got = {path.name for path in (paths.model_store() / "drkun" / "twins").iterdir()}
    assert got == {"one-Q4_K_M.gguf", "README.md"}


def test_downloads_at_work_are_summed_up() -> None:
    request = Request(hub="hf", repo="a/b", store="/")
    one = Download(
        id="1", request=request, phase="downloading", done=10**9, total=3 * 10**9, speed=5e7, files={}
    )
    assert _title([one]) == t("downloads.title")
    told = _title([one, replace(one, done=2 * 10**9), replace(one, phase="done")])
    assert "3.0 /  6.0 GB" in told and "100 MB/s" in told and "30" in told


async def test_filters_narrow_a_search(hub: HubServer) -> None:
    hub.add("drkun/second-safetensors", {"model.safetensors": b"x" * 2000}, tags=["safetensors"])
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("d")
        await dialog(it, FetchScreen)
        await it.type("second\r")
        await it.until(lambda: "second-safetensors" in it.seen("#found"))
        await it.press("g")
        assert "GGUF" in it.seen("#filters")
        await it.until(lambda: "second-safetensors" not in it.seen("#found"))
        assert REPO in it.seen("#found")
        await it.press("h")
        assert "ModelScope" in it.seen("#filters")


async def test_what_must_be_accepted_first_is_told(hub: HubServer) -> None:
    hub.add("drkun/locked", {"a.gguf": b"x" * 2000}, gated=True)
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("d")
        await dialog(it, FetchScreen)
        await it.type("locked\r")
        await it.until(lambda: "drkun/locked" in it.seen("#found"))
        assert t("fetch_screen.gated") in it.seen("#found")
        await it.press("enter")
        await dialog(it, Choose)
        await it.press("enter")
        await dialog(it, ModelsScreen)
        await it.until(lambda: "drkun/locked" in it.notice())
        assert [download.phase for download in it.app.downloads_now] == ["failed"]


@pytest.mark.parametrize(("key", "coming"), [("y", 2), ("n", 1)])
async def test_an_adapter_of_the_list_offers_its_base_too(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, key: str, coming: int
) -> None:
    adapter, base = medical_on(hub, monkeypatch)
    async with chat(loaded=False) as it:
        await choose_medical(it, adapter)
        assert flat(t("fetch_screen.needs", base=base)) in it.seen("#card-title")
        await it.press("enter")
        await dialog(it, Choose)
        assert t("fetch_screen.fits") in it.seen("#choices")
        await it.press("enter")
        await dialog(it, Confirm)
        assert base in it.seen("#dialog")
        await it.press(key)
        await dialog(it, ModelsScreen)
        await it.until(lambda: [d.phase for d in it.app.downloads_now] == ["done"] * coming)
        assert (base in {download.request.repo for download in it.app.downloads_now}) is (key == "y")


async def test_a_base_that_is_here_is_not_offered_again(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, base = medical_on(hub, monkeypatch)
    put_base(gguf_folder() / base)
    async with chat(loaded=False) as it:
        await choose_medical(it, adapter)
        await it.press("enter")
        await dialog(it, Choose)
        await it.press("enter")
        await dialog(it, ModelsScreen)
        await it.until(lambda: [d.request.repo for d in it.app.downloads_now] == [adapter])


def medical_on(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A machine whose list holds an adapter, which the hub has, and its base; their names."""
    card = Gpu("Card", 8 * GIB, 15 * GIB // 2, "nvidia 1", "nvidia")
    machine = replace(hardware.read(), gpus=[card])
    monkeypatch.setattr(hardware, "read", lambda: machine)
    adapter, base = "Sogrey/Chinese-medical-lora", "Qwen/Qwen3-4B"
    hub.add(adapter, {"adapter_model.safetensors": b"x" * 3000, "README.md": b"# lora"})
    hub.add(base, {"model.safetensors": b"x" * 5000, "README.md": b"# base"})
    return adapter, base


async def choose_medical(it: Chat, adapter: str) -> None:
    await at_models(it)
    await it.press("d")
    await dialog(it, FetchScreen)
    await it.until(lambda: adapter in it.seen("#found"))
    await it.press("tab", "down")
    await it.until(lambda: adapter in it.seen("#card-title"))


async def test_a_hub_that_cannot_be_asked_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody listens there, and nobody else is given this port.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("d")
        await dialog(it, FetchScreen)
        await it.type("second\r")
        await it.until(lambda: "127.0.0.1" in it.notice())
        assert isinstance(it.app.screen, FetchScreen)


async def test_a_download_is_paused_resumed_and_cancelled(hub: HubServer) -> None:
    hub.fault("second-Q8_0.gguf", what="hold", at=1_000_000)
    async with chat(loaded=False) as it:
        await at_models(it)
        await it.press("d")
        await dialog(it, FetchScreen)
        await it.type("second\r")
        await it.until(lambda: REPO in it.seen("#found"))
        await it.press("enter")
        await dialog(it, Choose)
        await it.press("enter")
        await it.until(hub.held.is_set)
        await it.until(lambda: REPO in it.seen("DownloadList"))
        await it.press("tab")
        assert "Space" in it.hints()
        await it.press("space")
        await it.until(lambda: flat(t("downloads.phase_paused")) in it.seen("DownloadList"))
        await it.until(lambda: t("inventory.unfinished") in it.seen("#models"))
        hub.release.set()
        await it.press("space")
        await it.until(lambda: t("downloads.phase_done") in it.seen("DownloadList"))
        assert hub.ranges("second-Q8_0.gguf")[-1].startswith("bytes=")
        await it.press("delete")
        await it.until(lambda: not it.app.downloads_now)
        assert list(paths.model_store().rglob("*.gguf"))


async def test_the_guide_fetches_a_model_and_then_uses_it(hub: HubServer, home: Path) -> None:
    model = first_choice(hardware.read())
    weights = starter_with(home / "weights", general__name="Proposed")
    hub.add(model.repo, {f"model-{model.quant}.gguf": weights})
    async with chat() as it:
        await it.until(lambda: model.repo in it.seen("#transcript"))
        await it.press("f12")
        await it.until(lambda: it.app.downloads_now and it.app.downloads_now[0].phase == "done")
        await it.until(lambda: flat(t("guide.arrived", model="", size="")) in it.seen("#transcript"))
        assert it.app.settings.model == "starter"
        await it.press("f12")
        await it.until(lambda: it.app.settings.model.startswith(model.repo))
        await it.until(lambda: "load" not in it.working())
        assert (await it.ask("你好")).model.startswith(model.repo)


def test_the_guide_says_when_its_model_does_not_fit_and_stays_with_it(
    home: Path, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = replace(hardware.read(), ram_total=16 * GIB, gpus=[])

    def free(gib: float) -> None:
        monkeypatch.setattr(hardware, "read", lambda: replace(machine, ram_available=int(gib * GIB)))

    free(0.5)
    tight = proposal(plainly(), [])
    assert tight is not None and tight.model.repo == "Qwen/Qwen3-0.6B-GGUF"
    shown = {"model": "Qwen/Qwen3-0.6B-GGUF Q8_0", "size": "639 MB", "minutes": 2}
    assert tight.text == t("guide.propose_tight", free=size(GIB // 2), **shown)
    free(12)
    later = proposal(plainly(), [], tight)
    assert later is not None and later.model == tight.model
    assert later.text == t("guide.propose", **shown)
    request = later.request("hf")
    coming = Download(id="1", request=request, phase="downloading", files={})
    free(1)
    on_its_way = proposal(plainly(), [coming], later)
    assert on_its_way is not None and on_its_way.model == tight.model
    assert on_its_way.text == t("guide.coming", **shown)


async def test_who_has_a_model_gets_no_guide(hub: HubServer) -> None:
    starter_with(gguf_folder() / "mine.gguf", general__name="Mine")
    async with chat() as it:
        await it.until(lambda: "proposal" not in it.working())
        await it.press("f12")
        assert flat(t("guide.nothing")) in it.notice()
        assert not it.app.downloads_now
