"""What of a conversation the model is told."""

from __future__ import annotations

from drkun_tui.consult.conversation import Conversation, Turn
from drkun_tui.engine.protocol import ChatMessage


def remembered(conversation: Conversation, before: Turn) -> list[Turn]:
    """The earlier turns that the model is told, oldest first.

    A turn without an answer is left out whole: templates want question and answer in turn.
    """
    kept = []
    for turn in conversation.turns[conversation.context_start :]:
        if turn.id == before.id:
            break
        if turn.answer.strip():
            kept.append(turn)
    return kept


def messages(conversation: Conversation, turn: Turn, system: str = "") -> list[ChatMessage]:
    """The system prompt, the turns still remembered, and the question of `turn`.

    Args:
        system: of a conversation that has none.
    """
    system = conversation.system if conversation.system.strip() else system
    told = [ChatMessage("system", system)] if system.strip() else []
    for earlier in remembered(conversation, turn):
        told += [ChatMessage("user", earlier.question), ChatMessage("assistant", earlier.answer)]
    return [*told, ChatMessage("user", turn.question)]
