"""An answer as it comes: what the engine tells, written into its turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from drkun_tui.consult.conversation import State, Turn
from drkun_tui.engine.protocol import Delta, Finished, Started
from drkun_tui.i18n import t
from drkun_tui.profiles import Profile

if TYPE_CHECKING:
    from drkun_tui.library.plan import Plan

_ENDS = {"stop": State.DONE, "length": State.LENGTH, "cancelled": State.CANCELLED}


def name_model(turn: Turn, plan: Plan) -> None:
    """Keep with a turn which model answers it."""
    turn.model, turn.profile, turn.engine = plan.model.name, str(plan.profile), plan.load.engine
    turn.adapter = plan.adapter.name if plan.adapter else None
    turn.demonstration = plan.model.demonstration


def origin(turn: Turn) -> str:
    """That a model wrote the answer, and of what kind: a sentence to be put under it."""
    if turn.profile == Profile.REMOTE:
        return t("remote.by_model")
    return t("consult.demonstration" if turn.demonstration else "consult.by_model")


def take(turn: Turn, event: Started | Delta | Finished, before: Mapping[str, int] | None = None) -> None:
    """Write what one event tells into a turn.

    Args:
        before: usage of the part of the answer that is carried on, if one is.
    """
    if isinstance(event, Started):
        turn.sampling["seed"] = event.seed
        turn.usage["prompt_tokens"] = event.prompt_tokens
        turn.usage["reused_tokens"] = event.reused_tokens
    elif isinstance(event, Delta):
        if event.reclassify:
            turn.reasoning += turn.answer
            turn.answer = ""
        turn.reasoning += event.thinking
        turn.answer += event.answer
        for name in ("thinking_tokens", "answer_tokens"):
            turn.usage[name] = (before or {}).get(name, 0) + getattr(event, name)
    else:
        turn.state = _ENDS[event.finish_reason]
        # Again: a server tells them only now.
        turn.usage["prompt_tokens"] = event.usage.prompt_tokens
        turn.usage["reused_tokens"] = event.usage.reused_tokens
        turn.thinking_truncated = event.thinking_truncated
        turn.timings = msgspec.to_builtins(event.timings)


def fail(turn: Turn, reason: str) -> None:
    """An answer that has not ended comes to nothing, or stays what it is so far."""
    if turn.state is State.STREAMING:
        turn.state = State.INTERRUPTED if turn.reasoning or turn.answer else State.FAILED
        turn.error = reason
