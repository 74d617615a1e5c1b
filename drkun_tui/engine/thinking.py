"""Splits what a model writes into its reasoning and its answer, while it is being written.

Every character that goes in comes out once, in order, as reasoning, answer or markup (the tags and the
whitespace around them), and the split does not depend on how the text was cut into chunks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to mark a thinking block.

    Args:
        open: the tag before the reasoning.
        close: the tag after it.
        heading: the tags count only on lines of their own.
    """

    open: str
    close: str
    heading: bool = False


XML_SPELLINGS: tuple[Spelling, ...] = (
    Spelling("<think>", "</think>"),
    Spelling("<thinking>", "</thinking>"),
    Spelling("<思考>", "</思考>"),
    Spelling("<reasoning>", "</reasoning>"),
    Spelling("<thought>", "</thought>"),
)
SPELLINGS: tuple[Spelling, ...] = (*XML_SPELLINGS, Spelling("## Thinking", "## Final Response", heading=True))


class Kind(enum.Enum):
    """What a piece of a model's output is."""

    THINKING = "thinking"
    ANSWER = "answer"
    MARKUP = "markup"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of output of one kind."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Reclassify:
    """Everything given as ANSWER so far was reasoning after all."""


class Start(enum.Enum):
    """Where the prompt leaves the model: before a block, inside one, or after one."""

    FRESH = "fresh"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Split:
    """A whole output, split; ``truncated`` when the thinking block was never closed."""

    thinking: str
    answer: str
    truncated: bool


def opened_by(prompt: str) -> Spelling | None:
    """The spelling of the thinking block that the rendered prompt ends inside, right after its open tag."""
    return next((s for s in SPELLINGS if _ends_with(prompt, s.open, s.heading)), None)


def start_state(prompt: str) -> Start:
    """Where the rendered prompt leaves the model; only what it ends with counts, whitespace aside.

    A trailing close tag is CLOSED with or without its open tag: to turn thinking off, Qwen3's template
    writes an empty block and DeepSeek-V3.1's only the close tag.
    """
    if opened_by(prompt):
        return Start.OPEN
    if any(_ends_with(prompt, s.close, s.heading) for s in SPELLINGS):
        return Start.CLOSED
    return Start.FRESH


def split(text: str, start: Start = Start.FRESH, open_spelling: Spelling | None = None) -> Split:
    """Split a whole output; the arguments are the Splitter's."""
    splitter = Splitter(start, open_spelling)
    thinking, answer = "", ""
    for event in (*splitter.feed(text), *splitter.finish()):
        match event:
            case Reclassify():
                thinking, answer = answer, ""
            case Segment(Kind.THINKING, piece):
                thinking += piece
            case Segment(Kind.ANSWER, piece):
                answer += piece
    return Split(thinking, answer, splitter.truncated)


class Splitter:
    """Splits output as it comes, holding back no more than could still become a tag.

    Whitespace before a tag, after a tag and at the very start is MARKUP; at the very end it belongs to
    whatever it trails. A leading open tag counts in every start state: after OPEN it repeats the prompt's,
    after CLOSED the model thinks although told not to.

    Args:
        start: where the prompt left the model.
        open_spelling: after OPEN, the spelling whose close tag ends the block (see ``opened_by``);
            without it, any XML close tag does.
    """

    def __init__(self, start: Start = Start.FRESH, open_spelling: Spelling | None = None) -> None:
        if start is Start.OPEN:
            self._kind = Kind.THINKING
            opening = closing = (open_spelling,) if open_spelling else XML_SPELLINGS
        else:
            self._kind = Kind.ANSWER
            opening, closing = SPELLINGS, XML_SPELLINGS
        self._awaited = {s.open: s for s in opening} | {s.close: s for s in closing}
        # Nothing but whitespace has come since the start or the last tag / since the line began.
        self._at_edge = True
        self._at_line_start = True
        # What is held back: whitespace, then the beginning of a tag, then what follows a whole heading.
        self._space: list[str] = []
        self._tag = ""
        self._after_heading: list[str] = []
        # None stands for Reclassify.
        self._pieces: list[tuple[Kind | None, str]] = []
        self._finished = False

    @property
    def thinking(self) -> bool:
        """Whether the output is inside reasoning now."""
        return self._kind is Kind.THINKING

    @property
    def truncated(self) -> bool:
        """After ``finish``: whether the output ended before its thinking block was closed."""
        return self._finished and self.thinking

    def feed(self, text: str) -> list[Segment | Reclassify]:
        """Take the next chunk of output; return what can be told of it already."""
        for char in text:
            self._step(char)
        return self._drain()

    def finish(self) -> list[Segment | Reclassify]:
        """Say that the output has ended; return what was held back."""
        if self._tag in self._awaited:
            self._take_tag()
        else:
            self._release()
        self._emit(self._kind, self._space)
        self._space = []
        self._finished = True
        return self._drain()

    def _step(self, char: str) -> None:
        longer = self._tag + char
        if self._tag in self._awaited and char.isspace():
            self._after_heading.append(char)
            if char == "\n":
                self._take_tag()
        elif self._begins_tag(longer):
            self._tag = longer
            if longer in self._awaited and not self._awaited[longer].heading:
                self._take_tag()
        elif self._tag:
            self._release()
            self._step(char)
        elif char.isspace():
            self._at_line_start |= char == "\n"
            if self._at_edge:
                self._emit(Kind.MARKUP, [char])
            elif self._awaited:
                self._space.append(char)
            else:
                self._emit(self._kind, [char])
        else:
            self._tag = char
            self._release()

    def _begins_tag(self, text: str) -> bool:
        return any(
            tag.startswith(text) and (self._at_line_start or not spelling.heading)
            for tag, spelling in self._awaited.items()
        )

    def _take_tag(self) -> None:
        spelling = self._awaited[self._tag]
        opens = self._tag == spelling.open
        if opens and not self._at_edge:
            # An answer that itself writes both tags is talking about them: its close tag is not a lone one.
            if self._kind is Kind.ANSWER:
                self._awaited.pop(spelling.close, None)
            self._release()
            return
        if not opens and self._kind is Kind.ANSWER:
            self._pieces.append((None, ""))
        self._emit(Kind.MARKUP, [*self._space, self._tag, *self._after_heading])
        self._space, self._tag, self._after_heading = [], "", []
        self._at_edge = self._at_line_start = True
        self._kind = Kind.THINKING if opens else Kind.ANSWER
        self._awaited = {spelling.close: spelling} if opens else {}

    def _release(self) -> None:
        """Give the held-back beginning of a tag as the text it turned out to be."""
        if not self._tag:
            return
        self._emit(self._kind, [*self._space, self._tag])
        # What followed a heading may in turn precede a tag.
        self._space, self._tag, self._after_heading = self._after_heading, "", []
        self._at_edge = False
        self._at_line_start = self._space[-1:] == ["\n"]

    def _emit(self, kind: Kind, texts: list[str]) -> None:
        self._pieces += ((kind, text) for text in texts)

    def _drain(self) -> list[Segment | Reclassify]:
        pieces, self._pieces = self._pieces, []
        return [
            Reclassify() if kind is None else Segment(kind, "".join(text for _, text in run))
            for kind, run in groupby(pieces, key=itemgetter(0))
        ]


def _ends_with(prompt: str, tag: str, heading: bool) -> bool:
    tail = prompt.rstrip()
    return tail.rpartition("\n")[2].strip() == tag if heading else tail.endswith(tag)
