"""From a request to the tokens of its prompt: what engines that hold their own model share."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

from drkun_tui.engine import context
from drkun_tui.engine.base import EngineError, Prompt
from drkun_tui.engine.chat_template import ChatTemplate, carry_on
from drkun_tui.engine.protocol import ChatMessage, Generate, Score

Tokenize = Callable[[str], list[int]]


def build(
    request: Generate,
    template: ChatTemplate,
    tokenize: Tokenize,
    context_length: int,
    reuse: Callable[[list[int]], int],
) -> tuple[list[int], Prompt]:
    """Render, shorten to the context, and tokenize.

    Args:
        request: what is asked.
        template: the model's.
        tokenize: text to tokens, nothing added.
        context_length: tokens of the whole context.
        reuse: cuts the KV cache back to what it shares with the prompt, and tells how much that is.

    Raises:
        EngineError: the template refuses, or the question does not fit.
    """

    def opening(messages: list[ChatMessage]) -> str:
        return template.render(messages, think=request.think)

    def whole(messages: list[ChatMessage]) -> list[int]:
        prompt = opening(messages)
        return tokenize(prompt + carry_on(prompt, request.resume))

    sampling = request.sampling
    tokens, kept = context.fit(request.messages, whole, context_length, sampling.max_tokens)
    prompt = opening(kept)
    return tokens, Prompt(
        opening=prompt,
        carried=carry_on(prompt, request.resume),
        tokens=len(tokens),
        reused_tokens=reuse(tokens),
        dropped_messages=len(request.messages) - len(kept),
        seed=random.getrandbits(31) if sampling.seed is None else sampling.seed,
    )


def next_history(
    request: Generate, answer: str, template: ChatTemplate, tokenize: Tokenize, context_length: int
) -> tuple[str, list[int]]:
    """What the next turn's prompt will begin with, as text and as tokens; no tokens where its question would
    find no room."""
    past = [*request.messages, ChatMessage("assistant", answer)]
    text = template.history(past, think=request.think)
    tokens = tokenize(text)
    # A history without room for a question will be shortened instead.
    return text, tokens if len(tokens) < context_length - 2 * context.SMALLEST_ANSWER else []


def scored(
    request: Score, template: ChatTemplate, tokenize: Tokenize, stops: Collection[int], context_length: int
) -> tuple[list[int], list[int]]:
    """The tokens of the prompt and of the response, as training has them: tokenized apart, and the response
    with the token that ends a turn. One that is longer than the context is cut.

    Raises:
        EngineError: ``prompt_too_long``, nothing of the response fits.
    """
    prompt = template.render(request.messages, think=bool(request.response.thinking))
    tokens, response = tokenize(prompt), tokenize(carry_on(prompt, request.response))
    response += [token for token in tokenize(template.between_turns()) if token in stops][:1]
    room = context_length - len(tokens)
    if room <= 0 or not response:
        raise EngineError("prompt_too_long", tokens=len(tokens), limit=context_length - 1)
    return tokens, response[:room]


def shared_prefix(cached: Sequence[int], wanted: Sequence[int]) -> int:
    """How many tokens of the cache a prompt can keep.

    The last token is always evaluated again, since its logits are what sampling needs.
    """
    shared = 0
    for have, want in zip(cached, wanted[:-1], strict=False):
        if have != want:
            break
        shared += 1
    return shared
