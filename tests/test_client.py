"""The interface's end of the engine: what it survives, and what it says when it cannot go on."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from drkun_tui import i18n, paths
from drkun_tui.engine import client, safe_mode
from drkun_tui.engine.client import EngineClient, Restarting
from drkun_tui.engine.protocol import Delta, Finished, Generate, Load, Loading, Ready, Started
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_NO_MODEL, DrkunError
from drkun_tui.sampling import Sampling
from tests.conftest import LONG, MakeChild, has_ended, starter_with, user

LOAD = Load(path=str(paths.starter()), context_length=1024, threads=1)
HELLO = Generate(id=0, messages=user("你好"), sampling=Sampling(temperature=0))

FRAGILE = """
    # The engine, on a machine that crashes on some requests.
    import os, signal, sys
    import msgspec
    from drkun_tui.engine import host
    from drkun_tui.engine.protocol import Delta, Loading

    def crash():
        print({last_words!r}, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.{signal})

    class Fragile(host.Host):
        def _load(self, request):
            if {load}:
                self._emit(Loading("start", 0.0))
                crash()
            super()._load(request)

        def _generate(self, request):
            if {generate}:
                crash()
            super()._generate(request)

        def _emit(self, event):
            super()._emit(event)
            if {answer} and isinstance(event, Delta):
                crash()

    def engine_of(request, made=host._engine):
        # There may be no GPU here.
        return made(msgspec.structs.replace(request, engine="llama_cpp", device="cpu"))

    host.Host, host._engine = Fragile, engine_of
    host.main()
"""

CRASHES_WHEN_ASKED = """
    import os, signal, sys
    from drkun_tui.engine import protocol
    from drkun_tui.engine.protocol import Load, Ready
    for line in sys.stdin.buffer:
        request = protocol.decode_request(line)
        if not isinstance(request, Load):
            os.kill(os.getpid(), signal.SIGSEGV)
        ready = Ready(
            engine="llama_cpp", architecture="", parameters=1, size_bytes=1, context_length=512,
            threads=1, load_s=0.1, safe_mode=request.safe_mode, has_template=True,
            can_toggle_thinking=True,
        )
        print(protocol.encode(ready).decode(), flush=True)
"""


@pytest.fixture
def engine(home: Path) -> EngineClient:
    return EngineClient(paths.engine_log(), paths.machine_file())


@pytest_asyncio.fixture(autouse=True)
async def closed(engine: EngineClient) -> AsyncIterator[None]:
    """No test leaves an engine behind."""
    yield
    await engine.close()
    assert engine.pid is None


@pytest.fixture
def fragile(child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> Fragile:
    return Fragile(child, monkeypatch)


class Fragile:
    """Puts an engine in the place of the real one that crashes where it is told, and else is the real one."""

    def __init__(self, child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> None:
        self._child = child
        self._monkeypatch = monkeypatch

    def __call__(
        self,
        *,
        load: str = "False",
        generate: str = "False",
        answer: str = "False",
        by: str = "SIGSEGV",
        last_words: str = "",
    ) -> None:
        source = FRAGILE.format(load=load, generate=generate, answer=answer, signal=by, last_words=last_words)
        self._monkeypatch.setattr(client, "HOST", self._child(source))


async def load(engine: EngineClient, request: Load = LOAD) -> list[Loading | Restarting | Ready]:
    return [event async for event in engine.load(request)]


async def ask(engine: EngineClient, request: Generate = HELLO) -> str:
    return "".join([event.answer async for event in engine.generate(request) if isinstance(event, Delta)])


async def error_of(doing: AsyncIterator[object]) -> DrkunError:
    """The error that ends it; its lines are such as one shows."""
    with pytest.raises(DrkunError) as raised:
        async for _ in doing:
            pass
    error = raised.value
    assert error.message
    assert "\n" not in error.message + error.hint
    assert "{" not in error.message + error.hint
    return error


def memory() -> object:
    return json.loads(paths.machine_file().read_bytes())


@pytest.mark.parametrize(
    ("changes", "seen"), [({"gpu": "GPU-1"}, ""), ({"device": "cuda", "gpu": "GPU-1"}, "GPU-1")]
)
async def test_an_engine_on_the_cpu_sees_no_card(
    engine: EngineClient,
    fragile: Fragile,
    monkeypatch: pytest.MonkeyPatch,
    known_machine: None,
    changes: dict[str, Any],
    seen: str,
) -> None:
    """A llama.cpp that was built for CUDA would put its buffers there."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    fragile(generate=f"os.environ['CUDA_VISIBLE_DEVICES'] != {seen!r}")
    await load(engine, msgspec.structs.replace(LOAD, **changes))
    assert await ask(engine)


