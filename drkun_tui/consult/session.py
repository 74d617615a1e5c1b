"""A consultation under way: asks the engine, writes the answer into the turn, keeps it as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from drkun_tui.consult import answering, prompts, safety
from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.consult.store import Store
from drkun_tui.engine.client import EngineClient, Restarting
from drkun_tui.engine.protocol import Delta, Finished, Generate, Loading, Partial, Ready, Started
from drkun_tui.errors import DrkunError
from drkun_tui.sampling import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from drkun_tui.library.plan import Plan

SAVE_EVERY_S = 0.5
"""A crash loses at most this much of an answer."""

RESUMABLE = frozenset({State.CANCELLED, State.LENGTH, State.INTERRUPTED, State.FAILED})


class Asked(msgspec.Struct, frozen=True):
    """A question stands in the conversation."""

    turn: Turn


class Unsaved(msgspec.Struct, frozen=True):
    """The answer could not be kept on disk; it goes on on the screen."""

    error: DrkunError


Update = Asked | Loading | Restarting | Ready | Started | Delta | Finished | Unsaved


def _learn(machine_memory: Path, plan: Plan, finished: Finished) -> None:
    """How fast this model answers here."""
    # Imported late: the first frame of the screen does not wait for it.
    from drkun_tui.library import speed

    speed.record(machine_memory, plan, finished)


class Session:
    """One conversation in the hands of one model.

    Args:
        store: where conversations are kept.
        engine: the engine's client.
    """

    def __init__(self, store: Store, engine: EngineClient) -> None:
        self.store = store
        self.engine = engine
        self.plan: Plan | None = None
        """Which model answers, and how it is loaded."""
        self._loaded: Plan | None = None
        """The plan by which the engine was brought where it is, while it runs."""
        self.conversation = Conversation(id=0)
        self.turn: Turn | None = None
        """The turn that is being answered."""
        self._stop = asyncio.Event()
        self._stop_load: asyncio.Event | None = None
        """Ends the load that is under way; None while none is."""
        self._engine_in_use = asyncio.Lock()
        self._unwritten: dict[tuple[str, int], Callable[[], None]] = {}
        """What the store could not take yet, oldest first."""

    @property
    def last(self) -> Turn | None:
        """The newest turn."""
        return self.conversation.turns[-1] if self.conversation.turns else None

    @property
    def loading(self) -> bool:
        """Is a model, or an adapter, on its way?"""
        return self._stop_load is not None

    async def load(self, plan: Plan) -> AsyncIterator[Loading | Restarting | Ready]:
        """Unload what is loaded and load what `plan` says; ends without `Ready` when it is stopped.

        Where only the adapter or its scale is another one, the model stays loaded, and `Ready` comes at
        once.

        Raises:
            DrkunError: it cannot be loaded. The plan stays, and the next question tries again; where it
                was an adapter that failed, the model goes on without it and by the plan of before.
        """
        self.plan = plan
        async with self._engine_in_use:
            async for event in self._bring_to(plan):
                yield event

    async def _bring_to(self, plan: Plan) -> AsyncIterator[Loading | Restarting | Ready]:
        """As `load`. A load hears no cancel and can be silent for long: stopping it ends the engine."""
        steps = self._steps_to(plan)
        stop = self._stop_load = asyncio.Event()
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while True:
                step = asyncio.ensure_future(anext(steps, None))
                try:
                    await asyncio.wait({step, stopped}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
                if stop.is_set():
                    await self.engine.close()
                    return
                if (event := step.result()) is None:
                    return
                yield event
        finally:
            stopped.cancel()
            # One that is left in the middle may end after the next has begun.
            if self._stop_load is stop:
                self._stop_load = None

    async def _steps_to(self, plan: Plan) -> AsyncIterator[Loading | Restarting | Ready]:
        if not self.engine.differs_in_adapter(plan.load):
            # The engine's own first word waits for a process to start.
            yield Loading("start", 0.0)
            async for event in self.engine.load(plan.load):
                if isinstance(event, Ready):
                    self._loaded = plan
                yield event
            return
        try:
            await self.engine.set_adapter(plan.load.adapter, plan.load.adapter_scale)
        except DrkunError:
            if self.engine.loaded and self._loaded is not None and self.plan is plan:
                self.plan = self._loaded
            raise
        self._loaded = plan
        if self.engine.ready is not None:
            yield self.engine.ready

    async def ask(
        self, question: str, *, sampling: Sampling, think: bool = True, system: str = ""
    ) -> AsyncIterator[Update]:
        """Ask a new question in the conversation, opening one with `system` if there is none yet.

        Every update has already been written into the turn when it is yielded.

        Raises:
            DrkunError: no answer, or only part of one; the turn says which.
        """
        # A paste or an argument can hold half a character, which no pipe and no file takes.
        question = question.encode("utf8", "replace").decode("utf8")
        if not self.conversation.turns and self.conversation.id == 0:
            self.conversation.system = system
        turn = Turn(
            # Stands for "not in the store".
            id=-1 - len(self.conversation.turns),
            conversation_id=self.conversation.id,
            question=question,
            sampling={**msgspec.to_builtins(sampling), "think": think},
            red_flags=safety.red_flags(question),
            created_at=time.time(),
        )
        self._name_model(turn)
        # A full disk must not keep anyone from asking.
        error = await self._save(turn)
        self.conversation.turns.append(turn)
        self.turn = turn
        yield Asked(turn)
        if error:
            yield Unsaved(error)
        async for update in self._answer(turn, self._request(turn, sampling, think)):
            yield update

    async def ask_again(
        self, question: str, *, sampling: Sampling, think: bool = True
    ) -> AsyncIterator[Update]:
        """Replace the last turn: the same question for another answer, or an edited one."""
        if (last := self.last) is not None:
            # What cannot be written now is written with the new turn, which says so if it fails again.
            await self._write(("superseded", id(last)), partial(self._supersede, last))
            self.conversation.turns.remove(last)
        async for update in self.ask(
            question, sampling=sampling, think=think, system=self.conversation.system
        ):
            yield update

    def _request(self, turn: Turn, sampling: Sampling, think: bool) -> Generate:
        """What the engine is asked, in the way that the adapter was trained to be asked."""
        plan = self.plan
        system = plan.system("") if plan else ""
        return Generate(
            id=0,
            messages=prompts.messages(self.conversation, turn, system),
            sampling=sampling,
            think=plan.thinks(think) if plan else think,
        )

    async def resume(self) -> AsyncIterator[Update]:
        """Carry on with the last answer where it was cut off."""
        turn = self.last
        if turn is None or turn.state not in RESUMABLE:
            return
        settings = {**turn.sampling}
        think = bool(settings.pop("think", True))
        request = msgspec.structs.replace(
            self._request(turn, msgspec.convert(settings, Sampling), think),
            resume=Partial(turn.reasoning, turn.answer),
        )
        turn.state, turn.error, turn.thinking_truncated = State.STREAMING, "", False
        async for update in self._answer(turn, request):
            yield update

    def stop(self) -> None:
        """End the answer that is coming, keeping what has come, and the load that is under way."""
        self._stop.set()
        if self._stop_load is not None:
            self._stop_load.set()
        self.engine.cancel()

    async def close(self) -> None:
        """Keep what has come and unload the model."""
        if self.turn is not None and self.turn.state is State.STREAMING:
            self.turn.state = State.CANCELLED
            await self._save(self.turn)
        await self.engine.close()

    # One answer

    async def _answer(self, turn: Turn, request: Generate) -> AsyncIterator[Update]:
        self.turn = turn
        self._stop.clear()
        saved = time.monotonic()
        before = dict(turn.usage)
        try:
            if not await self._acquire_engine():
                return
            try:
                if not self._stop.is_set() and not self.engine.loaded and self.plan is not None:
                    async for progress in self._bring_to(self.plan):
                        yield progress
                if self._stop.is_set():
                    return
                self._name_model(turn)
                async for event in self.engine.generate(request):
                    error = await self._apply(turn, event, before)
                    yield event
                    if error:
                        yield Unsaved(error)
                    if self._stop.is_set():
                        self.engine.cancel()
                    if time.monotonic() - saved >= SAVE_EVERY_S:
                        saved = time.monotonic()
                        if error := await self._save(turn):
                            yield Unsaved(error)
            finally:
                self._engine_in_use.release()
        except DrkunError as error:
            answering.fail(turn, error.message)
            raise
        finally:
            if turn.state is State.STREAMING:
                turn.state = State.CANCELLED
            self.turn = None
            unsaved = await self._save(turn)
        if unsaved:
            yield Unsaved(unsaved)

    async def _acquire_engine(self) -> bool:
        """Wait for a load that is under way; False when the answer is stopped before its end."""
        acquire = asyncio.ensure_future(self._engine_in_use.acquire())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({acquire, stop}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if acquire.done():
                self._engine_in_use.release()
            raise
        finally:
            stop.cancel()
            acquire.cancel()
        return acquire.done()

    async def _apply(
        self, turn: Turn, event: Started | Delta | Finished, before: dict[str, int]
    ) -> DrkunError | None:
        answering.take(turn, event, before)
        if isinstance(event, Started):
            error = await self._forget(turn, event.dropped_messages) if event.dropped_messages else None
            turn.dropped_turns = self.conversation.context_start
            return error
        if isinstance(event, Finished) and self._loaded is not None:
            await asyncio.to_thread(_learn, self.engine.machine_memory, self._loaded, event)
        return None

    async def _forget(self, turn: Turn, messages: int) -> DrkunError | None:
        """The oldest turns no longer fit the context, nor will they next time."""
        remembered = prompts.remembered(self.conversation, turn)
        first = remembered[messages // 2] if messages // 2 < len(remembered) else turn
        conversation = self.conversation
        conversation.context_start = conversation.turns.index(first)
        return await self._write(
            ("context", id(conversation)),
            lambda: self.store.set_context_start(conversation.id, conversation.context_start),
        )

    # Keeping it

    async def _save(self, turn: Turn) -> DrkunError | None:
        return await self._write(("turn", id(turn)), partial(self._keep, self.conversation, turn))

    async def _write(self, key: tuple[str, int], write: Callable[[], None]) -> DrkunError | None:
        """Write to the store, in order after everything that it could not take before."""
        self._unwritten.setdefault(key, write)
        try:
            await asyncio.to_thread(self._write_all)
        except DrkunError as error:
            return error
        return None

    def _write_all(self) -> None:
        for key, write in list(self._unwritten.items()):
            try:
                write()
            except DrkunError as error:
                if error.kind == "store_missing":
                    # Deleted in another window; trying again would hold up everything after it.
                    self._unwritten.pop(key, None)
                raise
            self._unwritten.pop(key, None)

    def _keep(self, conversation: Conversation, turn: Turn) -> None:
        if conversation.id == 0:
            made = self.store.create_conversation(conversation.system)
            conversation.id = made.id
            conversation.created_at, conversation.updated_at = made.created_at, made.updated_at
        if turn.id < 0:
            turn.conversation_id = conversation.id
            turn.id = self.store.add_turn(turn)
        else:
            self.store.save(turn)

    def _supersede(self, turn: Turn) -> None:
        if turn.id > 0:
            self.store.supersede(turn.id)

    def _name_model(self, turn: Turn) -> None:
        """Which model answers is known for sure once it is loaded."""
        if plan := self.plan:
            answering.name_model(turn, plan)
