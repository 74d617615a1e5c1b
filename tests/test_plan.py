"""From a wish to a load: which file, how much context, how many threads, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from drkun_tui import hardware, llama_build, paths
from drkun_tui.engine.protocol import Load
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_NO_MODEL, DrkunError
from drkun_tui.library import inventory
from drkun_tui.library.plan import STARTER, folders, loadable, plan_load
from drkun_tui.profiles import Profile
from drkun_tui.settings import Settings
from tests.gguf_files import metadata, write


@pytest.fixture
def models(home: Path) -> Path:
    """The model store with some small models in it."""
    store = paths.model_store()
    write(store / "tiny.gguf", metadata())
    write(store / "qwen3-lora.gguf", metadata(general__type="adapter"))
    write(store / "llama-lora.gguf", metadata("llama", general__type="adapter"))
    (store / "text.gguf").write_text("这不是模型")
    (store / "empty.gguf").write_bytes(b"")
    (store / "truncated.gguf").write_bytes(paths.starter().read_bytes()[:5_000_000])
    return store


def refused(settings: Settings) -> DrkunError:
    with pytest.raises(DrkunError) as raised:
        plan_load(settings)
    error = raised.value
    assert error.message
    assert error.hint
    assert "\n" not in error.message + error.hint
    return error


def test_the_bundled_model_by_default(home: Path) -> None:
    plan = plan_load(Settings())
    assert (plan.model.name, plan.model.demonstration, plan.adapter) == (STARTER, True, None)
    assert plan.profile is Profile.CPU
    assert Path(plan.load.path) == paths.starter()
    assert plan.load.context_length == 2048
    assert plan.load.threads == hardware.read().physical_cores
    assert (plan.load.engine, plan.load.adapter, plan.load.safe_mode) == ("llama_cpp", None, False)
    assert "CPU" in plan.reason
    assert "2,048" in plan.reason
    assert plan.notice == ""


def test_wishes_are_kept_within_what_the_model_can(home: Path) -> None:
    load = plan_load(Settings(context_length=1024, threads=3)).load
    assert (load.context_length, load.threads) == (1024, 3)
    assert plan_load(Settings(context_length=1_000_000)).load.context_length == 2048


def test_models_by_name_by_path_and_in_further_folders(models: Path, tmp_path: Path) -> None:
    assert Path(plan_load(Settings(model="tiny")).load.path) == models / "tiny.gguf"
    further = write(tmp_path / "elsewhere" / "other.gguf", metadata())
    assert Path(plan_load(Settings(model=str(further))).load.path) == further
    assert refused(Settings(model="other")).kind == "model_not_found"
    settings = Settings(model="other", model_folders=[str(further.parent)])
    assert Path(plan_load(settings).load.path) == further
    assert folders(settings)[:3] == [*paths.model_folders(), further.parent]


def test_a_folder_from_home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / "gguf" in folders(Settings(model_folders=["~/gguf"]))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("nothing", "model_not_found"),
        ("/no/such/file.gguf", "model_not_found"),
        ("", "model_not_found"),
        ("text", "gguf_not_gguf"),
        ("empty", "gguf_empty"),
        ("truncated", "gguf_truncated"),
        ("qwen3-lora", "model_unusable"),
    ],
)
def test_what_cannot_be_loaded_is_refused(models: Path, model: str, kind: str) -> None:
    error = refused(Settings(model=model))
    assert (error.kind, error.exit_code) == (kind, EXIT_NO_MODEL)


def test_a_refused_model_can_be_replaced_by_the_bundled_one(models: Path) -> None:
    plan = plan_load(Settings(model="text", adapter="qwen3-lora"), fall_back=True)
    assert (plan.model.name, plan.adapter) == (STARTER, None)
    assert Path(plan.load.path) == paths.starter()
    assert plan.load.adapter is None
    assert "text.gguf" in plan.notice


@pytest.mark.parametrize("profile", ["gpu8", "gpu16", "remote"])
def test_a_profile_that_does_not_work_here(home: Path, profile: Literal["gpu8", "gpu16", "remote"]) -> None:
    """Settings may come from another machine: with the fall-back one can ask all the same."""
    error = refused(Settings(profile=profile))
    assert (error.kind, error.exit_code) == ("profile_unavailable", EXIT_BAD_INPUT)
    plan = plan_load(Settings(profile=profile), fall_back=True)
    assert (plan.model.name, plan.profile) == (STARTER, Profile.CPU)
    assert error.message in plan.notice


def test_nothing_replaces_the_bundled_model_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "starter", lambda: home / "gone" / "starter.gguf")
    with pytest.raises(DrkunError) as raised:
        plan_load(Settings(), fall_back=True)
    assert raised.value.kind == "model_not_found"


def test_an_adapter_of_the_same_architecture(models: Path) -> None:
    plan = plan_load(Settings(adapter="qwen3-lora"))
    assert plan.adapter
    assert plan.adapter.name == "qwen3-lora"
    assert plan.load.adapter == str(models / "qwen3-lora.gguf")


@pytest.mark.parametrize(
    ("adapter", "kind"),
    [
        ("nothing", "model_not_found"),
        ("tiny", "adapter_not_usable"),
        ("text", "adapter_not_usable"),
        ("llama-lora", "adapter_mismatch"),
    ],
)
def test_an_adapter_that_does_not_fit(models: Path, adapter: str, kind: str) -> None:
    error = refused(Settings(adapter=adapter))
    assert (error.kind, error.exit_code) == (kind, EXIT_NO_MODEL)


def test_a_model_larger_than_memory_is_planned_with_a_warning(models: Path) -> None:
    """Only the engine can know for sure."""
    huge = [("token_embd.weight", (1024, 1_000_000_000), 0), ("output_norm.weight", (1024,), 0)]
    write(models / "huge.gguf", metadata(), huge)
    plan = plan_load(Settings(model="huge"))
    assert "GiB" in plan.notice
    assert plan.load.context_length <= 512


def test_a_gguf_goes_to_the_gpu_as_far_as_it_fits(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [(f"blk.{n}.ffn_up.weight", (1024, 250_000), 0) for n in range(4)]
    write(models / "four.gguf", metadata(qwen3__block_count=4), layers)
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "CUDA")

    def planned(free: int, **wishes: str) -> Load:
        card = hardware.Gpu("NVIDIA Made Up", 24 << 30, free, "nvidia", "nvidia")
        machine = hardware.Hardware("cpu", 4, 8, 64 << 30, 64 << 30, [card])
        monkeypatch.setattr(hardware, "read", lambda: machine)
        return plan_load(Settings(model="four", **wishes)).load  # type: ignore[arg-type]

    whole = planned(20 << 30)
    assert (whole.device, whole.gpu_layers, whole.engine) == ("cuda", whole_layers() + 1, "llama_cpp")
    some = planned(3 << 30)
    assert some.device == "cuda"
    assert 0 < some.gpu_layers < whole_layers()
    assert planned(1 << 20).gpu_layers == 0
    assert planned(1 << 20).device == "cpu"
    quantised = planned(20 << 30, kv_cache="q8_0", flash_attention="on")
    assert (quantised.kv_cache, quantised.flash_attention) == ("q8_0", "on")


def test_a_model_goes_to_the_card_with_the_most_room(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no card holds alone may have them all."""
    layers = [(f"blk.{n}.ffn_up.weight", (1024, 250_000), 0) for n in range(4)]
    write(models / "four.gguf", metadata(qwen3__block_count=4), layers)
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "CUDA")

    def planned(*free: int) -> Load:
        cards = [
            hardware.Gpu("NVIDIA Made Up", 24 << 30, bytes_, "nvidia", "nvidia", uuid=f"GPU-{number}")
            for number, bytes_ in enumerate(free)
        ]
        machine = hardware.Hardware("cpu", 4, 8, 64 << 30, 64 << 30, cards)
        monkeypatch.setattr(hardware, "read", lambda: machine)
        return plan_load(Settings(model="four")).load

    assert planned(1 << 30, 20 << 30).gpu == "GPU-1"
    assert planned(20 << 30, 1 << 30).gpu == "GPU-0"
    assert planned(3 << 30, 3 << 30).gpu == ""
    assert planned(1 << 20).gpu == ""


def whole_layers() -> int:
    """Of the model above."""
    shape = inventory.find("four", folders(Settings())).shape
    assert shape is not None
    return shape.layers


def test_loadable_models(models: Path) -> None:
    found = {model.name: loadable(model) for model in inventory.scan(folders(Settings()))}
    assert found == {
        **dict.fromkeys(("starter", "tiny"), True),
        **dict.fromkeys(("qwen3-lora", "llama-lora", "text", "empty", "truncated"), False),
    }
