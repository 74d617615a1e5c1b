"""A consultation under way, on the real engine and the real store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from drkun_tui import paths
from drkun_tui.consult import session as session_module
from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.consult.session import Asked, Session, Unsaved, Update
from drkun_tui.consult.store import Store
from drkun_tui.engine import client
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.protocol import Delta, Finished, Loading, Ready, Started
from drkun_tui.errors import DrkunError
from drkun_tui.library.plan import Plan, plan_load
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from tests.conftest import GREEDY, LONG, MakeChild, has_ended, wait_until

pytestmark = pytest.mark.usefixtures("known_machine")

DIZZY = "最近总是头晕，应该怎么办？"


def short(length: int) -> Sampling:
    return Sampling(temperature=0, max_tokens=length)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with contextlib.closing(Store(paths.database())) as opened:
        yield opened


@pytest_asyncio.fixture
async def session(store: Store) -> AsyncIterator[Session]:
    """With a plan, and nothing loaded yet."""
    made = Session(store, EngineClient(paths.engine_log(), paths.machine_file()))
    made.plan = plan()
    yield made
    await made.engine.close()


def plan(context_length: int = 0) -> Plan:
    return plan_load(Settings(threads=1, context_length=context_length))


async def every(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


def follow(updates: AsyncIterator[Update], kind: type) -> tuple[asyncio.Task[None], asyncio.Event]:
    """A task that takes all updates, and what tells that one of a kind has come."""
    come = asyncio.Event()

    async def take() -> None:
        async for update in updates:
            if isinstance(update, kind):
                come.set()

    return asyncio.ensure_future(take()), come


async def up_to(updates: AsyncIterator[Update], kind: type) -> list[Update]:
    """Updates up to one of a kind."""
    seen = []
    async for update in updates:
        seen.append(update)
        if isinstance(update, kind):
            return seen
    raise AssertionError(seen)


def kinds(updates: list[Update]) -> list[type]:
    """The kinds of the updates, each run of one kind once."""
    found = [type(update) for update in updates]
    return [kind for index, kind in enumerate(found) if index == 0 or found[index - 1] is not kind]


def last(session: Session) -> Turn:
    assert session.last is not None
    return session.last


def state_of(turn: Turn) -> State:
    """Read anew each time, as a type checker would not."""
    return turn.state


def stored(session: Session) -> list[Turn]:
    """The turns of the conversation as another program reads them."""
    with contextlib.closing(Store(paths.database())) as reader:
        return reader.load(session.conversation.id).turns


def unsaved(updates: list[Update]) -> list[str]:
    """Why something could not be kept."""
    return [update.error.kind for update in updates if isinstance(update, Unsaved)]


class Disk:
    """A disk that has no room left, until it has."""

    def __init__(self, store: Store) -> None:
        self._store = store
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        filler = store.create_conversation().id
        for length in (2000, 200, 1):
            with contextlib.suppress(DrkunError):
                while True:
                    store.add_turn(Turn(0, filler, "x" * length))
            with contextlib.suppress(DrkunError):
                while True:
                    store.create_conversation("x" * length)

    def free(self) -> None:
        self._store._db.execute("PRAGMA max_page_count = 1000000")


# Asking


async def test_an_answer_streams_into_the_turn_and_is_kept(session: Session) -> None:
    updates = []
    async for update in session.ask(DIZZY, sampling=GREEDY):
        updates.append(update)
        assert session.turn is last(session)
        if isinstance(update, Delta):
            assert last(session).reasoning.endswith(update.thinking)
            assert last(session).answer.endswith(update.answer)
    assert kinds(updates) == [Asked, Loading, Ready, Started, Delta, Finished]
    turn = last(session)
    assert session.turn is None
    assert turn.state is State.DONE
    assert "头晕" in turn.reasoning
    assert turn.answer == "".join(update.answer for update in updates if isinstance(update, Delta))
    assert (turn.model, turn.demonstration, turn.profile, turn.engine) == (
        "starter",
        True,
        "cpu",
        "llama_cpp",
    )
    assert turn.sampling["temperature"] == 0
    assert turn.sampling["think"] is True
    assert isinstance(turn.sampling["seed"], int)
    finished = updates[-1]
    assert isinstance(finished, Finished)
    assert turn.usage == msgspec.to_builtins(finished.usage)
    assert turn.timings == msgspec.to_builtins(finished.timings)
    assert stored(session) == [turn]
    assert turn.id > 0


async def test_a_second_question_remembers_the_first(session: Session) -> None:
    await every(session.ask(DIZZY, sampling=GREEDY, system="你是医生。"))
    await every(session.ask("需要做哪些检查？", sampling=short(5)))
    first, second = session.conversation.turns
    assert second.usage["prompt_tokens"] > first.usage["prompt_tokens"] + 20
    assert second.conversation_id == first.conversation_id == session.conversation.id
    assert session.conversation.system == "你是医生。"
    with contextlib.closing(Store(paths.database())) as reader:
        assert reader.load(session.conversation.id).system == "你是医生。"


async def test_without_thinking(session: Session) -> None:
    await every(session.ask(DIZZY, sampling=GREEDY, think=False))
    assert last(session).reasoning == ""
    assert last(session).answer
    assert last(session).sampling["think"] is False


async def test_signs_of_an_emergency_are_noted_before_any_answer(session: Session) -> None:
    [asked] = await up_to(session.ask("突然胸口剧痛，喘不上气，左臂发麻", sampling=GREEDY), Asked)
    assert isinstance(asked, Asked)
    assert asked.turn.red_flags
    assert stored(session)[0].red_flags == asked.turn.red_flags


async def test_half_a_character_does_not_stop_a_question(session: Session) -> None:
    await every(session.ask("头晕\udce4\ud800", sampling=short(3)))
    assert last(session).question == "头晕??"
    assert last(session).state is State.LENGTH


async def test_a_model_that_is_loaded_already_is_not_loaded_again(session: Session) -> None:
    assert [type(event) async for event in session.load(plan())][-1] is Ready
    pid = session.engine.pid
    assert kinds(await every(session.ask("你好", sampling=short(3)))) == [Asked, Started, Delta, Finished]
    assert session.engine.pid == pid


# Stopping and carrying on


async def stop_after(session: Session, updates: AsyncIterator[Update], deltas: int) -> list[Update]:
    seen: list[Update] = []
    async for update in updates:
        seen.append(update)
        if sum(isinstance(update, Delta) for update in seen) == deltas:
            session.stop()
    return seen


async def test_stop_keeps_what_has_come_and_resume_goes_on(session: Session) -> None:
    await stop_after(session, session.ask("你好", sampling=LONG), 3)
    turn = last(session)
    assert state_of(turn) is State.CANCELLED
    before, tokens = turn.answer, turn.usage["answer_tokens"]
    assert before
    assert stored(session) == [turn]

    assert kinds(await stop_after(session, session.resume(), 2)) == [Started, Delta, Finished]
    assert last(session) is turn
    assert state_of(turn) is State.CANCELLED
    assert turn.answer.startswith(before)
    assert len(turn.answer) > len(before)
    assert turn.usage["answer_tokens"] > tokens
    assert stored(session) == [turn]


async def test_an_answer_at_its_limit_can_go_on(session: Session) -> None:
    await every(session.ask("你好", sampling=short(30)))
    assert last(session).state is State.LENGTH
    before = last(session).answer
    await every(session.resume())
    assert last(session).answer.startswith(before)
    assert len(last(session).answer) > len(before)
    assert last(session).sampling["max_tokens"] == 30


async def test_an_answer_that_was_finished_does_not_go_on(session: Session) -> None:
    assert await every(session.resume()) == []
    await every(session.ask("你好", sampling=GREEDY))
    assert await every(session.resume()) == []


async def test_an_answer_of_an_earlier_run_goes_on(session: Session, store: Store) -> None:
    await every(session.ask("你好", sampling=short(25)))
    again = Session(store, session.engine)
    again.plan = session.plan
    again.conversation = store.load(session.conversation.id)
    await every(again.resume())
    assert last(again).state in (State.DONE, State.LENGTH)
    assert last(again).answer.startswith(last(session).answer)
    assert "Dr. Kun" in last(again).answer


async def test_asking_again_replaces_the_last_turn(session: Session) -> None:
    await every(session.ask("头晕", sampling=short(3)))
    await every(session.ask("胃痛三天", sampling=short(3)))
    first, replaced = session.conversation.turns
    await every(session.ask_again("胃痛五天", sampling=short(3)))
    assert [turn.question for turn in session.conversation.turns] == ["头晕", "胃痛五天"]
    assert last(session).id != replaced.id
    assert [turn.id for turn in stored(session)] == [first.id, last(session).id]
    assert session.store.search("三天") == []
    assert len(session.store.search("五天")) == 1


async def test_stop_while_the_model_is_still_loading(session: Session) -> None:
    """The question stands without an answer, and the load is ended; another question loads anew."""
    loading = session.load(plan())
    assert isinstance(await anext(loading), Loading)
    asking = session.ask("你好", sampling=GREEDY)
    assert isinstance(await anext(asking), Asked)
    rest = asyncio.ensure_future(every(asking))
    await asyncio.sleep(0)
    assert not rest.done()
    session.stop()
    assert await rest == []
    assert last(session).state is State.CANCELLED
    assert stored(session)[0].state is State.CANCELLED
    assert [event async for event in loading] == []
    assert (session.engine.pid, session.loading) == (None, False)
    await every(session.ask_again("你好", sampling=GREEDY))
    assert "Dr. Kun" in last(session).answer


SILENT = """
    import os, sys, threading, time
    # As libraries are while they are imported.
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    time.sleep(600)
"""


def engine_of(session: Session) -> int:
    """The engine's process, once there is one."""
    wait_until(lambda: session.engine.pid is not None)
    assert session.engine.pid is not None
    return session.engine.pid