# Safe mode


async def test_the_bundled_model_answers_on_this_very_machine(engine: EngineClient) -> None:
    """Whether or not it is one that crashes; one that does is remembered."""
    events = await load(engine)
    assert isinstance(events[-1], Ready)
    crashed = any(isinstance(event, Restarting) for event in events)
    assert crashed == events[-1].safe_mode == safe_mode.is_needed(paths.machine_file())
    assert "Dr. Kun" in await ask(engine)


async def test_a_machine_that_crashes_is_restarted_in_safe_mode_and_remembered(
    engine: EngineClient, fragile: Fragile
) -> None:
    fragile(load="not request.safe_mode")
    events = await load(engine)
    kinds = [type(event) for event in events]
    assert kinds.count(Restarting) == 1
    assert kinds[kinds.index(Restarting) + 1] is Loading
    assert isinstance(events[-1], Ready)
    assert events[-1].safe_mode
    assert engine.ready == events[-1]
    assert "Dr. Kun" in await ask(engine)
    assert memory() == {"safe_mode": [safe_mode.build_key()]}

    again = EngineClient(paths.engine_log(), paths.machine_file())
    events = await load(again)
    assert not any(isinstance(event, Restarting) for event in events)
    assert isinstance(events[-1], Ready)
    assert events[-1].safe_mode
    await again.close()


async def test_a_model_that_crashes_in_safe_mode_too_is_not_the_machines_fault(
    engine: EngineClient, fragile: Fragile
) -> None:
    fragile(load="True")
    seen: list[object] = []

    async def loading() -> AsyncIterator[object]:
        async for event in engine.load(LOAD):
            seen.append(event)
            yield event

    error = await error_of(loading())
    assert (error.kind, error.exit_code) == ("died_loading", EXIT_FAILED)
    assert "SIGSEGV" in error.message
    assert str(paths.engine_log()) in error.hint
    assert [type(event) for event in seen] == [Loading, Restarting, Loading]
    assert not paths.machine_file().exists()
    assert not engine.loaded


async def test_an_engine_that_is_killed_while_loading_is_not_restarted(
    engine: EngineClient, fragile: Fragile
) -> None:
    """As the kernel does when memory runs out."""
    fragile(load="True", by="SIGKILL")
    error = await error_of(engine.load(LOAD))
    assert error.kind == "died_loading"
    assert "SIGKILL" in error.message
    assert not paths.machine_file().exists()


@pytest.mark.usefixtures("known_machine")
async def test_a_crash_in_the_middle_of_an_answer_in_safe_mode(
    engine: EngineClient, fragile: Fragile
) -> None:
    fragile(generate="True")
    await load(engine)
    assert (await error_of(engine.generate(HELLO))).kind == "engine_died"
    assert not engine.loaded


