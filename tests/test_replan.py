"""Planning the next model while one is loaded, which gives back what it holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from drkun_tui import hardware, llama_build, paths, profiles
from drkun_tui.consult.session import Session
from drkun_tui.engine import client
from drkun_tui.engine.protocol import Ready
from drkun_tui.hardware import Gpu, GpuUse, Hardware
from drkun_tui.library.held import Held, freed
from drkun_tui.library.plan import STARTER, Plan, plan_load
from drkun_tui.profiles import Profile
from drkun_tui.settings import Settings
from drkun_tui.ui import room
from drkun_tui.ui.screens.models import ModelsScreen
from tests.conftest import MakeChild
from tests.gguf_files import lora
from tests.model_files import put_json, put_lora, put_safetensors
from tests.ui_helpers import chat, is_running, plainly

GIB = 1024**3

QWEN3_4B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 2560,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "intermediate_size": 9728, "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def wished(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A model of Qwen3-4B's shape with two LoRAs, on a machine that has every package."""
    monkeypatch.setattr(profiles, "installed", lambda _: True)
    monkeypatch.setattr(profiles, "torch_has_cuda", lambda: True)
    base = paths.model_store() / "Qwen3-4B"
    put_json(base / "config.json", QWEN3_4B)
    layers = {f"model.layers.{n}": [39_424, 2560] for n in range(36)}
    put_safetensors(base / "model.safetensors", {"model.embed_tokens.weight": [151_936, 2560], **layers})
    put_lora(paths.model_store() / "first")
    put_lora(paths.model_store() / "second")
    return Settings(model="Qwen3-4B")


def machine(free: float, *, total: float = 16, uuid: str = "GPU-1", ram: float = 32) -> Hardware:
    card = Gpu("NVIDIA Made Up", int(total * GIB), int(free * GIB), "nvidia 1", "nvidia", uuid=uuid)
    return Hardware("cpu", 4, 8, 64 * GIB, int(ram * GIB), [card])


def ready(reserved: float = 0, cpu_layers: int = 0) -> Ready:
    return Ready(
        engine="made up",
        architecture="qwen3",
        parameters=1,
        size_bytes=1,
        context_length=1,
        threads=1,
        load_s=0.0,
        safe_mode=False,
        has_template=True,
        can_toggle_thinking=True,
        reserved_bytes=int(reserved * GIB),
        cpu_layers=cpu_layers,
    )


def again(settings: Settings, loaded: Plan, now: Hardware, reserved: float = 9.0) -> Plan:
    """The plan for what is wished now, while the model of the other one is loaded."""
    held = loaded.held(ready(reserved), None)
    return plan_load(settings, machine=freed(now, held), loaded=loaded)


def test_what_the_loaded_model_holds_is_there_for_the_next_plan(wished: Settings) -> None:
    first = plan_load(wished, machine=machine(15.4))
    assert (first.profile, first.load.context_length) == (Profile.GPU16, 8192)
    now = machine(5.9)
    for changes in (
        {"context_length": 4096},
        {"profile": "gpu16"},
        {"adapter": "first", "context_length": 4096},
    ):
        plan = again(msgspec.structs.replace(wished, **changes), first, now)
        assert (plan.profile, plan.load.gpu) == (Profile.GPU16, "GPU-1")
        assert plan.load.context_length == changes.get("context_length", 8192)


def test_a_whole_context_in_four_bits_is_taken_over_a_scrap_in_sixteen(wished: Settings) -> None:
    plan = plan_load(wished, machine=machine(8.5))
    assert (plan.profile, plan.load.context_length) == (Profile.GPU8, 8192)
    short = msgspec.structs.replace(wished, context_length=512)
    assert plan_load(short, machine=machine(8.5)).profile is Profile.GPU16


def test_another_adapter_leaves_the_rest_as_it_was_loaded(wished: Settings) -> None:
    tight = msgspec.structs.replace(wished, profile="gpu16")
    first = plan_load(tight, machine=machine(9.2))
    assert 512 < first.load.context_length < 8192
    # Another program has left meanwhile: that is no reason to load the model anew.
    now = machine(7, uuid="GPU-1")
    plan = first
    for changes in ({"adapter": "first"}, {"adapter": "second"}, {"adapter_scale": 0.5}, {"adapter": None}):
        tight = msgspec.structs.replace(tight, theme="other", **changes)
        plan = again(tight, plan, now)
        assert plan.load == msgspec.structs.replace(
            first.load, adapter=plan.load.adapter, adapter_scale=plan.load.adapter_scale
        )
        assert plan.name == " + ".join(filter(None, ("Qwen3-4B", tight.adapter)))
        assert (plan.profile, plan.reason) == (first.profile, first.reason)
    # Whoever wishes for the same again wants it loaded again.
    assert again(tight, plan, now).load.context_length == 8192


