"""A conversation that outgrows the context: what leaves, what stays, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.context import AFTER_DROPPING, SMALLEST_ANSWER, fit
from drkun_tui.engine.protocol import ChatMessage

OVERHEAD = 3
"""Tokens around a message."""


def tokenize(messages: list[ChatMessage]) -> list[int]:
    """A token for each character, and some around each message."""
    return [ord(char) for m in messages for char in "[" + m.role[0] + m.content + "]"]


def conversation(*lengths: int, system: int = 0) -> list[ChatMessage]:
    """Messages of so many characters, each of letters of its own, so that none is mistaken for another."""
    texts = [chr(0x4E00 + index) * length for index, length in enumerate(lengths)]
    roles = ("user", "assistant")
    told = [ChatMessage(roles[index % 2], text) for index, text in enumerate(texts)]  # type: ignore[arg-type]
    return [ChatMessage("system", "S" * system), *told] if system else told


def room_of(context_length: int, max_tokens: int) -> int:
    """Tokens that a prompt of several turns may take."""
    wished = max_tokens or context_length
    return context_length - max(min(wished, context_length // 4), SMALLEST_ANSWER)


def test_what_fits_stays_whole() -> None:
    messages = conversation(100, 100, 100, system=50)
    tokens, kept = fit(messages, tokenize, 1024, 256)
    assert kept == messages
    assert tokens == tokenize(messages)


def test_the_answer_gets_a_quarter_at_most() -> None:
    """However long it may become, a prompt of three quarters of the context is not shortened."""
    messages = conversation(300, 300, 768 - 600 - 3 * OVERHEAD)
    for max_tokens in (0, 256, 100_000):
        assert fit(messages, tokenize, 1024, max_tokens)[1] == messages
        assert (
            fit([*messages[:2], ChatMessage("user", messages[2].content + "。")], tokenize, 1024, 0)[1]
            != messages
        )
    assert len(tokenize(messages)) == 768


def test_a_short_answer_leaves_more_room() -> None:
    messages = conversation(400, 400, 100)
    assert fit(messages, tokenize, 1024, 16)[1] == messages
    assert fit(messages, tokenize, 1024, 512)[1] != messages


def test_the_oldest_turns_leave_and_the_system_text_stays() -> None:
    messages = conversation(200, 200, 200, 200, 100, 100, 50, system=40)
    tokens, kept = fit(messages, tokenize, 1024, 0)
    assert kept == [messages[0], *messages[5:]]
    assert tokens == tokenize(kept)


def test_the_last_question_alone_may_use_the_answers_room() -> None:
    messages = conversation(100, 100, 900, system=10)
    tokens, kept = fit(messages, tokenize, 1024, 0)
    assert kept == [messages[0], messages[-1]]
    assert room_of(1024, 0) < len(tokens) <= 1024 - SMALLEST_ANSWER


@pytest.mark.parametrize("past", [(), (10, 10)])
def test_a_question_longer_than_the_context_is_refused(past: tuple[int, ...]) -> None:
    with pytest.raises(EngineError) as raised:
        fit(conversation(*past, 1000), tokenize, 1024, 100)
    assert raised.value.kind == "prompt_too_long"
    assert raised.value.values == {"tokens": 1003, "limit": 1024 - SMALLEST_ANSWER}


lengths = st.lists(st.integers(1, 300), min_size=1, max_size=21).filter(lambda found: len(found) % 2 == 1)


@given(
    lengths=lengths,
    system=st.sampled_from([0, 30]),
    context_length=st.integers(256, 2048),
    max_tokens=st.sampled_from([0, 1, 64, 500, 100_000]),
)
def test_a_shortened_prompt(lengths: list[int], system: int, context_length: int, max_tokens: int) -> None:
    messages = conversation(*lengths, system=system)
    try:
        tokens, kept = fit(messages, tokenize, context_length, max_tokens)
    except EngineError:
        alone = [m for m in messages if m.role == "system"] + messages[-1:]
        assert len(tokenize(alone)) > context_length - SMALLEST_ANSWER
        return
    head = [m for m in messages if m.role == "system"]
    assert tokens == tokenize(kept)
    assert kept[: len(head)] == head
    rest = kept[len(head) :]
    # What stays is the end of the conversation, in turn, and begins with a question.
    assert rest == messages[len(messages) - len(rest) :]
    assert [m.role for m in rest] == [("user", "assistant")[i % 2] for i in range(len(rest))]
    assert rest[-1] == messages[-1]
    assert len(tokens) <= context_length - SMALLEST_ANSWER
    if len(rest) > 1:
        assert len(tokens) <= room_of(context_length, max_tokens)
    # Nothing leaves without need.
    if len(tokenize(messages)) <= room_of(context_length, max_tokens):
        assert kept == messages


@given(turns=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), min_size=30, max_size=60))
def test_once_shortened_a_prompt_is_not_shortened_again_at_once(turns: list[tuple[int, int]]) -> None:
    """Each shortening costs the KV cache; the turns after it only add to the prompt."""
    context_length, largest = 1024, 40 + 60 + 2 * OVERHEAD
    room = room_of(context_length, 0)
    messages: list[ChatMessage] = []
    since_dropping = None
    for question, answer in turns:
        messages.append(ChatMessage("user", "问" * question))
        _, kept = fit(messages, tokenize, context_length, 0)
        if len(kept) < len(messages):
            assert since_dropping is None or since_dropping >= room * (1 - AFTER_DROPPING) // largest
            since_dropping = 0
        elif since_dropping is not None:
            since_dropping += 1
        messages = [*kept, ChatMessage("assistant", "答" * answer)]