async def test_a_crash_in_the_middle_of_an_answer_is_remembered(
    engine: EngineClient, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the warm-up did not show it: the next load is in safe mode."""
    monkeypatch.setattr(client, "HOST", child(CRASHES_WHEN_ASKED))
    await load(engine)
    assert "SIGSEGV" in (await error_of(engine.generate(HELLO))).message
    assert safe_mode.is_needed(paths.machine_file())
    [ready] = await load(engine)
    assert isinstance(ready, Ready)
    assert ready.safe_mode


ON_GPU = msgspec.structs.replace(LOAD, device="cuda", gpu_layers=99)
ELSEWHERE = [ON_GPU, msgspec.structs.replace(LOAD, engine="transformers")]
"""What knows nothing of llama.cpp's layouts on a CPU."""


@pytest.mark.parametrize("request_", ELSEWHERE)
async def test_only_llama_cpp_on_a_cpu_is_restarted_in_safe_mode(
    engine: EngineClient, fragile: Fragile, request_: Load
) -> None:
    fragile(load="True", by="SIGABRT")
    assert (await error_of(engine.load(request_))).kind == "died_loading"
    assert not paths.machine_file().exists()


@pytest.mark.parametrize("request_", ELSEWHERE)
async def test_a_crash_elsewhere_leaves_the_cpu_its_fast_layouts(
    engine: EngineClient, child: MakeChild, monkeypatch: pytest.MonkeyPatch, request_: Load
) -> None:
    monkeypatch.setattr(client, "HOST", child(CRASHES_WHEN_ASKED))
    await load(engine, request_)
    assert (await error_of(engine.generate(HELLO))).kind == "engine_died"
    assert not paths.machine_file().exists()


CUDA_SAYS = "CUDA error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:501"
CUBLAS_SAYS = "CUDA error: the resource allocation failed\n  current device: 0, in function cublas_handle"


@pytest.mark.usefixtures("known_machine")
@pytest.mark.parametrize("last_words", [CUDA_SAYS, CUBLAS_SAYS])
async def test_a_gpu_that_is_full_in_mid_answer_is_told_with_a_smaller_context(
    engine: EngineClient, fragile: Fragile, last_words: str
) -> None:
    fragile(answer="True", by="SIGABRT", last_words=last_words)
    await load(engine, ON_GPU)
    error = await error_of(engine.generate(HELLO))
    assert (error.kind, error.exit_code) == ("gpu_out_of_memory", EXIT_FAILED)
    assert "1024" in error.message
    assert "512" in error.hint
    assert not engine.loaded


async def test_a_gpu_that_is_full_while_loading(engine: EngineClient, fragile: Fragile) -> None:
    fragile(load="True", by="SIGABRT", last_words=CUDA_SAYS)
    assert (await error_of(engine.load(ON_GPU))).kind == "gpu_out_of_memory"
    assert not paths.machine_file().exists()


@pytest.mark.usefixtures("known_machine")
@pytest.mark.parametrize(("request_", "by"), [(ON_GPU, "SIGKILL"), (LOAD, "SIGABRT")])
async def test_not_every_death_is_the_gpus_memory(
    engine: EngineClient, fragile: Fragile, request_: Load, by: str
) -> None:
    """Memory may have run out earlier, without ending anything, and a CPU has no GPU's."""
    fragile(answer="True", by=by, last_words=CUDA_SAYS)
    await load(engine, request_)
    assert (await error_of(engine.generate(HELLO))).kind == "engine_died"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        b"\xff\xfe",
        b'{"safe_mode": 3}',
        b"[]",
        b'{"safe_mode": ["\xff"]}',
        b'{"safe_mode": [1]}',
    ],
)
def test_a_damaged_memory_is_an_empty_one(home: Path, content: bytes) -> None:
    paths.machine_file().write_bytes(content)
    assert not safe_mode.is_needed(paths.machine_file())
    safe_mode.remember(paths.machine_file())
    assert safe_mode.is_needed(paths.machine_file())
    assert [path.name for path in home.iterdir()] == ["machine.json"]


def test_other_machines_and_builds_stay_remembered(home: Path) -> None:
    paths.machine_file().write_bytes(b'{"safe_mode": ["another/llama-cpp-python-0.1"]}')
    assert not safe_mode.is_needed(paths.machine_file())
    safe_mode.remember(paths.machine_file())
    safe_mode.remember(paths.machine_file())
    assert memory() == {"safe_mode": ["another/llama-cpp-python-0.1", safe_mode.build_key()]}


