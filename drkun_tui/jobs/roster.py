"""All detached jobs of one kind: found, followed and stopped, however many programs look on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached

Values = dict[str, str | int]
"""What the sentence of an error is filled with."""


class Listed(Protocol):
    """What every kind of job tells of one of its jobs."""

    @property
    def id(self) -> str:
        """The name of its folder."""

    @property
    def error(self) -> DrkunError | None:
        """Why it failed; of kind ``died`` when it ended for no told reason."""


JobT = TypeVar("JobT", bound=Listed)
EventT = TypeVar("EventT")


@dataclass(frozen=True, slots=True)
class Kind(Generic[JobT, EventT]):
    """What tells one kind of job from another.

    Attributes:
        read: a job as its folder tells; None when it is none.
        decode: turns a line of its events into one; raises on anything else.
        failed: the event with which it says that it failed.
        died: such an event of kind ``died``.
        error_of: the error that a kind of failure is, in the reader's language.
        missing: the kind of failure that no such job is.
    """

    read: Callable[[Path], JobT | None]
    decode: Callable[[bytes], EventT]
    failed: type[EventT]
    died: Callable[[Values], EventT]
    error_of: Callable[[str, Values], DrkunError]
    missing: str


class Roster(Generic[JobT, EventT]):
    """All jobs of one kind.

    Args:
        root: the folder that holds theirs.
    """

    def __init__(self, root: Path, kind: Kind[JobT, EventT]) -> None:
        self.root = root
        self._kind = kind

    async def all(self) -> list[JobT]:
        """All there are, the newest first."""
        return await asyncio.to_thread(self._all)

    def _all(self) -> list[JobT]:
        found = (self._kind.read(folder) for folder in detached.folders(self.root))
        return [job for job in found if job is not None]

    async def find(self, id: str) -> JobT | None:
        """One as it stands now, by its id, the beginning of it, or its last six characters; None when there
        is no such."""
        return await asyncio.to_thread(self._find, id)

    def _find(self, id: str) -> JobT | None:
        for folder in detached.folders(self.root):
            if detached.is_called(folder.name, id) and (job := self._kind.read(folder)) is not None:
                return job
        return None

    async def get(self, id: str) -> JobT:
        """As `find`.

        Raises:
            DrkunError: there is none.
        """
        job = await self.find(id)
        if job is None:
            raise self._kind.error_of(self._kind.missing, {"id": id})
        return job

    def log(self, id: str) -> Path:
        """What the process of a job wrote, newest process only."""
        return self.root / id / detached.LOG

    async def follow(self, id: str, offset: int = 0) -> AsyncIterator[tuple[EventT, int]]:
        """Events from `offset` on as they come, each with the offset behind it; ends with the job. One whose
        process died without a word ends with its failure of kind ``died``."""
        last: EventT | None = None
        async for event, behind in detached.follow(self.root / id, self._kind.decode, offset):
            last, offset = event, behind
            yield event, behind
        job = await self.find(id)
        died = job is not None and job.error is not None and job.error.kind == "died"
        if died and not isinstance(last, self._kind.failed):
            yield self._kind.died({"log": str(self.log(id))}), offset

    def _new(self, files: dict[str, bytes]) -> Path:
        """The folder of a job that has not begun, with these files in it.

        Raises:
            DrkunError: it cannot be written.
        """
        try:
            folder = detached.new_folder(self.root)
        except OSError as error:
            raise self._unwritable(error) from error
        return self._write(folder, files)

    def _write(self, folder: Path, files: dict[str, bytes]) -> Path:
        """Write what a job shall do, before it begins or goes on.

        Raises:
            DrkunError: it cannot be written.
        """
        try:
            for name, content in files.items():
                detached.write_whole(folder / name, content)
        except OSError as error:
            raise self._unwritable(error) from error
        return folder

    async def _stop(self, id: str, patience_s: float = detached.PATIENCE_S) -> None:
        """Ask a job to end early, and return when it has.

        Raises:
            DrkunError: its folder cannot be written.
        """
        try:
            await detached.stop(self.root / id, patience_s)
        except OSError as error:
            raise self._unwritable(error) from error

    async def _request_stop(self, id: str) -> None:
        """Ask a job to end early, and return at once.

        Raises:
            DrkunError: its folder cannot be written.
        """
        try:
            await asyncio.to_thread(detached.request_stop, self.root / id)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> DrkunError:
        reason = error.strerror or str(error)
        return self._kind.error_of("unwritable", {"folder": str(self.root), "reason": reason})
