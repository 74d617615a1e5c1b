"""The interface's end of evaluations: begin, watch, stop and resume them, and read what they have found.

Each is a job of its own (`drkun_tui.evaluation.job`) with a folder below ``evaluations/`` in the data folder:

- ``order.json``: what is evaluated on what.
- ``questions.jsonl``: the questions that are asked, as they are asked.
- ``events.jsonl``, ``state.json``, ``log.txt``, ``stop``: as `drkun_tui.jobs.detached` has them; every answer
  is an event, so what was answered stays whatever happens.
- ``result.json``: what was found, when it is through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.evaluation.faults import error_of, evaluation_error
from drkun_tui.evaluation.progress import Progress
from drkun_tui.evaluation.protocol import (
    ENDED,
    Answered,
    Compared,
    Difference,
    Event,
    Failed,
    Order,
    Phase,
    Prepared,
    Result,
    decode,
    decode_compared,
)
from drkun_tui.jobs import Job, detached, ended_by
from drkun_tui.jobs.roster import Kind, Roster

KeptT = TypeVar("KeptT")

JOB = "drkun_tui.evaluation.job"
COMPARING = "drkun_tui.evaluation.comparing"
ORDER, PREPARED, RESULT = "order.json", "prepared.json", "result.json"

STOP_S = 20.0
"""What an evaluation gets to end by itself before it is killed; what was answered is kept either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation as it stands.

    Attributes:
        phase: one that has ended for no told reason is ``failed`` (``died``).
        prepared: None until the questions are known.
        result: None until it is through.
        error: why it failed.
        updated: seconds since the epoch, of its last word.
    """

    id: str
    order: Order
    phase: Phase
    prepared: Prepared | None = None
    result: Result | None = None
    error: DrkunError | None = None
    updated: float = 0.0

    @property
    def running(self) -> bool:
        """Is it at work?"""
        return self.phase not in ENDED


class Evaluations(Roster[Evaluation, Event]):
    """All evaluations of one data folder.

    Args:
        root: where they are; by default ``evaluations/`` in the data folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or paths.home() / "evaluations", _KIND)

    async def start(self, order: Order) -> Evaluation:
        """Begin one.

        Raises:
            DrkunError: ``unwritable`` or ``job_start_failed``.
        """
        folder = await asyncio.to_thread(self._new, {ORDER: msgspec.json.encode(order)})
        return await self.resume(folder.name)

    async def resume(self, id: str) -> Evaluation:
        """Go on with one that does not run; what was answered is not asked again. One that is through does
        nothing.

        Raises:
            DrkunError: ``job_start_failed`` or ``no_evaluation``.
        """
        before = await self.get(id)
        if before.phase != "done":
            await detached.start(JOB, self.root / before.id, ENDED)
        return await self.get(before.id)

    async def request_stop(self, id: str) -> None:
        """Ask one to end early; returns at once.

        Raises:
            DrkunError: ``no_evaluation`` or ``unwritable``.
        """
        await self._request_stop((await self.get(id)).id)

    async def stop(self, id: str) -> None:
        """Ask one to end early; returns when it has.

        Raises:
            DrkunError: ``no_evaluation`` or ``unwritable``.
        """
        await self._stop((await self.get(id)).id, STOP_S)

    async def remove(self, id: str) -> None:
        """Forget one that has ended, its answers and its result.

        Raises:
            DrkunError: ``no_evaluation`` or ``still_running``.
        """
        found = await self.get(id)
        if found.running:
            raise evaluation_error("still_running", id=found.id)
        await asyncio.to_thread(detached.remove, self.root / found.id)

    async def progress(self, id: str) -> tuple[Progress, int]:
        """How far one is, and the offset behind what that was read from, for `follow`."""
        return await asyncio.to_thread(self._progress, id)

    def _progress(self, id: str) -> tuple[Progress, int]:
        # Where it ends is asked first: what is told meanwhile is left to whoever follows it.
        offset = detached.last_events(self.root / id, decode)[1]
        progress = Progress()
        for event in detached.events(self.root / id, decode, offset):
            progress.add(event)
        return progress, offset

    async def compare(self, before: str, after: str) -> tuple[Difference, ...]:
        """The differences between two that are through, found by a child process.

        Raises:
            DrkunError: ``no_evaluation``, ``no_result``, ``other_questions``; ``internal``, the child died.
        """
        log = paths.home() / "comparing.log"
        job: Job[Compared] = Job(COMPARING, decode_compared, log, (str(self.root), before, after))
        try:
            await job.start()
            told = await job.next_event()
        except OSError as error:
            raise evaluation_error("internal", reason=error.strerror or str(error)) from error
        finally:
            await job.close()
        if told is None:
            raise evaluation_error("internal", reason=ended_by(job.exit_code))
        if told.kind:
            raise error_of(told.kind, told.values)
        return told.differences

    def answers(self, id: str) -> Iterator[Answered]:
        """Everything that was answered so far, one after the other from the disk."""
        return (event for event in detached.events(self.root / id, decode) if isinstance(event, Answered))


def _read(folder: Path) -> Evaluation | None:
    """An evaluation as its folder tells; None when it is none."""
    try:
        order = msgspec.json.decode((folder / ORDER).read_bytes(), type=Order)
    except (OSError, msgspec.MsgspecError):
        return None
    state = detached.state(folder)
    phase, why = detached.standing(folder, state, ENDED)
    return Evaluation(
        id=folder.name,
        order=order,
        phase=phase,  # type: ignore[arg-type]
        prepared=read_kept(folder / PREPARED, Prepared),
        result=read_kept(folder / RESULT, Result),
        error=error_of(str(why.pop("kind", "")), why) if why else None,
        updated=state.updated if state else 0.0,
    )


_KIND: Kind[Evaluation, Event] = Kind(
    read=_read,
    decode=decode,
    failed=Failed,
    died=lambda values: Failed(kind="died", values=values),
    error_of=error_of,
    missing="no_evaluation",
)


def read_kept(path: Path, kind: type[KeptT]) -> KeptT | None:
    """What a file holds; None where it is not there yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