def test_a_memory_that_cannot_be_written_is_no_failure(home: Path) -> None:
    paths.machine_file().mkdir()
    safe_mode.remember(paths.machine_file())
    safe_mode.remember(home / "missing" / "machine.json")
    assert not safe_mode.is_needed(paths.machine_file())


def test_another_build_is_tried_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safe_mode.remember(paths.machine_file())
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9.9")
    assert not safe_mode.is_needed(paths.machine_file())


# Deaths


@pytest.mark.usefixtures("known_machine")
async def test_an_engine_killed_in_mid_answer(engine: EngineClient) -> None:
    """What has come is there, the error says so, and the next load answers again."""
    await load(engine)
    pid = engine.pid
    assert pid
    came: list[object] = []

    async def answering() -> AsyncIterator[object]:
        async for event in engine.generate(msgspec.structs.replace(HELLO, sampling=LONG)):
            came.append(event)
            if len(came) == 3:
                os.kill(pid, signal.SIGKILL)
            yield event

    error = await error_of(answering())
    assert (error.kind, error.exit_code) == ("engine_died", EXIT_FAILED)
    assert "SIGKILL" in error.message
    assert error.hint == i18n.t("engine.engine_died_hint")
    assert [type(event) for event in came[:3]] == [Started, Delta, Delta]
    assert (engine.loaded, engine.ready, engine.pid) == (False, None, None)
    assert (await error_of(engine.generate(HELLO))).kind == "no_model"
    await load(engine)
    assert "Dr. Kun" in await ask(engine)


@pytest.mark.usefixtures("known_machine")
async def test_an_engine_that_died_while_nobody_asked(engine: EngineClient) -> None:
    await load(engine)
    assert engine.pid
    pid = engine.pid
    os.kill(pid, signal.SIGKILL)
    assert (await error_of(engine.generate(HELLO))).kind == "engine_died"
    assert not engine.loaded
    assert has_ended(pid)


@pytest.mark.usefixtures("known_machine")
async def test_closing_in_mid_answer_ends_the_answer(engine: EngineClient) -> None:
    await load(engine)
    pid = engine.pid
    assert pid
    answer = engine.generate(msgspec.structs.replace(HELLO, sampling=LONG))
    assert isinstance(await anext(answer), Started)
    waiting = asyncio.ensure_future(error_of(answer))
    await asyncio.sleep(0)
    await engine.close()
    assert (await waiting).kind == "engine_died"
    assert has_ended(pid)
    assert not engine.loaded


async def test_a_load_that_is_left_is_ended_by_the_next(engine: EngineClient) -> None:
    loading = engine.load(LOAD)
    await anext(loading)
    first = engine.pid
    assert first
    await load(engine)
    assert engine.pid != first
    assert has_ended(first)
    assert "Dr. Kun" in await ask(engine)


async def test_another_load_unloads_the_model_before_it(engine: EngineClient) -> None:
    await load(engine)
    first = engine.pid
    assert first
    events = await load(engine, msgspec.structs.replace(LOAD, context_length=512))
    assert has_ended(first)
    assert isinstance(events[-1], Ready)
    assert events[-1].context_length == 512


# Stopping and leaving


@pytest.mark.usefixtures("known_machine")
async def test_cancel_stops_the_answer(engine: EngineClient) -> None:
    engine.cancel()
    await load(engine)
    engine.cancel()
    events = []
    async for event in engine.generate(msgspec.structs.replace(HELLO, sampling=LONG)):
        events.append(event)
        if isinstance(event, Delta):
            engine.cancel()
    assert isinstance(events[-1], Finished)
    assert events[-1].finish_reason == "cancelled"
    assert "Dr. Kun" in await ask(engine)


@pytest.mark.usefixtures("known_machine")
async def test_an_answer_that_nobody_reads_any_more_is_stopped(engine: EngineClient) -> None:
    """Or it would keep the next question waiting, and its text must not come into the next answer."""
    await load(engine)
    answer = engine.generate(msgspec.structs.replace(HELLO, sampling=LONG))
    async for event in answer:
        if isinstance(event, Delta):
            break
    await answer.aclose()  # type: ignore[attr-defined]
    left = asyncio.ensure_future(anext(engine.generate(msgspec.structs.replace(HELLO, sampling=LONG))))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left

    assert engine._job
    ends: list[str] = []
    while len(ends) < 2:
        later = await engine._job.next_event()
        if isinstance(later, Finished):
            ends.append(later.finish_reason)
    assert ends == ["cancelled", "cancelled"]
    assert "Dr. Kun" in await ask(engine)