@pytest.mark.parametrize("asked", [False, True])
async def test_a_load_that_says_nothing_is_stopped_at_once(
    session: Session, child: MakeChild, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Whether it was begun by itself or by a question."""
    with monkeypatch.context() as patched:
        patched.setattr(client, "HOST", child(SILENT))
        loading = session.ask("你好", sampling=GREEDY) if asked else session.load(plan())
        while not isinstance(await anext(loading), Loading):
            pass
        rest = asyncio.ensure_future(every(loading))
        pid = await asyncio.to_thread(engine_of, session)
        session.stop()
        assert await rest == []
        assert has_ended(pid)
    assert not session.loading
    session.stop()
    await every(session.ask("你好", sampling=GREEDY))
    assert "Dr. Kun" in last(session).answer


async def test_a_load_that_is_left_is_no_longer_under_way(session: Session) -> None:
    steps = session.load(plan())
    await anext(steps)
    waiting = asyncio.ensure_future(anext(steps))
    await asyncio.sleep(0)
    under_way = session.loading
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (under_way, session.loading) == (True, False)
    assert [event async for event in session.load(plan())]
    assert session.engine.loaded


async def test_stop_while_the_question_itself_loads_the_model(session: Session) -> None:
    updates = []
    async for update in session.ask("你好", sampling=GREEDY):
        updates.append(update)
        if isinstance(update, Loading):
            session.stop()
    assert kinds(updates) == [Asked, Loading]
    assert last(session).state is State.CANCELLED
    assert session.engine.pid is None
    await every(session.ask("你好", sampling=GREEDY))
    assert last(session).state is State.DONE


async def test_a_question_asked_while_loading_is_answered_after_it(session: Session) -> None:
    loading = session.load(plan())
    await anext(loading)
    asking = asyncio.ensure_future(every(session.ask("你好", sampling=GREEDY)))
    assert isinstance([event async for event in loading][-1], Ready)
    assert kinds(await asking) == [Asked, Started, Delta, Finished]


async def test_a_question_that_is_left_while_it_waits_frees_the_engine(session: Session) -> None:
    """As when its screen goes away: the next question is answered."""
    loading = session.load(plan())
    await anext(loading)
    asking, asked = follow(session.ask("头晕", sampling=GREEDY), Asked)
    await asked.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert session.turn is None
    assert [event async for event in loading]
    await every(session.ask("你好", sampling=GREEDY))
    assert "Dr. Kun" in last(session).answer
    assert [turn.state for turn in stored(session)] == [State.CANCELLED, State.DONE]


async def test_an_answer_that_is_left_is_kept_and_stopped(session: Session) -> None:
    asking, answered = follow(session.ask("你好", sampling=LONG), Delta)
    await answered.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert last(session).state is State.CANCELLED
    [turn] = stored(session)
    assert (turn.reasoning, turn.answer) == (last(session).reasoning, last(session).answer)
    assert turn.reasoning + turn.answer
    await every(session.ask_again("你好", sampling=GREEDY))
    assert "Dr. Kun" in last(session).answer


async def test_closing_in_mid_answer_keeps_what_has_come(session: Session) -> None:
    asking, answered = follow(session.ask("你好", sampling=LONG), Delta)
    await answered.wait()
    await session.close()
    with pytest.raises(DrkunError):
        await asking
    [turn] = stored(session)
    assert turn.state is State.CANCELLED
    assert turn.reasoning + turn.answer
    assert turn.error == ""


# An engine that dies


async def test_an_engine_killed_in_mid_answer(session: Session) -> None:
    """Message, what had come kept, and the next question starts it again."""
    with pytest.raises(DrkunError) as raised:
        async for update in session.ask("你好", sampling=LONG):
            if isinstance(update, Delta) and update.answer:
                assert session.engine.pid
                os.kill(session.engine.pid, signal.SIGKILL)
    assert raised.value.kind == "engine_died"
    [turn] = stored(session)
    assert turn == last(session)
    assert turn.state is State.INTERRUPTED
    assert turn.answer
    assert turn.error == raised.value.message
    updates = await every(session.ask("你好", sampling=GREEDY))
    assert kinds(updates) == [Asked, Loading, Ready, Started, Delta, Finished]
    assert "Dr. Kun" in last(session).answer


async def test_a_gpu_that_is_full_in_mid_answer_costs_only_the_rest_of_it(
    session: Session, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ggml's CUDA backend dies of it."""
    source = """
        import msgspec, os, sys
        from drkun_tui.engine import host
        from drkun_tui.engine.protocol import Delta
        class Full(host.Host):
            def _load(self, request):
                super()._load(msgspec.structs.replace(request, device="cpu", gpu_layers=0))
            def _emit(self, event):
                super()._emit(event)
                if isinstance(event, Delta) and event.answer:
                    print("CUDA error: out of memory", file=sys.stderr, flush=True)
                    os.abort()
        host.Host = Full
        host.main()
    """
    on_gpu = plan()
    load = msgspec.structs.replace(on_gpu.load, device="cuda", gpu_layers=99)
    session.plan = Plan(on_gpu.model, None, on_gpu.profile, load, "")
    with monkeypatch.context() as patched:
        patched.setattr(client, "HOST", child(source))
        with pytest.raises(DrkunError) as raised:
            await every(session.ask("你好", sampling=LONG))
    assert raised.value.kind == "gpu_out_of_memory"
    assert str(load.context_length // 2) in raised.value.hint
    [turn] = stored(session)
    assert (turn.state, turn.error) == (State.INTERRUPTED, raised.value.message)
    assert turn.answer
    session.plan = plan(context_length=load.context_length // 2)
    await every(session.resume())
    assert last(session).answer.startswith(turn.answer)
    assert len(last(session).answer) > len(turn.answer)


async def test_an_interrupted_answer_goes_on_with_a_new_engine(session: Session) -> None:
    await every(session.ask(DIZZY, sampling=GREEDY))
    whole = last(session).answer
    with pytest.raises(DrkunError):
        async for update in session.ask_again(DIZZY, sampling=GREEDY):
            if isinstance(update, Started):
                assert session.engine.pid
                os.kill(session.engine.pid, signal.SIGSTOP)
                os.kill(session.engine.pid, signal.SIGKILL)
    assert last(session).state in (State.INTERRUPTED, State.FAILED)
    await every(session.resume())
    assert last(session).state is State.DONE
    assert last(session).answer == whole
    assert last(session).error == ""


async def test_a_model_that_cannot_be_loaded_leaves_the_question(session: Session, home: Path) -> None:
    (home / "text.gguf").write_text("这不是模型")
    good = plan()
    load = msgspec.structs.replace(good.load, path=str(home / "text.gguf"))
    session.plan = Plan(good.model, None, good.profile, load, "")
    with pytest.raises(DrkunError) as raised:
        await every(session.ask("你好", sampling=GREEDY))
    assert raised.value.kind == "load_failed"
    [turn] = stored(session)
    assert (turn.state, turn.error) == (State.FAILED, raised.value.message)
    session.plan = good
    await every(session.ask_again("你好", sampling=GREEDY))
    assert last(session).state is State.DONE


async def test_a_failed_load_can_be_followed_by_another(session: Session, home: Path) -> None:
    good = plan()
    load = msgspec.structs.replace(good.load, path=str(home / "missing.gguf"))
    with pytest.raises(DrkunError):
        async for _ in session.load(Plan(good.model, None, good.profile, load, "")):
            pass
    assert isinstance([event async for event in session.load(good)][-1], Ready)


async def test_a_question_that_is_too_long_fails_alone(session: Session) -> None:
    with pytest.raises(DrkunError) as raised:
        await every(session.ask("头晕，恶心。" * 2000, sampling=GREEDY))
    assert raised.value.kind == "prompt_too_long"
    assert last(session).state is State.FAILED
    await every(session.ask("你好", sampling=GREEDY))
    assert last(session).state is State.DONE
    assert "Dr. Kun" in last(session).answer


# A full context


async def test_a_full_context_moves_the_conversations_start_and_keeps_it(session: Session) -> None:
    session.plan = plan(512)
    conversation = session.store.create_conversation("你是医生。")
    for number in range(14):
        turn = Turn(0, conversation.id, f"{number}：头晕恶心，需要做什么检查吗？", created_at=1.8e9)
        turn.id = session.store.add_turn(turn)
        turn.answer, turn.state = "建议测量血压，" * 6, State.DONE
        session.store.save(turn)
    session.conversation = session.store.load(conversation.id)
    await every(session.ask("平时要注意什么？", sampling=short(3)))
    dropped = session.conversation.context_start
    assert 0 < dropped < 14
    assert last(session).dropped_turns == dropped
    assert session.store.load(conversation.id).context_start == dropped
    first = last(session).usage["prompt_tokens"]

    # The next prompt is the one before it and more, and nothing more leaves.
    await every(session.ask("还有呢？", sampling=short(3)))
    assert session.conversation.context_start == dropped
    assert last(session).dropped_turns == dropped
    assert last(session).usage["reused_tokens"] > first // 2


# A full disk


async def test_a_full_disk_is_told_and_the_conversation_goes_on(session: Session, store: Store) -> None:
    disk = Disk(store)
    updates = await every(session.ask("头晕三天", sampling=short(25), system="你是医生。"))
    assert set(unsaved(updates)) == {"store_full"}
    assert last(session).state is State.LENGTH
    assert last(session).reasoning
    assert session.conversation.system == "你是医生。"
    first_prompt = last(session).usage["prompt_tokens"]

    await every(session.ask("还是头晕", sampling=short(3)))
    assert len(session.conversation.turns) == 2
    assert session.conversation.turns[1].usage["prompt_tokens"] >= first_prompt - 10

    # As soon as there is room, all of it is kept.
    disk.free()
    await every(session.ask("胃痛", sampling=short(3)))
    assert session.conversation.id > 0
    assert [turn.question for turn in stored(session)] == ["头晕三天", "还是头晕", "胃痛"]
    assert stored(session) == session.conversation.turns
    with contextlib.closing(Store(paths.database())) as reader:
        assert reader.load(session.conversation.id).system == "你是医生。"


async def test_a_disk_that_fills_up_in_mid_answer(
    session: Session, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "SAVE_EVERY_S", 0)
    disk = None
    updates = []
    async for update in session.ask("你好", sampling=LONG):
        updates.append(update)
        if isinstance(update, Delta) and disk is None and last(session).answer:
            disk = Disk(store)
        if isinstance(update, Unsaved):
            session.stop()
    assert set(unsaved(updates)) == {"store_full"}
    assert disk
    assert last(session).state is State.CANCELLED
    assert last(session).answer
    disk.free()
    await every(session.ask("胃痛", sampling=short(3)))
    assert [(turn.state, turn.answer) for turn in stored(session)] == [
        (turn.state, turn.answer) for turn in session.conversation.turns
    ]


async def test_a_full_context_on_a_full_disk(session: Session, store: Store) -> None:
    """What is to be remembered of the context is written later; the answer comes all the same."""
    session.plan = plan(512)
    Disk(store)
    session.conversation = Conversation(
        id=0,
        turns=[
            Turn(
                -1 - n, 0, f"{n}：头晕恶心，需要做什么检查吗？", answer="建议测量血压，" * 6, state=State.DONE
            )
            for n in range(14)
        ],
    )
    await every(session.ask("平时要注意什么？", sampling=short(3)))
    assert last(session).state is State.LENGTH
    assert last(session).dropped_turns == session.conversation.context_start > 0


async def test_asking_again_on_a_full_disk(session: Session, store: Store) -> None:
    await every(session.ask("头晕", sampling=short(3)))
    disk = Disk(store)
    updates = await every(session.ask_again("胃痛三天", sampling=short(3)))
    assert set(unsaved(updates)) == {"store_full"}
    assert last(session).state is State.LENGTH
    assert [turn.question for turn in session.conversation.turns] == ["胃痛三天"]
    disk.free()
    await every(session.ask("然后呢", sampling=short(3)))
    assert [turn.question for turn in stored(session)] == ["胃痛三天", "然后呢"]


async def test_a_conversation_deleted_elsewhere_does_not_block_the_next(
    session: Session, store: Store
) -> None:
    await every(session.ask("头晕", sampling=short(3)))
    store.delete_conversation(session.conversation.id)
    updates = await every(session.ask("还是头晕", sampling=short(3)))
    assert unsaved(updates)[0] == "store_missing"
    assert last(session).state is State.LENGTH
    session.conversation = Conversation(id=0)
    updates = await every(session.ask("胃痛", sampling=short(3)))
    assert unsaved(updates) == []
    assert len(stored(session)) == 1


# A program that is killed


CONSULTATION = """
    import asyncio, json, sys
    from drkun_tui import paths
    from drkun_tui.consult import session
    from drkun_tui.consult.session import Session
    from drkun_tui.consult.store import Store
    from drkun_tui.engine.client import EngineClient
    from drkun_tui.library.plan import plan_load
    from drkun_tui.settings import Settings
    from tests.conftest import LONG

    session.SAVE_EVERY_S = 0.05

    class Told(Store):
        def save(self, turn):
            super().save(turn)
            print(json.dumps([turn.id, turn.reasoning, turn.answer]), flush=True)

    async def main():
        consultation = Session(
            Told(paths.database()), EngineClient(paths.engine_log(), paths.machine_file())
        )
        consultation.plan = plan_load(Settings(threads=1))
        async for update in consultation.ask("你好", sampling=LONG):
            if engine := consultation.engine.pid:
                print(engine, flush=True)

    asyncio.run(main())
"""


def test_a_program_killed_in_mid_answer_loses_only_what_came_since_the_last_save(
    home: Path, child: MakeChild
) -> None:
    program = subprocess.Popen([sys.executable, "-m", child(CONSULTATION)], stdout=subprocess.PIPE)
    assert program.stdout
    number, reasoning, answer, engine = 0, "", "", 0
    while not answer:
        told = json.loads(program.stdout.readline())
        if isinstance(told, list):
            number, reasoning, answer = told
        else:
            engine = told
    program.kill()
    program.wait()
    with contextlib.closing(Store(paths.database())) as store:
        [summary] = store.summaries()
        [turn] = store.load(summary.id).turns
        assert len(store.search("你好")) == 1
    assert (turn.id, turn.question, turn.state) == (number, "你好", State.INTERRUPTED)
    assert turn.reasoning.startswith(reasoning)
    assert turn.answer.startswith(answer)
    assert (turn.model, turn.profile) == ("starter", "cpu")
    # Its engine does not stay behind.
    wait_until(lambda: has_ended(engine))
