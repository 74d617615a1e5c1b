"""One download: ``python -m drkun_tui.library.hub.job FOLDER``.

Reads ``request.json`` there, writes ``plan.json`` once it is known what to fetch, and reports as
`drkun_tui.jobs.detached` describes. Started again in the same folder, it goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from drkun_tui import hardware
from drkun_tui.jobs.detached import (
    RUNS_ALREADY,
    Reporter,
    RunsAlreadyError,
    folders,
    state,
    write_whole,
)
from drkun_tui.library.files import size_of
from drkun_tui.library.hub.base import Hub, HubError
from drkun_tui.library.hub.fitting import fits_on
from drkun_tui.library.hub.folder import ModelFolder, unwritable
from drkun_tui.library.hub.hubs import connect
from drkun_tui.library.hub.meter import Meter
from drkun_tui.library.hub.names import check_repo
from drkun_tui.library.hub.protocol import (
    OUTDATED,
    PLAN,
    Done,
    Event,
    Failed,
    FileDone,
    Paused,
    Phase,
    Plan,
    Planned,
    Progress,
    RepoFile,
    Request,
    Retrying,
    encode,
    read_plan,
    read_request,
)
from drkun_tui.library.hub.resolve import resolve
from drkun_tui.library.hub.retry import Backoff, StoppedError

if TYPE_CHECKING:
    from drkun_tui.library.hub.transfer import Transfer

ResultT = TypeVar("ResultT")

TICK_S = 0.25
"""How often progress is told, and a wish to stop looked for."""

_PATIENCE_S = 0.5
"""What a thread gets to notice that it shall stop; whatever it then has not written is fetched again."""

_OUTDATED = ("wrong_hash", "wrong_size", "file_missing", "revision_missing")
"""Failures after which the hub must be asked anew what there is."""

AT_WORK: tuple[Phase, ...] = ("downloading", "verifying")
"""The phases in which a download has found room enough, and fills it."""

_SHORTEST_SECRET = 8
"""Characters; less is no token, and would be found in any text."""


def main() -> None:
    """Run the job, and end the process, whatever its threads wait for."""
    folder = Path(sys.argv[1])
    try:
        reporter = Reporter(folder)
    except RunsAlreadyError:
        sys.exit(RUNS_ALREADY)
    request = read_request(folder)
    if request is None:
        sys.exit(f"no request in {folder}")
    download = Download(folder, request, reporter)
    signal.signal(signal.SIGTERM, lambda *_: download.stop())
    code = download.run()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that waits for the network would keep the process for as long.
    os._exit(code)


class Download:
    """A request on its way to the disk. One thread watches, others work."""

    def __init__(self, folder: Path, request: Request, reporter: Reporter) -> None:
        self._folder = folder
        self._request = request
        self._reporter = reporter
        self._wish = threading.Event()
        """Somebody wants it to stop."""
        self._halt = threading.Event()
        """The workers shall end, for that or another reason."""
        self._telling = threading.Lock()
        self._secret = ""
        self._meter = Meter()
        self._total = 0
        self._phase: Phase = "starting"
        self._told: Progress | None = None

    def stop(self) -> None:
        """Stop soon, and keep what has come."""
        self._wish.set()

    def run(self) -> int:
        """Fetch everything; the exit code is 0 when it is there or paused."""
        self._enter("starting")
        request, store = self._request, Path(self._request.store)
        try:
            with ModelFolder(store, request.hub, check_repo(request.repo)) as place:
                self._work(place)
            self._tell(Done(str(place.path), self._total))
            self._enter("done")
        except StoppedError:
            self._tell(Paused(self._meter.done, self._total))
            self._enter("paused")
        except (HubError, OSError) as error:
            told = error if isinstance(error, HubError) else unwritable(store, error)
            if told.kind in _OUTDATED:
                with contextlib.suppress(OSError):
                    (self._folder / PLAN).replace(self._folder / OUTDATED)
            self._fail(told.kind, told.values)
            return 1
        except Exception as error:
            sys.stderr.write(self._without_secret(traceback.format_exc()))
            self._fail("internal", {"reason": type(error).__name__})
            return 1
        return 0

    def _work(self, place: ModelFolder) -> None:
        self._enter("listing")
        hub, plan = self._watched(self._prepare)
        for file in plan.files:
            self._meter.expect(file.path, _have(place, file))
        have = self._meter.done
        self._total = plan.total
        self._tell(Planned(plan.revision, len(plan.files), plan.total, have))
        need = plan.total - have
        free = max(0, shutil.disk_usage(place.path).free - _promised(self._folder, place.path))
        if need and need + self._request.limits.spare_bytes > free:
            raise HubError("disk_short", need=need, free=free)
        place.expect(self._request, plan, read_plan(self._folder, OUTDATED))
        (self._folder / OUTDATED).unlink(missing_ok=True)
        self._watched(lambda: self._fetch_all(hub, plan, place))

    def _watched(self, work: Callable[[], ResultT]) -> ResultT:
        """Do `work` in another thread, and report meanwhile.

        Raises:
            StoppedError: somebody wanted it to stop; the thread may still wait for the network.
        """
        doing = ThreadPoolExecutor(1).submit(work)
        while not wait([doing], TICK_S).done:
            if self._reporter.stop_requested:
                self._wish.set()
            if self._wish.is_set():
                self._halt.set()
                wait([doing], _PATIENCE_S)
                raise StoppedError
            if self._total:
                self._progress()
        return doing.result()

    def _prepare(self) -> tuple[Hub, Plan]:
        hub = connect(self._request.hub, self._request.limits)
        self._secret = hub.token if len(hub.token) >= _SHORTEST_SECRET else ""
        if (earlier := read_plan(self._folder)) is not None:
            return hub, earlier
        request = self._request
        listing = self._backoff("").persist(lambda: hub.files(request.repo, request.revision))
        plan = resolve(listing, fits_on(hardware.read()), quant=request.quant, include=request.include)
        write_whole(self._folder / PLAN, encode(plan))
        return hub, plan

    def _fetch_all(self, hub: Hub, plan: Plan, place: ModelFolder) -> None:
        # Imported late: a repository that is not there is told without it.
        from drkun_tui.library.hub.transfer import Transfer

        limits = self._request.limits
        transfer = Transfer(hub, self._request.repo, plan.revision, limits, self._halt.is_set)
        pool = ThreadPoolExecutor(limits.connections)
        # The largest first, so that none is left alone at the end.
        files = sorted(plan.files, key=lambda file: file.size, reverse=True)
        doing = [pool.submit(self._fetch, transfer, place, file) for file in files]
        done, others = wait(doing, return_when=FIRST_EXCEPTION)
        if others:
            self._halt.set()
            pool.shutdown(wait=False, cancel_futures=True)
            wait(others, _PATIENCE_S)
        _raise_first(done)

    def _fetch(self, transfer: Transfer, place: ModelFolder, file: RepoFile) -> None:
        from drkun_tui.library.hub.transfer import is_whole

        def report(done: int, *, verifying: bool) -> None:
            self._meter.set(file.path, done, verifying=verifying)

        there = place.placed(file)
        fetched = there is None or not is_whole(there, file, report, self._halt.is_set)
        if fetched:
            try:
                transfer.fetch(file, place.part(file), self._backoff(file.path), report)
            except HubError as error:
                if error.kind != "repo_missing":
                    raise
                # The repository has been listed.
                raise HubError("file_missing", repo=self._request.repo) from error
            place.place(file)
        place.finish(file)
        self._meter.finish(file.path, file.size)
        self._tell(FileDone(file.path, file.size, fetched))

    def _backoff(self, path: str) -> Backoff:
        def tell(attempt: int, wait_s: float, error: HubError) -> None:
            self._tell(Retrying(path, attempt, round(wait_s, 1), error.kind, error.values))

        return Backoff(self._request.limits, self._halt.wait, tell)

    def _progress(self) -> None:
        phase: Phase = "verifying" if self._meter.verifying else "downloading"
        if phase != self._phase:
            self._enter(phase)
        done, speed = self._meter.done, self._meter.speed()
        eta = (self._total - done) / speed if speed else None
        progress = Progress(phase, done, self._total, speed, eta, self._meter.working())
        if progress != self._told:
            self._tell(progress)
            self._told = progress

    def _fail(self, kind: str, values: dict[str, str | int]) -> None:
        self._tell(Failed(kind, values))
        self._enter("failed", {"kind": kind, **values})

    def _enter(self, phase: Phase, error: dict[str, str | int] | None = None) -> None:
        self._phase = phase
        # Where the disk is full, whoever follows learns it from the process's end.
        with contextlib.suppress(OSError):
            self._reporter.state(phase, error)

    def _tell(self, event: Event) -> None:
        line = self._without_secret(encode(event).decode()).encode()
        with self._telling, contextlib.suppress(OSError):
            self._reporter.event(line)

    def _without_secret(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


def _have(place: ModelFolder, file: RepoFile) -> int:
    """Bytes of a file that are on the disk already."""
    if place.placed(file) is not None:
        return file.size
    return min(file.size, size_of(place.part(file)))


def _promised(own: Path, place: Path) -> int:
    """Bytes that other downloads at work have still to write to the disk of `place`."""
    promised = 0
    for folder in folders(own.parent):
        now = state(folder)
        request, plan = read_request(folder), read_plan(folder)
        if folder != own and now and now.alive and now.phase in AT_WORK and request and plan:
            other = ModelFolder(Path(request.store), request.hub, request.repo)
            with contextlib.suppress(OSError, HubError):
                if other.path.stat().st_dev == place.stat().st_dev:
                    promised += plan.total - sum(_have(other, file) for file in plan.files)
    return promised


def _raise_first(done: set[Future[None]]) -> None:
    """Raise what went wrong; that others stopped for it is no failure of its own."""
    errors = [error for future in done if (error := future.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, StoppedError)), errors[0])


if __name__ == "__main__":
    main()