# Failures


async def test_without_a_model_there_is_no_answer(engine: EngineClient) -> None:
    error = await error_of(engine.generate(HELLO))
    assert (error.kind, error.message) == ("no_model", i18n.t("engine.no_model"))


async def test_an_engine_that_cannot_be_started(
    engine: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    error = await error_of(engine.load(LOAD))
    assert (error.kind, error.exit_code) == ("start_failed", EXIT_FAILED)
    assert "/nowhere/python" in error.message


async def test_a_missing_library_says_what_to_do(engine: EngineClient, home: Path, child: MakeChild) -> None:
    child("")
    (home / "modules" / "llama_cpp.py").write_text("raise ImportError('libllama.so: no such file')")
    error = await error_of(engine.load(LOAD))
    assert error.kind == "engine_missing"
    assert "libllama.so" in error.message
    assert "pip install" in error.hint


@pytest.mark.usefixtures("known_machine")
@pytest.mark.parametrize("language", ["zh", "en"])
async def test_failures_are_told_in_the_readers_language(
    engine: EngineClient, home: Path, language: str
) -> None:
    i18n.set_language(language)
    (home / "text.gguf").write_text("这不是模型")
    error = await error_of(engine.load(msgspec.structs.replace(LOAD, path=str(home / "text.gguf"))))
    assert (error.kind, error.exit_code) == ("load_failed", EXIT_NO_MODEL)
    assert "text.gguf" in error.message
    assert error.hint == i18n.t("engine.load_failed_hint")
    assert not engine.loaded


@pytest.mark.usefixtures("known_machine")
async def test_a_failed_answer_leaves_the_model_loaded(engine: EngineClient) -> None:
    await load(engine)
    pid = engine.pid
    error = await error_of(engine.generate(msgspec.structs.replace(HELLO, messages=user("头晕，" * 2000))))
    assert (error.kind, error.exit_code) == ("prompt_too_long", EXIT_BAD_INPUT)
    assert "960" in error.message
    assert engine.pid == pid
    assert "Dr. Kun" in await ask(engine)


@pytest.mark.usefixtures("known_machine")
async def test_an_adapter_that_is_none(engine: EngineClient, home: Path) -> None:
    (home / "adapter.gguf").write_text("这不是适配器")
    request = msgspec.structs.replace(LOAD, adapter=str(home / "adapter.gguf"))
    error = await error_of(engine.load(request))
    assert (error.kind, error.exit_code) == ("adapter_failed", EXIT_NO_MODEL)
    assert "adapter.gguf" in error.message


@pytest.mark.usefixtures("known_machine")
async def test_a_broken_template_ends_the_load(engine: EngineClient, home: Path) -> None:
    path = starter_with(home / "broken.gguf", tokenizer__chat_template="{% for %}")
    error = await error_of(engine.load(msgspec.structs.replace(LOAD, path=str(path))))
    assert (error.kind, error.exit_code) == ("template_broken", EXIT_NO_MODEL)
    assert error.hint


@pytest.mark.usefixtures("known_machine")
async def test_a_context_larger_than_memory(
    engine: EngineClient, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that may take 2 GiB: a million tokens of the bundled model need 8."""
    source = """
        import resource
        from drkun_tui.engine import host
        resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3, 2 * 1024**3))
        host.main()
    """
    monkeypatch.setattr(client, "HOST", child(source))
    error = await error_of(engine.load(msgspec.structs.replace(LOAD, context_length=1_000_000)))
    assert (error.kind, error.exit_code) == ("no_memory", EXIT_FAILED)
    assert str(1_000_000) in error.message
    assert error.hint
