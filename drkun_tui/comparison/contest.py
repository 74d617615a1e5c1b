"""The same question to several models, at once where memory allows, else one after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drkun_tui.comparison.contestants import Contestant
from drkun_tui.consult import answering, safety
from drkun_tui.consult.conversation import State, Turn
from drkun_tui.engine.client import EngineClient, Restarting
from drkun_tui.engine.protocol import ChatMessage, Delta, Finished, Generate, Load, Loading, Ready, Started
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library import fit
from drkun_tui.library.fit import Shape, size_text
from drkun_tui.library.plan import Plan
from drkun_tui.sampling import Sampling

News = Loading | Restarting | Ready | Started | Delta | Finished | DrkunError
"""What is told of one contestant; an error ends its answer, and the others go on."""


@dataclass(frozen=True, slots=True)
class Order:
    """Whether all answer at once, and the sentence that says why."""

    together: bool
    reason: str


def order(plans: Sequence[Plan], machine: Hardware, *, in_turn: bool = False) -> Order:
    """At once where all models find room in the memory that is free now, each in a process of its own.

    Args:
        in_turn: one after the other in any case, so that no model takes another's cores and every speed is
            that of the model alone.
    """
    if in_turn:
        return Order(False, t("compare.in_turn"))
    free = {"cuda": machine.nvidia.free_bytes if machine.nvidia else 0, "cpu": machine.ram_available}
    need = dict.fromkeys(free, 0)
    here = [plan for plan in plans if plan.load.device != "elsewhere"]
    if not here:
        return Order(True, t("compare.all_elsewhere"))
    for plan in here:
        need[plan.load.device] += _need(plan)
    tight = next((device for device in free if need[device] > free[device]), None)
    device = tight or ("cuda" if need["cuda"] else "cpu")
    values = {"need": size_text(need[device]), "free": size_text(free[device])}
    return Order(tight is None, t("compare.together" if tight is None else "compare.no_room", **values))


def unlike(plans: Iterable[Plan]) -> str:
    """A sentence where those that are loaded here do not all lie on one device, or safetensors in one
    precision: then the models are not all that differs. "" where they do."""
    loads = [plan.load for plan in plans if plan.load.device != "elsewhere"]
    devices = list(dict.fromkeys(load.device for load in loads))
    bits = list(dict.fromkeys(load.weights for load in loads if load.engine == "transformers"))
    several = [t(f"compare.on_{device}") for device in devices] if len(devices) > 1 else []
    several += [t(f"compare.as_{each}") for each in bits] if len(bits) > 1 else []
    return t("compare.unlike", how=t("compare.and").join(several)) if several else ""


def _need(plan: Plan) -> int:
    """Bytes that a model takes where it is loaded."""
    model, adapter = plan.model, plan.adapter
    shape = model.shape or Shape(weight_bytes=model.size_bytes)
    added = adapter.size_bytes if adapter else 0
    return fit.need(shape, plan.profile, plan.load.context_length, added).total


def shuffled(contestants: Sequence[Contestant], seed: int, question: str) -> list[Contestant]:
    """The contestants in an order that seed and question decide: a seed that is set for good must not give
    the same order to every question."""
    return random.Random(f"{seed} {question}").sample(list(contestants), len(contestants))  # noqa: S311  # no secret


class Contest:
    """One question to several models in engine processes of their own. To be closed in the end.

    Args:
        contestants: in the order in which they answer.
        order: as `order` says.
        logs: folder for what the engines write to their standard error.
        machine_memory: JSON file of what is learned about this machine.
    """

    def __init__(
        self, contestants: Sequence[Contestant], order: Order, logs: Path, machine_memory: Path
    ) -> None:
        self.contestants = list(contestants)
        self.order = order
        self.answers: list[Turn] = []
        """One for each contestant, once they have been asked."""
        self._engines = [
            EngineClient(logs / f"engine-{number}.log", machine_memory)
            for number in range(1, len(contestants) + 1)
        ]
        self._stop = asyncio.Event()

    async def ask(
        self, question: str, *, sampling: Sampling, think: bool = True, system: str = ""
    ) -> AsyncIterator[tuple[int, News]]:
        """Ask everyone, once; what comes is told with the contestant's index, and stands in `answers` before.

        Args:
            sampling: with a seed, or every contestant would draw another one.
        """
        # A paste or an argument can hold half a character, which no pipe and no file takes.
        question = question.encode("utf8", "replace").decode("utf8")
        flags = safety.red_flags(question)
        self.answers = [self._turn(c.plan, question, flags, sampling, think) for c in self.contestants]
        came: asyncio.Queue[tuple[int, News] | None] = asyncio.Queue()

        async def follow(indices: Iterable[int]) -> None:
            try:
                for index in indices:
                    async for news in self._answer(index, sampling, think, system):
                        came.put_nowait((index, news))
            finally:
                came.put_nowait(None)

        everyone = range(len(self.contestants))
        groups = [[index] for index in everyone] if self.order.together else [list(everyone)]
        tasks = [asyncio.create_task(follow(group)) for group in groups]
        at_work = len(tasks)
        try:
            while at_work:
                if (told := await came.get()) is None:
                    at_work -= 1
                else:
                    yield told
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """End every answer; what has come is kept, and who has not begun does not."""
        self._stop.set()
        for engine in self._engines:
            engine.cancel()

    async def close(self) -> None:
        """End all engine processes."""
        await asyncio.gather(*(engine.close() for engine in self._engines))

    @property
    def pids(self) -> list[int]:
        """The engine processes that run."""
        return [engine.pid for engine in self._engines if engine.pid is not None]

    async def _answer(self, index: int, sampling: Sampling, think: bool, system: str) -> AsyncIterator[News]:
        turn, engine, plan = self.answers[index], self._engines[index], self.contestants[index].plan
        try:
            if not self._stop.is_set():
                ending = asyncio.create_task(self._end_when_stopped(engine))
                try:
                    async for progress in engine.load(self._share(plan.load)):
                        yield progress
                        if self._stop.is_set():
                            break
                finally:
                    if self._stop.is_set():
                        await ending
                    ending.cancel()
            if self._stop.is_set() or engine.ready is None:
                return
            load_s = engine.ready.load_s
            told = plan.system(system)
            messages = [ChatMessage("system", told)] if told.strip() else []
            request = Generate(
                id=0,
                messages=[*messages, ChatMessage("user", turn.question)],
                sampling=sampling,
                think=plan.thinks(think),
            )
            async for event in engine.generate(request):
                answering.take(turn, event)
                if isinstance(event, Finished):
                    turn.timings["load_s"] = load_s
                yield event
                if self._stop.is_set():
                    engine.cancel()
        except DrkunError as error:
            # One that was stopped while it loaded has died of that.
            if not self._stop.is_set():
                answering.fail(turn, error.message)
                yield error
        finally:
            if turn.state is State.STREAMING:
                turn.state = State.CANCELLED
            # It has answered, and another may want its memory.
            await engine.close()

    async def _end_when_stopped(self, engine: EngineClient) -> None:
        """A load hears no cancel, and can take minutes."""
        await self._stop.wait()
        await engine.close()

    def _share(self, load: Load) -> Load:
        """Who answers at once on the same cores shares them: threads that wait for one another only heat."""
        if not self.order.together:
            return load
        computing = sum(1 for c in self.contestants if c.plan.load.device == load.device)
        return msgspec.structs.replace(load, threads=max(1, load.threads // computing))

    def _turn(self, plan: Plan, question: str, red_flags: list[str], sampling: Sampling, think: bool) -> Turn:
        turn = Turn(
            id=0,
            conversation_id=0,
            question=question,
            sampling={**msgspec.to_builtins(sampling), "think": think},
            red_flags=red_flags,
            created_at=time.time(),
        )
        answering.name_model(turn, plan)
        return turn
