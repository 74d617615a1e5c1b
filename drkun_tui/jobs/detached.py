"""Jobs that outlive whoever started them.

Each has a folder of its own, written by the job and read by everybody else:

- ``events.jsonl``: what has happened, one JSON object a line, append-only. A torn line is ignored.
- ``state.json``: what it does now, and which process does it; replaced whole.
- ``log.txt``: what the process wrote to its standard output and error, newest run only.
- ``stop``: somebody asks it to end early; the job looks for it.
- ``lock``: held by the process while it runs, so that a job never runs twice.

A job is started again in the same folder; what it has to do, it keeps there itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.jobs import processes
from drkun_tui.jobs.priority import give_way

EventT = TypeVar("EventT")

LOG = "log.txt"
POLL_S = 0.1
"""How often a follower looks for news: less than a reader notices, and some microseconds each time."""

HAND_OVER_S = 2.0
"""How long a job waits for the process that ran it before."""

NICENESS = 10
"""Of a job's process, where the system has priorities."""

PATIENCE_S = 10.0
"""What a job gets to end early by itself before it is killed."""

RUNS_ALREADY = 75
"""Exit code of a process whose job is run by another one."""

_EVENTS, _STATE, _STOP, _LOCK = "events.jsonl", "state.json", "stop", "lock"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a job does now.

    Attributes:
        process: names the process that runs it (`processes.signature`).
        phase: in the job's own words, e.g. ``"downloading"``.
        error: why it failed, as the job's own events say it; empty when it has not.
        updated: seconds since the epoch.
    """

    process: str
    phase: str
    error: dict[str, str | int] = {}
    updated: float = 0.0

    @property
    def alive(self) -> bool:
        """Does its process still run?"""
        return processes.is_alive(self.process)


# The job's end


class RunsAlreadyError(Exception):
    """Another process runs this job."""


class Reporter:
    """The job's end of its folder.

    Args:
        folder: the job's; it exists.

    Raises:
        RunsAlreadyError: another process runs this job.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        # Imported late: only jobs need it, not those who watch them.
        import filelock

        self._folder = folder
        self._lock = filelock.FileLock(folder / _LOCK)
        try:
            # The threads of a process that was killed hold it for a moment longer than its first one.
            self._lock.acquire(timeout=HAND_OVER_S, poll_interval=0.02)
        except filelock.Timeout:
            raise RunsAlreadyError from None
        # It was asked of the process before, whoever has started this one.
        (folder / _STOP).unlink(missing_ok=True)
        self._events = (folder / _EVENTS).open("ab", buffering=0)
        if _is_torn(folder / _EVENTS):
            self._events.write(b"\n")

    def event(self, line: bytes) -> None:
        """Append one event, a JSON object without line breaks."""
        self._events.write(line + b"\n")

    def state(self, phase: str, error: dict[str, str | int] | None = None) -> None:
        """Say what the job does now."""
        state = State(
            process=processes.signature(os.getpid()), phase=phase, error=error or {}, updated=time.time()
        )
        write_whole(self._folder / _STATE, msgspec.json.encode(state))

    @property
    def stop_requested(self) -> bool:
        """Has somebody asked the job to end early?"""
        return (self._folder / _STOP).exists()


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _is_torn(events: Path) -> bool:
    """Was its last writer killed in the middle of a line?"""
    with events.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


# Everybody else's


def new_folder(root: Path) -> Path:
    """Make the folder of a new job; its name sorts by the time at which it was made.

    Raises:
        OSError: it cannot be made.
    """
    made = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    folder = root / f"{made}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


def folders(root: Path) -> list[Path]:
    """The folders of all jobs below `root`, the newest first."""
    try:
        return sorted((path for path in root.iterdir() if path.is_dir()), reverse=True)
    except OSError:
        return []


def is_called(id: str, wanted: str) -> bool:
    """Is this the job that somebody names: by its id, its beginning, or its last six characters?"""
    return id == wanted or (len(wanted) > 3 and wanted in (id[: len(wanted)], id[-6:]))


