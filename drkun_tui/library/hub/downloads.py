"""The interface's end of downloads: begin, watch, pause, resume and cancel them, however many programs
look on, and ask a hub what there is.

Each download is a job of its own (`drkun_tui.library.hub.job`) with a folder below ``downloads/`` in the
data folder; it goes on when the interface ends. Each question is a child process that ends with its
answer, so no client library is ever in the process that draws.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.jobs import Job, detached, ended_by
from drkun_tui.jobs.roster import Kind, Roster
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.folder import ModelFolder, unwritable
from drkun_tui.library.hub.names import check_repo
from drkun_tui.library.hub.protocol import (
    ENDED,
    REQUEST,
    Answer,
    Card,
    Done,
    Event,
    Failed,
    FileDone,
    Filters,
    Found,
    HubName,
    Limits,
    ListFiles,
    Listing,
    Paused,
    Phase,
    Planned,
    Progress,
    Question,
    ReadCard,
    Request,
    Results,
    Retrying,
    Search,
    decode_answer,
    decode_event,
    encode,
    read_plan,
    read_request,
)
from drkun_tui.library.kinds import Kinds

JOB = "drkun_tui.library.hub.job"
INQUIRY = "drkun_tui.library.hub.inquiry"

KEPT = 10
"""Finished downloads that are remembered."""

_NO_MODEL = {
    "gated",
    "unauthorized",
    "forbidden",
    "repo_missing",
    "revision_missing",
    "file_missing",
    "no_weights",
    "pickles_only",
}
_BAD_INPUT = {"bad_repo", "nothing_matches", "quant_missing", "quant_several"}

error_of = Kinds("fetch", _BAD_INPUT, _NO_MODEL).error_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One download as it stands.

    Attributes:
        id: names it for the methods of `Downloads`.
        phase: one that has ended for no told reason is ``failed`` (``died``).
        done: bytes that are there.
        total: bytes of all files, 0 while that is unknown.
        speed: bytes a second; 0 when it does not run.
        eta_s: seconds that it will take; None while unknown.
        files: bytes of each file that is worked at.
        error: why it failed.
        waiting: why a file is being tried again, one sentence; "" when none is.
        offset: where `Downloads.follow` goes on without repeating what is told here.
    """

    id: str
    request: Request
    phase: Phase
    done: int = 0
    total: int = 0
    speed: float = 0.0
    eta_s: float | None = None
    files: dict[str, int]
    error: DrkunError | None = None
    waiting: str = ""
    updated: float = 0.0
    offset: int = 0

    @property
    def running(self) -> bool:
        """Is it at work?"""
        return self.phase not in ENDED

    @property
    def folder(self) -> Path:
        """Where the model is, or will be."""
        return Path(self.request.store).joinpath(*self.request.repo.split("/"))


