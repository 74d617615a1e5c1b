"""What a data check is asked and what it tells: one JSON object a line. Light to import."""

from __future__ import annotations

import msgspec

from drkun_tui.training.data.summary import Summary
from drkun_tui.training.recipe import Data

# What was found


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """The rendered examples of a data set in tokens of one model: those to train on and those held out."""

    model: str
    """Whose tokens they are."""
    examples: int
    total: int
    trained: int
    """Of these, in responses and within the context length: the loss is computed on them."""
    median: int
    p95: int
    max: int
    context_length: int
    longer: int
    """Examples with more tokens than the context length; they are cut."""
    masked: int
    """Of these, the ones of which no response is left; they are left out."""
    lost_row: int = 0
    """The first row, from 1, whose reasoning or answer does not survive the rendering; a run is refused then.
    0: none of those that were looked at."""
    histogram: tuple[int, ...]
    """Examples in each bar of `drkun_tui.training.data.summary.EDGES`."""


class Segment(msgspec.Struct, frozen=True):
    """A stretch of an example's text."""

    text: str
    tokens: int
    trained: bool
    """Is the loss computed on it?"""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An example as the model is trained on it, decoded from its tokens."""

    row: int
    """From 0."""
    source: str
    tokens: int
    trained: int
    cut: int
    """Tokens that do not fit the context length, and are not among the segments."""
    segments: tuple[Segment, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was left out or is flagged."""

    row: int
    """From 0."""
    source: str
    question: str
    reasoning: str
    answer: str
    reason: str
    detail: str
    """What gave it away, as far as the reason alone does not tell."""


# Requests


class Check(msgspec.Struct, frozen=True, tag="check", kw_only=True):
    """Read, clean and tokenize; comes once, and first."""

    data: Data
    model: str
    """A name in the library, or a path."""
    context_length: int
    seed: int
    language: str
    """In which failures are told."""


class ListRows(msgspec.Struct, frozen=True, tag="list", kw_only=True):
    """Some rows that were left out, or are flagged, for this reason."""

    reason: str
    offset: int
    limit: int


class ListExamples(msgspec.Struct, frozen=True, tag="examples", kw_only=True):
    """Some examples, those to train on first."""

    offset: int
    limit: int


Request = Check | ListRows | ListExamples

# Events


class Reading(msgspec.Struct, frozen=True, tag="reading", kw_only=True):
    """Bytes (rows of a hub's data set) read so far."""

    done: int
    total: int


class Checked(msgspec.Struct, frozen=True, tag="checked", kw_only=True):
    """The rows are read and cleaned."""

    summary: Summary


class Tokenizing(msgspec.Struct, frozen=True, tag="tokenizing", kw_only=True):
    """Examples tokenized so far."""

    done: int
    total: int


class Measured(msgspec.Struct, frozen=True, tag="measured", kw_only=True):
    """The examples are tokenized."""

    tokens: Tokens


class Rows(msgspec.Struct, frozen=True, tag="rows", kw_only=True):
    """The answer to `ListRows`."""

    rows: tuple[Row, ...]


class Examples(msgspec.Struct, frozen=True, tag="examples", kw_only=True):
    """The answer to `ListExamples`."""

    examples: tuple[Shown, ...]


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """What was asked for cannot be had: an error, in the reader's language."""

    kind: str
    message: str
    hint: str


Event = Reading | Checked | Tokenizing | Measured | Rows | Examples | Failed

_ENCODER = msgspec.json.Encoder()
_REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(message: Request | Event) -> bytes:
    """One line, without its end."""
    return _ENCODER.encode(message)


def decode_request(line: bytes) -> Request:
    """Raises `msgspec.MsgspecError` on anything that is no request."""
    return _REQUESTS.decode(line)


def decode_event(line: bytes) -> Event:
    """Raises `msgspec.MsgspecError` on anything that is no event."""
    return _EVENTS.decode(line)
