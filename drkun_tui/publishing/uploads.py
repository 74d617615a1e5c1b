"""The interface's end of uploads: begin, watch, stop and go on with them.

Each upload is a job of its own (`drkun_tui.publishing.upload_job`) with a folder below ``uploads/`` in the
data folder, as `drkun_tui.jobs.detached` has it, and the card in it as it was reviewed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached
from drkun_tui.jobs.roster import Kind, Roster
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.names import check_repo
from drkun_tui.publishing.faults import PublishingError, error_of
from drkun_tui.publishing.release import check_card, check_files
from drkun_tui.publishing.upload_protocol import (
    CARD,
    ENDED,
    REQUEST,
    Event,
    Failed,
    Finished,
    Phase,
    Progress,
    Request,
    decode,
    encode,
    read_request,
)

JOB = "drkun_tui.publishing.upload_job"

KEPT = 10
"""Finished uploads that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload as it stands; see `drkun_tui.publishing.exports.Export`."""

    id: str
    request: Request
    phase: Phase
    progress: Progress | None = None
    finished: Finished | None = None
    error: DrkunError | None = None
    offset: int = 0

    @property
    def running(self) -> bool:
        """Is it at work?"""
        return self.phase not in ENDED


class Uploads(Roster[Upload, Event]):
    """All uploads of one data folder.

    Args:
        root: where their jobs are; by default ``uploads/`` in the data folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or paths.home() / "uploads", _KIND)

    async def start(self, request: Request, card: str) -> Upload:
        """Begin an upload, or go on with the one of the same repository and files that did not come to its
        end. Somebody has reviewed the card.

        Raises:
            DrkunError: the name, the card or a file cannot be published as it is, or ``job_start_failed``.
        """
        folder = await asyncio.to_thread(self._prepared, request, card)
        await detached.start(JOB, folder, ENDED)
        return await self.get(folder.name)

    def check(self, request: Request, card: str) -> None:
        """Look for what speaks against an upload, before anybody is asked whether to begin it.

        Raises:
            DrkunError: the name, the card or a file cannot be published as it is.
        """
        try:
            check_repo(request.repo)
            check_card(card, request.licences)
            check_files({name: Path(path) for name, path in request.files.items()})
        except HubError as error:
            raise error_of("repo_name", {"repo": request.repo, "host": request.hub, "reason": ""}) from error
        except PublishingError as error:
            raise error_of(error.kind, error.values) from error

    def _prepared(self, request: Request, card: str) -> Path:
        self.check(request, card)
        uploads = self._all()
        for done in [upload for upload in uploads if upload.phase == "done"][KEPT:]:
            detached.remove(self.root / done.id)
        files = {REQUEST: encode(request), CARD: card.encode()}
        for begun in uploads:
            if begun.request == request and begun.phase != "done":
                return self._write(self.root / begun.id, files)
        return self._new(files)

    async def stop(self, id: str) -> None:
        """Stop an upload; the hub keeps what it has. Returns when it has stopped.

        Raises:
            DrkunError: ``unwritable``.
        """
        await self._stop(id)


def _read(folder: Path) -> Upload | None:
    """An upload as its folder tells; None when it is none."""
    request = read_request(folder)
    if request is None:
        return None
    # Asked in this order, so that the news of what ends meanwhile is not missed.
    state = detached.state(folder)
    events, offset = detached.last_events(folder, decode)
    newest: dict[type, Event] = {type(event): event for event in events}
    phase, why = detached.standing(folder, state, ENDED)
    return Upload(
        id=folder.name,
        request=request,
        phase=phase,  # type: ignore[arg-type]
        progress=newest.get(Progress),  # type: ignore[arg-type]
        finished=newest.get(Finished),  # type: ignore[arg-type]
        error=error_of(str(why.pop("kind", "")), why) if why else None,
        offset=offset,
    )


_KIND: Kind[Upload, Event] = Kind(
    read=_read,
    decode=decode,
    failed=Failed,
    died=lambda values: Failed(kind="died", values=values),
    error_of=error_of,
    missing="no_job",
)
