"""The interface's end of exports: begin, watch and stop them, however many programs look on.

Each export is a job of its own (`drkun_tui.publishing.job`) with a folder below ``exports/`` in the data
folder, as `drkun_tui.jobs.detached` has it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached
from drkun_tui.jobs.roster import Kind, Roster
from drkun_tui.publishing.faults import error_of
from drkun_tui.publishing.protocol import (
    ENDED,
    REQUEST,
    Event,
    Failed,
    Finished,
    Phase,
    Progress,
    Proved,
    Request,
    decode,
    encode,
    read_request,
)

JOB = "drkun_tui.publishing.job"

KEPT = 10
"""Ended exports that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One export as it stands.

    Attributes:
        id: names it for the methods of `Exports`.
        phase: one that has ended for no told reason is ``failed`` (``died``).
        progress: of the stage at work.
        proved: how near to its source the result is, once that is known.
        finished: what came of it, when it is done.
        error: why it failed.
        offset: where `Exports.follow` goes on without repeating what is told here.
    """

    id: str
    request: Request
    phase: Phase
    progress: Progress | None = None
    proved: Proved | None = None
    finished: Finished | None = None
    error: DrkunError | None = None
    updated: float = 0.0
    offset: int = 0

    @property
    def running(self) -> bool:
        """Is it at work?"""
        return self.phase not in ENDED


class Exports(Roster[Export, Event]):
    """All exports of one data folder.

    Args:
        root: where their jobs are; by default ``exports/`` in the data folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or paths.home() / "exports", _KIND)

    async def start(self, request: Request) -> Export:
        """Begin an export.

        Args:
            request: `drkun_tui.publishing.preflight` has nothing against it.

        Raises:
            DrkunError: ``unwritable`` or ``job_start_failed``.
        """
        folder = await asyncio.to_thread(self._prepared, request)
        await detached.start(JOB, folder)
        return await self.get(folder.name)

    def _prepared(self, request: Request) -> Path:
        for old in [export for export in self._all() if not export.running][KEPT:]:
            detached.remove(self.root / old.id)
        return self._new({REQUEST: encode(request)})

    async def stop(self, id: str) -> None:
        """End an export; nothing is left of it. Returns when it has ended.

        Raises:
            DrkunError: ``unwritable``.
        """
        await self._stop(id)


def _read(folder: Path) -> Export | None:
    """An export as its folder tells; None when it is none."""
    request = read_request(folder)
    if request is None:
        return None
    # Asked in this order, so that the news of what ends meanwhile is not missed.
    state = detached.state(folder)
    events, offset = detached.last_events(folder, decode)
    newest: dict[type, Event] = {type(event): event for event in events}
    phase, why = detached.standing(folder, state, ENDED)
    return Export(
        id=folder.name,
        request=request,
        phase=phase,  # type: ignore[arg-type]
        progress=newest.get(Progress),  # type: ignore[arg-type]
        proved=newest.get(Proved),  # type: ignore[arg-type]
        finished=newest.get(Finished),  # type: ignore[arg-type]
        error=error_of(str(why.pop("kind", "")), why) if why else None,
        updated=state.updated if state else 0.0,
        offset=offset,
    )


_KIND: Kind[Export, Event] = Kind(
    read=_read,
    decode=decode,
    failed=Failed,
    died=lambda values: Failed(kind="died", values=values),
    error_of=error_of,
    missing="no_job",
)
