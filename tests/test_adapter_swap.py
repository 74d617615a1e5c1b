"""LoRA adapters in the running engine: attached, re-scaled, swapped, and taken off without loading anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import pytest_asyncio

from drkun_tui import i18n, paths
from drkun_tui.consult.session import Session
from drkun_tui.consult.store import Store
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.protocol import AdapterSet, Failed, Finished, Load, Loading, Ready
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.library.plan import Plan, plan_load
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from tests.conftest import EngineProcess, has_ended, user, wait_until
from tests.gguf_files import lora, metadata, write

DIZZY = "最近总是头晕，应该怎么办？"
SHORT = Sampling(temperature=0, max_tokens=60)


def said(process: EngineProcess) -> str:
    """What it answers to the same question, word for word.

    What is in the KV cache decides how the prompt is cut into batches, and with it the rounding; so only
    answers after the same events can be compared, such as the first one after a change.
    """
    reply = process.ask(user(DIZZY), SHORT)
    return f"{reply.thinking}|{reply.answer}"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """The engine process with the bundled model in it."""
    with EngineProcess(tmp_path_factory.mktemp("adapters") / "engine.log") as started:
        assert isinstance(started.load(paths.starter(), 512)[-1], Ready)
        yield started


@pytest.fixture
def bare(process: EngineProcess, tmp_path: Path) -> str:
    """What the model says without any adapter, after it had one."""
    for adapter in (lora(tmp_path / "before.gguf"), None):
        assert isinstance(process.set_adapter(adapter), AdapterSet)
    return said(process)


# In the engine


def test_adapters_are_attached_swapped_and_taken_off(
    process: EngineProcess, bare: str, tmp_path: Path
) -> None:
    first, second = lora(tmp_path / "first.gguf", 1), lora(tmp_path / "second.gguf", 2)
    answers = []
    for adapter in (first, second, first, None):
        assert isinstance(process.set_adapter(adapter), AdapterSet)
        answers.append(said(process))
    assert answers[0] == answers[2]
    assert answers[3] == bare
    assert len({*answers}) == 3


def test_the_scale_decides_how_much_an_adapter_changes(
    process: EngineProcess, bare: str, tmp_path: Path
) -> None:
    adapter = lora(tmp_path / "scaled.gguf")
    answers = {}
    for scale in (0.0, 2.0, 1.0, 0.0):
        assert isinstance(process.set_adapter(adapter, scale), AdapterSet)
        answers[scale] = said(process)
    assert answers[0.0] == bare
    assert len({*answers.values()}) == 3


def test_an_adapter_that_is_loaded_with_the_model_is_the_same_as_one_attached_later(
    process: EngineProcess, bare: str, tmp_path: Path
) -> None:
    adapter = lora(tmp_path / "early.gguf")
    process.set_adapter(adapter)
    later = said(process)
    with EngineProcess(tmp_path / "engine.log") as other:
        other.send(
            Load(
                path=str(paths.starter()),
                context_length=512,
                threads=1,
                safe_mode=True,
                adapter=str(adapter),
            )
        )
        assert isinstance(other.until(Ready, Failed)[-1], Ready)
        assert said(other) == later != bare


def test_what_was_computed_with_other_weights_is_not_used_again(
    process: EngineProcess, bare: str, tmp_path: Path
) -> None:
    assert process.ask(user(DIZZY), SHORT).started.reused_tokens > 0
    adapter = lora(tmp_path / "adapter.gguf")
    process.set_adapter(adapter)
    assert process.ask(user(DIZZY), SHORT).started.reused_tokens == 0
    # Nothing has changed, so nothing is forgotten.
    process.set_adapter(adapter)
    assert process.ask(user(DIZZY), SHORT).started.reused_tokens > 0


@pytest.mark.parametrize("kind", ["shape", "text", "missing"])
def test_an_adapter_that_fails_leaves_the_engine_as_it_was(
    process: EngineProcess, bare: str, tmp_path: Path, kind: str
) -> None:
    process.set_adapter(lora(tmp_path / "good.gguf"))
    first, good = said(process), said(process)
    bad = tmp_path / "bad.gguf"
    if kind == "shape":
        write(bad, metadata("llama", general__type="adapter"))
    elif kind == "text":
        bad.write_text("这不是适配器")
    failed = process.set_adapter(bad)
    assert isinstance(failed, Failed)
    assert failed.kind == "adapter_failed"
    sentence = i18n.t("engine.adapter_failed", **failed.values)
    assert "bad.gguf" in sentence
    assert failed.values["reason"] not in ("", "?")
    assert "\n" not in sentence
    assert said(process) == good
    assert first != bare


def test_a_file_that_was_written_anew_is_read_anew(process: EngineProcess, bare: str, tmp_path: Path) -> None:
    path = lora(tmp_path / "again.gguf", 1)
    process.set_adapter(path)
    before = said(process)
    lora(path, 2)
    os.utime(path, (1, 1))
    process.set_adapter(path)
    assert said(process) not in (before, bare)


def test_many_swaps_take_no_more_memory_than_a_few(process: EngineProcess, tmp_path: Path) -> None:
    """Each of these adapters has 4 MiB; read at every swap they would take 160."""
    adapters = [lora(tmp_path / f"{seed}.gguf", seed, rank=128) for seed in (1, 2)]
    taken = []
    for _ in range(2):
        for adapter in adapters * 10:
            assert isinstance(process.set_adapter(adapter), AdapterSet)
            process.ask(user("你好"), Sampling(temperature=0, max_tokens=2))
        taken.append(psutil.Process(process.process.pid).memory_info().rss)
    assert taken[1] - taken[0] < 20 * 1024**2


def test_an_engine_without_a_model_has_no_adapter(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "engine.log") as empty:
        failed = empty.set_adapter(lora(tmp_path / "adapter.gguf"))
        assert isinstance(failed, Failed)
        assert failed.kind == "no_model"
        assert isinstance(empty.load(paths.starter(), 512)[-1], Ready)


# In a consultation


@pytest.fixture
def adapters(home: Path) -> tuple[Path, Path]:
    """Two adapters in the model store."""
    store = paths.model_store()
    return lora(store / "first.gguf", 1), lora(store / "second.gguf", 2)


@pytest_asyncio.fixture
async def session(home: Path, known_machine: None) -> AsyncIterator[Session]:
    with contextlib.closing(Store(paths.database())) as store:
        made = Session(store, EngineClient(paths.engine_log(), paths.machine_file()))
        yield made
        await made.engine.close()


def plan(adapter: str | None = None, scale: float = 1.0, context_length: int = 1024) -> Plan:
    return plan_load(Settings(threads=1, context_length=context_length, adapter=adapter, adapter_scale=scale))


async def load(session: Session, wanted: Plan) -> list[type]:
    return [type(event) async for event in session.load(wanted)]


async def ask(session: Session) -> str:
    async for _ in session.ask(DIZZY, sampling=SHORT):
        pass
    assert session.last
    return f"{session.last.reasoning}|{session.last.answer}"


async def test_another_adapter_does_not_load_the_model_again(
    session: Session, adapters: tuple[Path, Path]
) -> None:
    assert Loading in await load(session, plan())
    pid = session.engine.pid
    answers = {}
    for adapter, scale in (("first", 1.0), ("second", 1.0), ("second", 0.5), (None, 1.0)):
        assert await load(session, plan(adapter, scale)) == [Ready]
        session.conversation.context_start = len(session.conversation.turns)
        answers[adapter, scale] = await ask(session)
        assert session.last
        assert session.last.adapter == adapter
    assert session.engine.pid == pid
    assert len({*answers.values()}) == 4
    # The conversation goes on.
    assert len(session.conversation.turns) == 4
    # Anything else is another load.
    assert Loading in await load(session, plan("first", context_length=512))
    assert session.engine.pid != pid


async def test_the_same_plan_again_is_a_new_load(session: Session) -> None:
    await load(session, plan())
    pid = session.engine.pid
    assert Loading in await load(session, plan())
    assert session.engine.pid != pid


async def test_an_adapter_that_fails_leaves_the_consultation_with_the_one_before(
    session: Session, adapters: tuple[Path, Path]
) -> None:
    await load(session, plan("first"))
    pid = session.engine.pid
    await ask(session)
    session.conversation.context_start = len(session.conversation.turns)
    before = await ask(session)
    broken = plan("second")
    adapters[1].write_bytes(adapters[1].read_bytes()[:2000])
    with pytest.raises(DrkunError) as raised:
        await load(session, broken)
    assert (raised.value.kind, raised.value.exit_code) == ("adapter_failed", EXIT_NO_MODEL)
    session.conversation.context_start = len(session.conversation.turns)
    assert await ask(session) == before
    assert session.last
    assert session.last.adapter == "first"
    assert session.engine.pid == pid
    assert await load(session, plan()) == [Ready]


async def test_an_engine_that_dies_over_an_adapter_is_loaded_anew_with_it(
    session: Session, adapters: tuple[Path, Path]
) -> None:
    await load(session, plan())
    pid = session.engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    swap = asyncio.ensure_future(load(session, plan("first")))
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DrkunError) as raised:
        await swap
    assert raised.value.kind == "engine_died"
    wait_until(lambda: has_ended(pid))
    assert await ask(session)
    assert session.last
    assert session.last.adapter == "first"


async def test_an_answer_that_was_left_does_not_disturb_a_swap(
    session: Session, adapters: tuple[Path, Path]
) -> None:
    await load(session, plan())
    asking = session.ask(DIZZY, sampling=SHORT)
    async for update in asking:
        assert not isinstance(update, Finished)
        if session.turn and session.turn.reasoning:
            break
    await asking.aclose()  # type: ignore[attr-defined]
    assert await load(session, plan("first")) == [Ready]
    assert await ask(session)


async def test_without_a_model_no_adapter_is_attached(home: Path) -> None:
    engine = EngineClient(paths.engine_log(), paths.machine_file())
    with pytest.raises(DrkunError) as raised:
        await engine.set_adapter(None)
    assert raised.value.kind == "no_model"
