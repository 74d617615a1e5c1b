"""From questions to answers and their marks, many at once through one engine process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec

from drkun_tui import hardware, profiles
from drkun_tui.consult import safety
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.protocol import (
    ChatMessage,
    Delta,
    Finished,
    Generate,
    Load,
    Partial,
    Score,
    Scored,
)
from drkun_tui.evaluation import choices, marks, text_metrics
from drkun_tui.evaluation.protocol import Answered, Item, Order
from drkun_tui.library import fit
from drkun_tui.library.plan import Plan

CONTEXT = 4096
"""Tokens of context of a question and its answer, where nobody wished for another number."""

SEQUENCES = {"llama_cpp": 16, "cpu": 8, "cuda": 32}
"""Questions at once: where decoding gets no faster by more of them, by engine and device."""


def spread(plan: Plan, order: Order) -> Load:
    """How the model is loaded to answer many questions at once: as many as are wished for, or as the memory
    holds contexts for."""
    load = plan.load
    wished = order.settings.context_length
    context = load.context_length if wished else min(load.context_length, CONTEXT)
    known = SEQUENCES["llama_cpp"] if load.engine == "llama_cpp" else SEQUENCES[load.device]
    sequences = order.sequences or known
    shape = fit.with_cache(plan.model.shape or fit.Shape(weight_bytes=plan.model.size_bytes), load.kv_cache)
    added = plan.adapter.size_bytes if plan.adapter else 0
    need = fit.need(shape, plan.profile, context, added)
    room = profiles.budget(plan.profile, hardware.read())
    while not order.sequences and sequences > 2 and need.total + (sequences - 1) * need.cache > room:
        sequences //= 2
    return msgspec.structs.replace(load, context_length=context, sequences=max(2, sequences))


@dataclass(slots=True)
class _Asked:
    """A question on its way."""

    place: int
    item: Item
    open: int
    """Requests that have not ended."""
    thinking: str = ""
    answer: str = ""
    finished: Finished | None = None
    scored: Scored | None = None
    failed: str = ""


@dataclass(slots=True)
class Asking:
    """Asks questions of one loaded model.

    Attributes:
        engine: loaded for several at once.
        plan: how the model is asked.
        order: with which settings.
    """

    engine: EngineClient
    plan: Plan
    order: Order

    async def answers(self, questions: Iterator[tuple[int, Item]]) -> AsyncIterator[Answered]:
        """The answers with their marks, as they come.

        Args:
            questions: with their places.

        Raises:
            DrkunError: the engine died.
        """
        async for asked, event in self.engine.many(self._requests(questions)):
            if isinstance(event, Delta):
                if event.reclassify:
                    asked.thinking, asked.answer = asked.thinking + asked.answer, ""
                asked.thinking += event.thinking
                asked.answer += event.answer
                continue
            if isinstance(event, Finished):
                asked.finished = event
            elif isinstance(event, Scored):
                asked.scored = event
            else:
                asked.failed = event.kind
            asked.open -= 1
            if not asked.open:
                yield _marked(asked)

    def _requests(self, questions: Iterator[tuple[int, Item]]) -> Iterator[tuple[_Asked, Generate | Score]]:
        settings = self.order.settings
        for place, item in questions:
            messages = self._messages(item)
            asked = _Asked(place, item, open=1)
            ask = Generate(
                id=0, messages=messages, sampling=settings.sampling, think=self.plan.thinks(settings.think)
            )
            if item.task == "answer":
                asked.open = 2
                yield asked, Score(id=0, messages=messages, response=Partial(item.reasoning, item.expected))
            yield asked, ask

    def _messages(self, item: Item) -> list[ChatMessage]:
        told = item.system or self.plan.system(self.order.settings.system)
        messages = [ChatMessage("system", told)] if told.strip() else []
        for question, answer in item.history:
            messages += [ChatMessage("user", question), ChatMessage("assistant", answer)]
        return [*messages, ChatMessage("user", item.question)]


def _marked(asked: _Asked) -> Answered:
    """An answer, and everything that is measured on it."""
    item, finished = asked.item, asked.finished
    told = Answered(place=asked.place, id=item.id, task=item.task, at=time.time())
    if asked.scored is not None:
        told = msgspec.structs.replace(told, loss=asked.scored.loss, loss_tokens=asked.scored.tokens)
    if item.task != "answer":
        chosen = _chosen(item, asked.answer)
        told = msgspec.structs.replace(told, chosen=chosen, correct=chosen == item.expected)
    if finished is None:
        return msgspec.structs.replace(told, failed=asked.failed)
    answer = item.task == "answer"
    return msgspec.structs.replace(
        told,
        unscored=asked.failed,
        thinking=asked.thinking,
        answer=asked.answer,
        tokens=finished.usage.thinking_tokens + finished.usage.answer_tokens,
        finish_reason=finished.finish_reason,
        closed=not finished.thinking_truncated if asked.thinking or finished.thinking_truncated else None,
        repeats=marks.repeats(asked.thinking + asked.answer),
        bleu=text_metrics.bleu(asked.answer, item.expected) if answer else (),
        rouge=text_metrics.rouge(asked.answer, item.expected) if answer else (),
        advised=marks.advises_emergency(asked.answer) if answer and safety.red_flags(item.question) else None,
    )


def _chosen(item: Item, answer: str) -> str:
    if item.task == "choice":
        return choices.chosen(answer, item.options)
    return choices.department(answer, item.options)