class Downloads(Roster[Download, Event]):
    """All downloads of one data folder.

    Args:
        root: where their jobs are; by default ``downloads/`` in the data folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or paths.home() / "downloads", _KIND)

    async def start(self, request: Request) -> Download:
        """Begin a download. One of the same files that is there already goes on instead.

        Raises:
            DrkunError: ``bad_repo``, ``unwritable`` or ``job_start_failed``.
        """
        try:
            check_repo(request.repo)
        except HubError as error:
            raise error_of(error.kind, error.values) from error
        same = await self.matching(request)
        if same is not None and same.phase == "done":
            # It will be verified again; two lines for one model would tell nothing more.
            await asyncio.to_thread(detached.remove, self.root / same.id)
            same = None
        id = same.id if same else (await asyncio.to_thread(self._prepared, request)).name
        return await self.resume(id)

    async def matching(self, request: Request) -> Download | None:
        """The download that was begun with the same request, however patient."""
        asked = msgspec.structs.replace(request, limits=Limits())
        for download in await self.all():
            if msgspec.structs.replace(download.request, limits=Limits()) == asked:
                return download
        return None

    def _prepared(self, request: Request) -> Path:
        finished = [download for download in self._all() if download.phase == "done"]
        for old in finished[KEPT:]:
            detached.remove(self.root / old.id)
        return self._new({REQUEST: encode(request)})

    async def resume(self, id: str) -> Download:
        """Go on with a download that does not run; one that does just goes on. To see everything that it
        does from now on, follow it from the offset of what is returned.

        Raises:
            DrkunError: ``job_start_failed``, or ``no_download``, there is none of this id.
        """
        before = await self.get(id)
        await detached.start(JOB, self.root / before.id, ENDED)
        after = await self.get(before.id)
        # What was told while it began is told by `follow`.
        return replace(after, offset=before.offset)

    async def pause(self, id: str) -> None:
        """Stop a download, and keep what it has; returns when it has stopped.

        Raises:
            DrkunError: ``unwritable``.
        """
        await self._stop(id)

    async def cancel(self, id: str) -> None:
        """Stop a download, forget it, and remove what it has brought of a model that is not whole.
        The caller has asked first. A finished one is only forgotten.

        Raises:
            DrkunError: something cannot be removed, or another program downloads this model (``busy``).
        """
        await self.pause(id)
        await asyncio.to_thread(self._discard, id)

    def _discard(self, id: str) -> None:
        folder = self.root / id
        download = _read(folder)
        if download is None:
            return
        plan = read_plan(folder)
        if download.phase != "done" and plan is not None:
            store = Path(download.request.store)
            events = detached.events(folder, decode_event)
            fetched = {event.path for event in events if isinstance(event, FileDone) and event.fetched}
            try:
                with ModelFolder(store, download.request.hub, download.request.repo) as place:
                    place.discard(plan, fetched)
            except HubError as error:
                raise error_of(error.kind, error.values) from error
            except OSError as error:
                told = unwritable(store, error)
                raise error_of(told.kind, told.values) from error
        detached.remove(folder)

    def _unwritable(self, error: OSError) -> DrkunError:
        told = unwritable(self.root, error)
        return error_of(told.kind, told.values)


# Questions


async def search(hub: HubName, query: str, filters: Filters | None = None, limit: int = 30) -> list[Found]:
    """Models on a hub whose name matches, the most downloaded first.

    Raises:
        DrkunError: the hub cannot be asked.
    """
    answer = await _ask(Search(hub, query, filters or Filters(), limit))
    return answer.found if isinstance(answer, Results) else []


async def files(hub: HubName, repo: str, revision: str = "") -> Listing:
    """The files of a repository, for `choose.variants` and `resolve.resolve`.

    Raises:
        DrkunError: there is no such repository, it is not open to us, or the hub cannot be asked.
    """
    answer = await _ask(ListFiles(hub, repo, revision))
    return answer if isinstance(answer, Listing) else Listing(revision, [])


async def card(hub: HubName, repo: str, revision: str = "") -> str:
    """A model's card: a stranger's Markdown, at most 256 KiB; "" when there is none.

    Raises:
        DrkunError: as `files`.
    """
    answer = await _ask(ReadCard(hub, repo, revision))
    return answer.text if isinstance(answer, Card) else ""


async def _ask(question: Question) -> Answer:
    log = paths.home() / "hub.log"
    job: Job[Answer] = Job(INQUIRY, decode_answer, log)
    try:
        await job.start()
        job.send(encode(question))
        answer = await job.next_event()
    except OSError as error:
        raise error_of("died", {"log": str(log)}) from error
    finally:
        # Whoever no longer waits for the answer does not wait for the process either.
        await job.close(patience_s=0.5)
    if answer is None:
        raise error_of("died", {"log": str(log), "how": ended_by(job.exit_code)})
    if isinstance(answer, Failed):
        raise error_of(answer.kind, answer.values)
    return answer


# One job's folder


def _read(folder: Path) -> Download | None:
    """A download as its folder tells; None when it is none."""
    request = read_request(folder)
    if request is None:
        return None
    # Asked in this order, so that the news of what ends meanwhile is not missed.
    state = detached.state(folder)
    events, offset = detached.last_events(folder, decode_event)
    phase, why = detached.standing(folder, state, ENDED)
    told: dict[str, object] = {"phase": phase if state else "paused", "files": {}}
    if why:
        told["error"] = error_of(str(why.pop("kind", "")), why)
    for event in events:
        told |= _told_by(event)
    told["waiting"] = _waiting(events)
    if told["phase"] in ENDED:
        told |= {"speed": 0.0, "eta_s": None, "files": {}, "waiting": ""}
    return Download(
        id=folder.name,
        request=request,
        updated=state.updated if state else 0.0,
        offset=offset,
        **told,  # type: ignore[arg-type]
    )


def _told_by(event: Event) -> dict[str, object]:
    """What an event changes of a `Download`."""
    if isinstance(event, Planned):
        return {"done": event.have, "total": event.total}
    if isinstance(event, Progress):
        fields = ("done", "total", "speed", "eta_s", "files")
        return {name: getattr(event, name) for name in fields}
    if isinstance(event, Paused):
        return {"done": event.done, "total": event.total}
    if isinstance(event, Done):
        return {"done": event.total, "total": event.total}
    return {}


def _waiting(events: list[Event]) -> str:
    """Why a file is being tried again, as long as none of its bytes has come since; "" when none is."""
    why: dict[str, str] = {}
    have: dict[str, int] = {}
    for event in events:
        if isinstance(event, Retrying):
            why[event.path] = error_of(event.kind, event.values).message
        elif isinstance(event, FileDone):
            why.pop(event.path, None)
        elif isinstance(event, Progress):
            for path in [path for path in why if event.files.get(path, 0) > have.get(path, 0)]:
                del why[path]
            have = event.files
    return next(reversed(why.values()), "")


_KIND: Kind[Download, Event] = Kind(
    read=_read,
    decode=decode_event,
    failed=Failed,
    died=lambda values: Failed("died", values),
    error_of=error_of,
    missing="no_download",
)
