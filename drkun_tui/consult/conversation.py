"""What a consultation is made of: a conversation, and its turns of one question and one answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

TITLE_CELLS = 24

# A title that starts with a greeting says nothing about the illness. (Patterns are compiled when they are
# first used, not when the program starts.)
_GREETING = (
    r"(?i)^(?:(?:医生|大夫|请问|专家|老师)*[，, ]*(?:你好|您好|请问|hello|hi|dear|good (?:morning|evening))"
    r"[，,。！!：:、 ]*(?:医生|大夫|there|doctor|dr)?[，,。！!：:、 ]+)+"
)
_LEADING_MARKS = r"^[\s#>*\-•·.，,。、：:]+"
_TRAILING_MARKS = "？?。.！!，,；;：:、 "
_NOT_FOR_TITLES = "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+"


class State(StrEnum):
    """How far an answer has come."""

    STREAMING = "streaming"
    DONE = "done"
    CANCELLED = "cancelled"
    LENGTH = "length"
    """It reached the most tokens that it was allowed."""
    INTERRUPTED = "interrupted"
    """The program or its engine died in the middle."""
    FAILED = "failed"


@dataclass(slots=True)
class Turn:
    """One question, and what came of it."""

    id: int
    conversation_id: int
    question: str
    reasoning: str = ""
    answer: str = ""
    state: State = State.STREAMING
    thinking_truncated: bool = False
    """The reasoning never closed, so there is no answer behind it."""
    red_flags: list[str] = field(default_factory=list)
    """Ids from `safety.red_flags`."""
    model: str = ""
    demonstration: bool = False
    """The model was one that is for trying the program out, not for advice."""
    adapter: str | None = None
    profile: str = ""
    engine: str = ""
    sampling: dict[str, object] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    created_at: float = 0.0
    """Unix seconds."""
    dropped_turns: int = 0
    """How many of the oldest turns were left out of the context for this answer."""
    error: str = ""


@dataclass(slots=True)
class Conversation:
    """A conversation with the turns that are shown, oldest first."""

    id: int
    title: str = ""
    system: str = ""
    context_start: int = 0
    """Index of the first turn that still goes to the model."""
    turns: list[Turn] = field(default_factory=list)
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(slots=True)
class Summary:
    """A conversation as the list shows it."""

    id: int
    title: str
    updated_at: float
    turn_count: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A turn that a search found."""

    conversation_id: int
    turn_id: int
    title: str
    snippet: str
    """Plain text around the first word that was looked for."""
    created_at: float
    field: str
    """``"question"`` or ``"answer"``: where the snippet is from."""


def title_from(question: str) -> str:
    """The first line of `question` that says something, cut to about `TITLE_CELLS` terminal cells."""
    # Imported late: commands that never show a title need no width tables.
    from rich.cells import cell_len, set_cell_size

    for line in question[:4000].splitlines():
        plain = re.sub(_LEADING_MARKS, "", re.sub(_NOT_FOR_TITLES, " ", line).strip())
        line_title = (re.sub(_GREETING, "", plain) or plain).strip(_TRAILING_MARKS)
        if any(char.isalnum() for char in line_title):
            if cell_len(line_title) <= TITLE_CELLS:
                return line_title
            return set_cell_size(line_title, TITLE_CELLS - 1).rstrip(_TRAILING_MARKS) + "…"
    return ""
