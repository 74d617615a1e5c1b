"""Child processes that report what they do, one JSON object a line.

Whatever is native, heavy or long runs in one of these: a crash costs a message, and ending the
child is the sure way to get its memory back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Generic, Literal, TypeVar

from drkun_tui.jobs.priority import give_way

EventT = TypeVar("EventT")

LAST_WORDS = 64 * 1024
"""Bytes of the end of a log that `Job.last_words` reads."""

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes of the longest line that is read."""

POLL_S = 0.005
"""How often an ending child is looked at."""

TRIES = 10
"""How often a child is made to give way, spread over a second."""

CRASHES = frozenset(
    -getattr(signal, name)
    for name in ("SIGSEGV", "SIGILL", "SIGBUS", "SIGABRT", "SIGFPE")
    if hasattr(signal, name)
)
"""Exit codes of a child that crashed by itself, against one that somebody killed."""


class Job(Generic[EventT]):
    """One child process running a module of this package.

    Args:
        module: what ``python -m`` runs.
        decode: turns a line into an event; raises on anything else.
        log: file that takes the child's standard error, truncated first.
        args: command-line arguments for the module.
    """

    def __init__(
        self, module: str, decode: Callable[[bytes], EventT], log: Path, args: tuple[str, ...] = ()
    ) -> None:
        self._command = (sys.executable, "-m", module, *args)
        self._decode = decode
        self._log = log
        self._logs = False
        self._reader: Literal["", "events", "discard"] = ""
        """Who reads the child's events; there can be only one."""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the child.

        Raises:
            OSError: it cannot be started.
        """
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                limit=LINE_LIMIT,
                # Ctrl+C in the terminal is the interface's to handle, not the child's.
                start_new_session=True,
            )
        await self._give_way_as_we_do(self._process.pid)

    @staticmethod
    async def _give_way_as_we_do(pid: int) -> None:
        """The child of a job that gives way, such as an evaluation's engine, has a session of its own."""
        own = os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0
        for _ in range(TRIES if own > 0 else 0):
            if give_way(pid, own):
                return
            await asyncio.sleep(1 / TRIES)

    def _open_log(self) -> BinaryIO:
        try:
            log = self._log.open("wb")
            self._logs = True
            return log
        except OSError:
            # A full disk must not keep the child from running.
            return open(os.devnull, "wb")  # noqa: PTH123

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def running(self) -> bool:
        """Has it been started, and not ended?"""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, minus the signal's number when one ended it."""
        return self._process.returncode if self._process else None

    @property
    def crashed(self) -> bool:
        """Did it end by a fault of its own, such as a segmentation fault?"""
        return self.exit_code in CRASHES

    def last_words(self) -> str:
        """The end of what it wrote to its standard error; "" where that was not kept."""
        if self._logs:
            with contextlib.suppress(OSError), self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
                return log.read().decode("utf8", "replace")
        return ""

    def send(self, message: bytes) -> None:
        """Write one request line. A child that is gone is told by `next_event`."""
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(message + b"\n")

    async def next_event(self) -> EventT | None:
        """The next event, or None when the child has ended; then its exit code is known. One that
        is closed while nobody waits for an event tells no more of them.

        Safe to cancel: what was not returned comes with the next call.
        """
        if self._process is None or self._process.stdout is None:
            return None
        if self._reader == "discard":
            await self._ends_within(math.inf)
            return None
        self._reader = "events"
        try:
            line = await self._process.stdout.readline()
        finally:
            self._reader = ""
        # A child that was killed while it wrote leaves a torn last line.
        if line.endswith(b"\n"):
            return self._decode(line)
        await self._process.wait()
        return None

    async def close(self, patience_s: float = 1.0) -> None:
        """End the child: its input ends, then it is killed if it has not gone within `patience_s`."""
        if self._process is None or not self.running:
            return
        if self._process.stdin:
            self._process.stdin.close()
        discard = asyncio.ensure_future(self._discard())
        try:
            await self._ends_within(patience_s)
        finally:
            # Also when the wait is cancelled: nobody would end it any more.
            if self.running:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        await self._ends_within(math.inf)
        # asyncio complains at exit about a child whose pipe it has not seen end.
        await asyncio.wait({discard}, timeout=patience_s)
        discard.cancel()

    async def _ends_within(self, seconds: float) -> bool:
        # Process.wait() also waits for the pipes, which are never done when nobody reads a full one.
        give_up = time.monotonic() + seconds
        while self.running and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return not self.running

    async def _discard(self) -> None:
        """Read what nobody wants any more; whoever still waits for an event reads instead."""
        if self._process and self._process.stdout and not self._reader:
            self._reader = "discard"
            while await self._process.stdout.read(LINE_LIMIT):
                pass


def ended_by(exit_code: int | None) -> str:
    """How a child ended, e.g. ``"SIGKILL"`` or ``"exit code 1"``."""
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