def state(folder: Path) -> State | None:
    """What a job does, or did last; None when it was never started or its state cannot be read."""
    try:
        return msgspec.json.decode((folder / _STATE).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None


def standing(
    folder: Path, now: State | None, ended: Collection[str]
) -> tuple[str, dict[str, str | int] | None]:
    """The phase of a job as people see it, and why it failed: its error's values with their ``kind``.

    One that was never started is ``stopped``; one whose process died without a word has ``failed``, of kind
    ``died``.

    Args:
        now: what it does, or did last.
        ended: the phases in which no process is at work.
    """
    if now is None:
        return "stopped", None
    if now.phase not in ended and not now.alive:
        return "failed", {"kind": "died", "log": str(folder / LOG)}
    return now.phase, dict(now.error) or None


_started: list[subprocess.Popen[bytes]] = []
"""Those that this process has started and not seen end."""


async def start(module: str, folder: Path, ended: Collection[str] = ()) -> None:
    """Run a job in a process of its own, which gets the folder as its one argument, and wait until it
    has taken over. Where it runs already, nothing happens.

    Args:
        module: what ``python -m`` runs; it makes a `Reporter` and tells its state.
        folder: the job's.
        ended: the phases in which a process that is still there does nothing any more.

    Raises:
        DrkunError: ``job_start_failed``.
    """
    give_up = time.monotonic() + PATIENCE_S
    while (now := state(folder)) is not None and now.alive:
        if now.phase not in ended or time.monotonic() > give_up:
            return
        await asyncio.sleep(POLL_S / 10)
    process = _spawn(module, folder)
    # Whoever sits at the screen, and the model that answers there, come first.
    gives_way = give_way(process.pid, NICENESS)
    while (now := state(folder)) is None or not now.process.startswith(f"{process.pid} "):
        if (code := process.poll()) is not None:
            if code == RUNS_ALREADY:
                return
            raise _not_started(_last_line(folder / LOG) or f"exit code {code}")
        await asyncio.sleep(POLL_S / 10)
        gives_way = gives_way or give_way(process.pid, NICENESS)


def _spawn(module: str, folder: Path) -> subprocess.Popen[bytes]:
    _forget_the_dead()
    try:
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # What happens to the terminal or to this process is nothing to the job.
                start_new_session=True,
            )
    except OSError as error:
        raise _not_started(error.strerror or str(error)) from error
    _started.append(process)
    return process


def _forget_the_dead() -> None:
    """The system keeps a child that has ended until its parent has looked."""
    _started[:] = [child for child in _started if child.poll() is None]


def _not_started(reason: str) -> DrkunError:
    return DrkunError("job_start_failed", t("jobs.start_failed", reason=reason))


def _last_line(log: Path) -> str:
    lines = tail(log).decode("utf8", "replace").splitlines()
    return lines[-1].strip() if lines else ""


async def follow(
    folder: Path, decode: Callable[[bytes], EventT], offset: int = 0
) -> AsyncIterator[tuple[EventT, int]]:
    """Events from `offset` on as they come, each with the offset behind it; ends when the job has ended
    and everything was read.

    Args:
        decode: turns a line into an event; raises on anything else, which is ignored.
        offset: byte in ``events.jsonl`` where an event begins.
    """
    # A job that was never started has no file yet.
    with (folder / _EVENTS).open("a+b") as lines:
        while True:
            # Asked first: what it wrote before it ended is then surely seen.
            now = state(folder)
            lines.seek(offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                if (event := _decoded(line, decode)) is not None:
                    yield event, offset
                    # Whoever reads a long history has a screen to keep alive.
                    await asyncio.sleep(0)
            if now is None or not now.alive:
                _forget_the_dead()
                return
            await asyncio.sleep(POLL_S)


def _decoded(line: bytes, decode: Callable[[bytes], EventT]) -> EventT | None:
    """An event, or None for a line that was torn by the death of its writer."""
    try:
        return decode(line)
    except (ValueError, msgspec.MsgspecError):
        return None


def last_events(folder: Path, decode: Callable[[bytes], EventT]) -> tuple[list[EventT], int]:
    """The newest events, oldest first, as many as a few kilobytes hold, and the offset behind them."""
    try:
        size = (folder / _EVENTS).stat().st_size
    except OSError:
        return [], 0
    lines = tail(folder / _EVENTS).splitlines(keepends=True)
    torn = len(lines[-1]) if lines and not lines[-1].endswith(b"\n") else 0
    # The first may be cut by the reading.
    found = [event for line in lines if (event := _decoded(line, decode)) is not None]
    return found, size - torn


def events(folder: Path, decode: Callable[[bytes], EventT], until: int = -1) -> Iterator[EventT]:
    """All events that there are now, or those before the byte `until`."""
    try:
        with (folder / _EVENTS).open("rb") as lines:
            for line in lines:
                if until >= 0:
                    until -= len(line)
                    if until < 0:
                        return
                if (event := _decoded(line, decode)) is not None:
                    yield event
    except OSError:
        return


def tail(path: Path, size: int = 16 * 1024) -> bytes:
    """The last bytes of a file; none of one that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read()
    except OSError:
        return b""


def request_stop(folder: Path) -> None:
    """Ask a job to end early.

    Raises:
        OSError: the folder cannot be written.
    """
    (folder / _STOP).touch()


async def stop(folder: Path, patience_s: float = PATIENCE_S) -> None:
    """Ask a job to end early and wait until it has; kill it when it does not within `patience_s`.

    Raises:
        OSError: the folder cannot be written.
    """
    now = state(folder)
    if now is None or not now.alive:
        return
    request_stop(folder)
    give_up = time.monotonic() + patience_s
    while now.alive:
        if time.monotonic() > give_up:
            with contextlib.suppress(OSError):
                os.kill(int(now.process.partition(" ")[0]), signal.SIGKILL)
            give_up = float("inf")
        await asyncio.sleep(POLL_S / 2)


def remove(folder: Path) -> None:
    """Forget a job that has ended."""
    shutil.rmtree(folder, ignore_errors=True)
