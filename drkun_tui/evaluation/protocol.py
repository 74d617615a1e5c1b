"""What is asked of an evaluation and what it tells: one JSON object a line in its ``events.jsonl``."""

from __future__ import annotations

from typing import Literal

import msgspec

from drkun_tui.engine.protocol import FinishReason
from drkun_tui.settings import Settings

Phase = Literal["starting", "preparing", "loading", "answering", "measuring", "stopped", "done", "failed"]
"""What an evaluation does; the last three are its ends. A stopped or failed one can go on."""

ENDED: tuple[Phase, ...] = ("stopped", "done", "failed")

Task = Literal["answer", "choice", "department"]
"""What a question wants: an answer like the reference, letters of options, or the department to go to."""

Seen = Literal["", "same", "near"]
Values = dict[str, str | int]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be evaluated, on what."""

    suite: str
    """A file or folder of questions, or the id of a training run, whose held-out rows are meant."""
    is_run: bool = False
    task: Literal["auto", "department"] = "auto"
    limit: int = 0
    """Most questions, drawn by their content; 0 is all of them."""
    sequences: int = 0
    """Questions at once; 0 chooses by the engine and the memory."""
    against: str = ""
    """Id of the evaluation that this one will be compared with; "" for none."""
    settings: Settings
    """Model, adapter, sampling and whatever else decides an answer."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a suite."""

    number: int
    """Its row in the suite, from 0, over all files."""
    id: str
    """A hash of what is asked and expected: the same question has it in every evaluation."""
    task: Task
    question: str
    """As the model sees it, with options and instruction."""
    expected: str
    """The reference answer, the letters, or the department."""
    reasoning: str = ""
    system: str = ""
    history: list[tuple[str, str]] = []
    """Questions and answers before this one."""
    options: dict[str, str] = {}
    seen: Seen = ""
    """Stands the question, or nearly the same, in the data that the model was fine-tuned on?"""


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """What the suite has in common with the data that the adapter, or the model that it was merged into, was
    trained on."""

    rows: int
    """That it was trained on; 0 where its data are not on this machine."""
    same: int = 0
    """Questions that stand among them in the same words."""
    near: int = 0
    """Questions that stand among them in almost the same words."""


class Prepared(msgspec.Struct, frozen=True, tag="prepared", kw_only=True):
    """The questions are known."""

    suite: str
    """Its name, without folders of this machine."""
    rows: int
    """Read, unusable ones included."""
    usable: int
    questions: int
    """That are asked: all usable ones, or as many as the limit allows."""
    dropped: dict[str, int] = {}
    """Rows that cannot be used, by reason."""
    fingerprint: str = ""
    """Of the questions that are asked."""
    overlap: Overlap | None = None
    """None where nothing was fine-tuned, as far as is known."""
    subject: str = ""
    """Tells by path, size and time whether model and adapter are still the same."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded", kw_only=True):
    """The model is in memory."""

    model: str
    adapter: str | None
    engine: str
    context_length: int
    at: float
    """Seconds since the epoch."""


class Answered(msgspec.Struct, frozen=True, tag="answered", kw_only=True, omit_defaults=True):
    """One question, what the model made of it, and everything that is measured on it."""

    place: int
    """Of the question among those that are asked, from 0."""
    id: str
    task: Task
    thinking: str = ""
    answer: str = ""
    tokens: int = 0
    finish_reason: FinishReason = "stop"
    closed: bool | None = None
    """Was the reasoning closed? None where the model did not reason."""
    repeats: bool = False
    chosen: str = ""
    """Letters or department that were read out of the answer; "" where there were none."""
    correct: bool | None = None
    """None for questions with a reference answer."""
    bleu: tuple[int, ...] = ()
    """Matching and all character n-grams of 1 to 4, and the lengths of answer and reference."""
    rouge: tuple[float, ...] = ()
    """ROUGE-1, -2 and -L, F measures."""
    loss: float = 0.0
    """Of the reference, in nats over all its tokens."""
    loss_tokens: int = 0
    advised: bool | None = None
    """Does the answer send to an emergency service? None where the question has no sign of one."""
    at: float = 0.0
    """Seconds since the epoch."""
    failed: str = ""
    """Kind of the failure where there is no answer; a key of the catalogue's ``engine`` section."""
    unscored: str = ""
    """The same where there is an answer, and no loss of the reference."""


class Finished(msgspec.Struct, frozen=True, tag="finished", kw_only=True):
    """All are answered, and the result is on disk."""


class Stopped(msgspec.Struct, frozen=True, tag="stopped", kw_only=True):
    """Somebody asked it to end early; what was answered is kept."""


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """It cannot go on. `kind` is a key of the catalogue's ``evaluation`` section."""

    kind: str
    values: Values = {}


Event = Prepared | Loaded | Answered | Finished | Stopped | Failed


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One metric over the questions that it is about, with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    count: int
    """Questions."""

    @property
    def is_share(self) -> bool:
        """Is it a share of questions, from 0 to 1?"""
        return self.name in SHARES


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of two evaluations, over the questions that both have answered."""

    name: str
    before: float
    after: float
    low: float
    """Of the 95 % interval of the difference, after − before, by the paired bootstrap."""
    high: float
    count: int
    p: float | None = None
    """Of McNemar's exact test, for shares."""
    shown: bool
    """Is there a difference? By the test for shares, else by the interval, which then has no zero in it."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison has found, or why there is none."""

    differences: tuple[Difference, ...] = ()
    kind: str = ""
    """Of the failure."""
    values: Values = {}


SHARES = ("accuracy", "department", "parsed", "ends", "closes", "repeats", "advised")
"""Figures from 0 to 1, of questions with options, of departments, and of all."""

SCORES = ("bleu4", "rouge1", "rouge2", "rougeL")
"""Figures from 0 to 100."""


def written(name: str, number: float) -> str:
    """A figure of this name as people write it: a share in percent, a loss with its digits."""
    if name in SHARES:
        return f"{100 * number:.1f} %"
    return f"{number:.4f}" if name == "loss" else f"{number:.2f}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation has found."""

    id: str
    suite: str
    fingerprint: str
    model: str
    adapter: str | None
    engine: str
    questions: int
    answered: int
    failed: dict[str, int] = {}
    """Questions without an answer, by the kind of the failure; they count as wrong where letters or a
    department were wanted."""
    unscored: dict[str, int] = {}
    """Questions with an answer, but without the loss of their reference."""
    dropped: dict[str, int] = {}
    overlap: Overlap | None = None
    figures: tuple[Figure, ...]
    tokens: int
    seconds: float
    """Spent answering, in all its processes."""
    sampling: dict[str, float | int | None]
    think: bool
    demonstration: bool = False
    signature: str = ""
    """How the metrics were computed, as their libraries name it."""

    def figure(self, name: str) -> Figure | None:
        """The figure of this name."""
        return next((figure for figure in self.figures if figure.name == name), None)


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """One line, without its end."""
    return _ENCODER.encode(event)


def decode(line: bytes) -> Event:
    """Raises `msgspec.MsgspecError` on anything that is no event."""
    return _DECODER.decode(line)


def encode_compared(compared: Compared) -> bytes:
    """One line, without its end."""
    return _ENCODER.encode(compared)


def decode_compared(line: bytes) -> Compared:
    """Raises `msgspec.MsgspecError` on anything else."""
    return msgspec.json.decode(line, type=Compared)
