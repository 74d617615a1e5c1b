"""The interface's end of exports: begin, watch and stop them, however many programs look on.

Each export is a job of its own (`drkun_tui.publishing.job`) with a folder below ``exports/`` in the data
folder, as `drkun_tui.jobs.detached` has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached
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


class Exports:
    """All exports of one data folder.

    Args:
        root: where their jobs are; by default ``exports/`` in the data folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.home() / "exports"

    async def all(self) -> list[Export]:
        """Running, and lately ended ones, the newest first."""
        return await asyncio.to_thread(self._all)

    def _all(self) -> list[Export]:
        found = (_read(folder) for folder in detached.folders(self.root))
        return [export for export in found if export is not None]

    async def get(self, id: str) -> Export:
        """One export as it stands now.

        Raises:
            DrkunError: ``no_job``.
        """
        export = await asyncio.to_thread(_read, self.root / id)
        if export is None:
            raise error_of("no_job", {"id": id})
        return export

    async def start(self, request: Request) -> Export:
        """Begin an export.

        Args:
            request: `drkun_tui.publishing.preflight` has nothing against it.

        Raises:
            DrkunError: ``unwritable`` or ``job_start_failed``.
        """
        id = await asyncio.to_thread(self._new, request)
        await detached.start(JOB, self.root / id)
        return await self.get(id)

    def _new(self, request: Request) -> str:
        for old in [export for export in self._all() if not export.running][KEPT:]:
            detached.remove(self.root / old.id)
        try:
            folder = detached.new_folder(self.root)
            detached.write_whole(folder / REQUEST, encode(request))
        except OSError as error:
            reason = error.strerror or str(error)
            raise error_of("unwritable", {"folder": str(self.root), "reason": reason}) from error
        return folder.name

    async def stop(self, id: str) -> None:
        """End an export; nothing is left of it. Returns when it has ended.

        Raises:
            DrkunError: ``unwritable``.
        """
        try:
            await detached.stop(self.root / id)
        except OSError as error:
            reason = error.strerror or str(error)
            raise error_of("unwritable", {"folder": str(self.root), "reason": reason}) from error

    async def follow(self, id: str, offset: int = 0) -> AsyncIterator[tuple[Event, int]]:
        """Events from `offset` on as they come, each with the offset behind it; ends with the export. One
        whose process died without a word ends with `Failed` of kind ``died``."""
        last: Event | None = None
        async for event, behind in detached.follow(self.root / id, decode, offset):
            last, offset = event, behind
            yield event, behind
        export = await self.get(id)
        if export.error is not None and export.error.kind == "died" and not isinstance(last, Failed):
            yield Failed(kind="died", values={"log": str(self.root / id / detached.LOG)}), offset


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
