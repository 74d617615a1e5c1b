"""Comparisons that were made, kept in ``comparisons.jsonl`` in the data folder: one JSON object a line.

A line is only ever added, and is on the disk before `keep` or `vote` returns. One that a crash tore, or that
another version wrote, is passed over.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from drkun_tui import paths
from drkun_tui.consult.conversation import Turn
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t

if TYPE_CHECKING:
    from drkun_tui.comparison.contest import Contest


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one contestant answered."""

    name: str
    """Model and adapter."""
    model: str
    adapter: str | None
    profile: str
    engine: str
    demonstration: bool
    thinking: str
    answer: str
    state: str
    thinking_truncated: bool
    error: str
    usage: dict[str, int]
    timings: dict[str, float]

    @classmethod
    def of(cls, name: str, turn: Turn) -> Answer:
        """The answer that stands in a turn."""
        return cls(
            name=name,
            model=turn.model,
            adapter=turn.adapter,
            profile=turn.profile,
            engine=turn.engine,
            demonstration=turn.demonstration,
            thinking=turn.reasoning,
            answer=turn.answer,
            state=str(turn.state),
            thinking_truncated=turn.thinking_truncated,
            error=turn.error,
            usage=turn.usage,
            timings=turn.timings,
        )


class Record(msgspec.Struct, frozen=True, tag="comparison", kw_only=True):
    """One question and everyone's answers, in the order in which they were shown."""

    id: str
    at: float
    """Seconds since the epoch."""
    question: str
    sampling: dict[str, object]
    red_flags: list[str]
    together: bool
    blind: bool
    answers: list[Answer]

    @classmethod
    def of(cls, contest: Contest, *, blind: bool = False) -> Record:
        """What a contest that has ended gave.

        Args:
            blind: the names were hidden, and the order drawn.
        """
        turns = contest.answers
        return cls(
            id=secrets.token_hex(8),
            at=time.time(),
            question=turns[0].question,
            sampling={**turns[0].sampling},
            red_flags=turns[0].red_flags,
            together=contest.order.together,
            blind=blind,
            answers=[Answer.of(c.name, turn) for c, turn in zip(contest.contestants, turns, strict=True)],
        )


class Vote(msgspec.Struct, frozen=True, tag="vote", kw_only=True):
    """What a reader who saw no names thought best."""

    of: str
    """Id of the `Record`."""
    at: float
    best: int | None
    """Index of the answer; None where all are as good."""


Line = Record | Vote
_decode = msgspec.json.Decoder(Line).decode


def keep(record: Record) -> None:
    """Keep a comparison.

    Raises:
        DrkunError: ``not_kept``, it cannot be written.
    """
    _append(record)


def vote(record: Record, best: int | None) -> None:
    """Keep a vote.

    Raises:
        DrkunError: ``not_kept``, it cannot be written.
    """
    _append(Vote(of=record.id, at=time.time(), best=best))


def read() -> Iterator[Line]:
    """Everything that was kept, the oldest first.

    Raises:
        DrkunError: ``unreadable``, the file is there and cannot be read.
    """
    try:
        with paths.comparisons().open("rb") as lines:
            for line in lines:
                try:
                    yield _decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure("unreadable", error) from error


def _append(line: Line) -> None:
    # A newline in front, too: the line before may be torn.
    raw = b"\n" + msgspec.json.encode(line) + b"\n"
    try:
        file = os.open(paths.comparisons(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            while raw:
                raw = raw[os.write(file, raw) :]
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise _failure("not_kept", error) from error


def _failure(kind: Literal["not_kept", "unreadable"], error: OSError) -> DrkunError:
    reason = error.strerror or str(error)
    return DrkunError(kind, t(f"compare.{kind}", file=str(paths.comparisons()), reason=reason))
