"""What of a conversation the model is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drkun_tui.consult import prompts
from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.engine.protocol import ChatMessage


def conversation(*answers: str, system: str = "", start: int = 0) -> Conversation:
    turns = [
        Turn(
            id=number,
            conversation_id=1,
            question=f"问{number}",
            answer=answer,
            reasoning="想",
            state=State.DONE,
        )
        for number, answer in enumerate(answers, 1)
    ]
    return Conversation(1, system=system, turns=turns, context_start=start)


def told(conversation: Conversation) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in prompts.messages(conversation, conversation.turns[-1])]


def test_questions_and_answers_without_their_reasoning() -> None:
    assert told(conversation("答1", "答2", "", system="你是医生。")) == [
        ("system", "你是医生。"),
        *(("user", "问1"), ("assistant", "答1")),
        *(("user", "问2"), ("assistant", "答2")),
        ("user", "问3"),
    ]


def test_an_empty_system_text_is_none() -> None:
    assert told(conversation("", system=" \n")) == [("user", "问1")]


def test_turns_without_an_answer_are_left_out_whole() -> None:
    assert told(conversation("答1", " \n", "答3", "")) == [
        *(("user", "问1"), ("assistant", "答1")),
        *(("user", "问3"), ("assistant", "答3")),
        ("user", "问4"),
    ]


def test_what_has_left_the_context_stays_out() -> None:
    chosen = conversation("答1", "答2", "答3", "", start=2, system="你是医生。")
    assert told(chosen) == [("system", "你是医生。"), ("user", "问3"), ("assistant", "答3"), ("user", "问4")]
    assert prompts.remembered(chosen, chosen.turns[-1]) == [chosen.turns[2]]


def test_an_answer_that_is_carried_on_is_no_part_of_its_own_past() -> None:
    assert told(conversation("答1", "开了头的答")) == [("user", "问1"), ("assistant", "答1"), ("user", "问2")]


@given(
    answers=st.lists(st.sampled_from(["", " ", "答"]), min_size=1, max_size=8),
    start=st.integers(0, 8),
    system=st.sampled_from(["", "医生"]),
)
def test_question_and_answer_always_take_turns(answers: list[str], start: int, system: str) -> None:
    """As templates want it."""
    chosen = conversation(*answers, start=start, system=system)
    messages = prompts.messages(chosen, chosen.turns[-1])
    if system:
        assert messages.pop(0) == ChatMessage("system", system)
    assert [m.role for m in messages] == [("user", "assistant")[i % 2] for i in range(len(messages))]
    assert messages[-1] == ChatMessage("user", chosen.turns[-1].question)
    assert all(m.content.strip() for m in messages)