def test_an_adapter_that_finds_no_room_beside_the_model_is_another_load(wished: Settings) -> None:
    first = plan_load(wished, machine=machine(15.4))
    put_safetensors(paths.model_store() / "first" / "adapter_model.safetensors", {"a": [GIB // 2]})
    plan = again(msgspec.structs.replace(wished, adapter="first"), first, machine(0.2))
    assert plan.load.context_length < first.load.context_length or plan.profile is Profile.GPU8


def test_what_was_not_loaded_by_these_wishes_is_planned_anew(wished: Settings) -> None:
    first = plan_load(wished, machine=machine(15.4))
    adapted = msgspec.structs.replace(wished, adapter="first", profile="cpu")
    assert again(adapted, first, machine(5.9)).profile is Profile.CPU
    fallen = plan_load(Settings(model="gone"), fall_back=True, machine=machine(15.4))
    assert fallen.model.name == STARTER
    assert again(msgspec.structs.replace(wished, adapter="first"), fallen, machine(5.9)).name == (
        "Qwen3-4B + first"
    )


# What is held


def test_what_a_model_holds(wished: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = plan_load(wished, machine=machine(15.4))
    held = safetensors.held(ready(9), None)
    assert held.card == "GPU-1"
    # CUDA's own part is not in what PyTorch reserves.
    assert 9.2 < held.gpu / GIB < 9.7
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "CUDA")
    gguf = plan_load(Settings(model=STARTER), machine=machine(15.4))
    assert gguf.load.device == "cuda"
    whole, half = gguf.held(ready(), None), gguf.held(ready(cpu_layers=9), None)
    assert 0 < half.gpu < whole.gpu < GIB
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "")
    assert plan_load(Settings(model=STARTER), machine=machine(15.4)).held(ready(), None) == Held()


def test_what_is_given_back_is_no_more_than_there_is() -> None:
    card = machine(10).gpus[0]
    full = dataclasses.replace(card, free_bytes=GIB, uuid="GPU-2")
    two = dataclasses.replace(machine(10), gpus=[card, full])
    assert [gpu.free_bytes // GIB for gpu in freed(two, Held(4 * GIB, card="GPU-2")).gpus] == [10, 5]
    assert [gpu.free_bytes // GIB for gpu in freed(two, Held(40 * GIB)).gpus] == [16, 1]
    assert freed(two, Held(ram=2 * GIB)).ram_available == 34 * GIB
    assert freed(two, Held(ram=200 * GIB)).ram_available == 64 * GIB
    assert freed(two, Held()) == two


# In the program


def with_card(monkeypatch: pytest.MonkeyPatch, free: int, left: int) -> list[bool]:
    """A card, and a llama.cpp that would use it; so much is free before and after the list has an element."""
    taken: list[bool] = []
    here = hardware.read()

    def read() -> Hardware:
        card = Gpu("card", 8 * GIB, left if taken else free, "nvidia 1", "nvidia", uuid="GPU-1")
        return dataclasses.replace(here, gpus=[card])

    monkeypatch.setattr(hardware, "read", read)
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "CUDA")
    return taken


async def test_the_model_stays_on_the_card_that_it_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is real, and computes on the CPU what it is told to take to the card."""
    lora(paths.model_store() / "shift.gguf")
    taken = with_card(monkeypatch, GIB, 200 * 1024**2)
    uses = {"GPU-1": GpuUse(3 * GIB, 8 * GIB, 50)}
    monkeypatch.setattr(hardware, "gpu_use", uses.get)
    async with chat(plainly()) as it:
        session = it.app.session
        assert session.plan is not None and session.plan.load.device == "cuda"
        taken.append(True)
        held = room.held(session)
        assert (held.card, 0 < held.gpu < GIB) == ("GPU-1", True)
        await it.until(lambda: "3.0/8.0" in it.header())
        pid = it.engine
        it.app.change_settings(adapter="shift")
        it.app.load_model()
        await it.until(lambda: session.plan and session.plan.adapter and "load" not in it.working())
        assert it.engine == pid
        it.app.change_settings(profile="gpu16")
        it.app.load_model()
        await it.until(lambda: it.app.session.engine.pid not in (pid, None) and session.engine.loaded)
        assert (session.plan.profile, session.plan.notice) == (Profile.GPU16, "")
        await it.press("f3")
        screen = it.app.screen
        assert isinstance(screen, ModelsScreen)
        await it.until(lambda: screen._entries)
        (starter,) = (entry for entry in screen._entries if entry.model.name == STARTER)
        assert all(fit.fits for fit in starter.fits.values())


async def test_a_model_that_is_still_loading_leaves_before_the_next_is_planned(
    child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "HOST", child("import sys; sys.stdin.read()"))
    async with chat(loaded=False) as it:
        await it.until(lambda: it.app.session.engine.pid)
        pid, read = it.engine, room.machine
        running: list[bool] = []

        def look(session: Session) -> Hardware:
            running.append(is_running(pid))
            return read(session)

        monkeypatch.setattr(room, "machine", look)
        it.app.load_model()
        await it.until(lambda: running)
        assert running == [False]


async def test_a_model_on_the_cpu_gives_back_memory() -> None:
    async with chat() as it:
        held = room.held(it.app.session)
        assert (held.gpu, held.card) == (0, "")
        # Its cache and buffers at least.
        assert held.ram > 10 * 1024**2
        await it.app.session.engine.close()
        assert room.held(it.app.session) == Held()
