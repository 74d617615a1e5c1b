"""Making a conversation fit the context: the oldest turns leave, never silently."""

from __future__ import annotations

from collections.abc import Callable

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.protocol import ChatMessage

SMALLEST_ANSWER = 64
"""Tokens that must be left for the answer, or the question counts as too long."""

AFTER_DROPPING = 0.6
"""Share of the room that a shortened history may take. Dropping more than needed at once keeps the
prompts of the following turns append-only, so their prefix stays in the KV cache."""

SMALLEST_CONTEXT = 512
"""Tokens below which no smaller context is proposed."""


def smaller(context_length: int) -> int:
    """The context to try where memory does not last for one of `context_length` tokens."""
    return max(SMALLEST_CONTEXT, context_length // 2)


def fit(
    messages: list[ChatMessage],
    tokenize: Callable[[list[ChatMessage]], list[int]],
    context_length: int,
    max_tokens: int,
) -> tuple[list[int], list[ChatMessage]]:
    """The prompt's tokens, and the messages that they hold.

    Args:
        messages: an optional system message, then user and assistant in turn, a user's last.
        tokenize: renders and tokenizes a conversation.
        context_length: tokens of the whole context.
        max_tokens: wished length of the answer, 0 for "as long as it gets".

    Raises:
        EngineError: ``prompt_too_long``, the last question alone does not fit.
    """
    reserve = min(max_tokens or context_length, context_length // 4)
    room = context_length - max(reserve, SMALLEST_ANSWER)
    tokens = tokenize(messages)
    if len(tokens) <= room:
        return tokens, messages

    head = messages[:1] if messages[0].role == "system" else []
    rest = messages[len(head) :]
    starts = [index for index, message in enumerate(rest) if message.role == "user"]
    for start in starts[1:]:
        kept = head + rest[start:]
        tokens = tokenize(kept)
        last = start == starts[-1]
        if len(tokens) <= (room if last else int(room * AFTER_DROPPING)):
            return tokens, kept
    # The last question stands alone and may use the room that is otherwise kept for the answer.
    alone = head + rest[starts[-1] :]
    tokens = tokenize(alone)
    most = context_length - SMALLEST_ANSWER
    if len(tokens) > most:
        raise EngineError("prompt_too_long", tokens=len(tokens), limit=most)
    return tokens, alone
