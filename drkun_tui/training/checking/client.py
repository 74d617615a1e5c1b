"""The interface's end of a data check."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.jobs import Job, ended_by
from drkun_tui.training.checking.protocol import (
    Check,
    Checked,
    Event,
    Examples,
    Failed,
    ListExamples,
    ListRows,
    Measured,
    Reading,
    Row,
    Rows,
    Shown,
    Tokenizing,
    decode_event,
    encode,
)

JOB = "drkun_tui.training.checking.job"

PATIENCE_S = 0.5
"""What the child gets to see that it is no longer wanted; what it has made is removed in any case."""


class DataCheck:
    """One check of one data set, in a child process that stays to answer questions about it."""

    def __init__(self) -> None:
        self._job: Job[Event] | None = None
        self._folder: Path | None = None
        self._asked: deque[asyncio.Future[tuple[Any, ...]]] = deque()
        self._closing: asyncio.Future[None] | None = None

    async def run(self, check: Check) -> AsyncIterator[Reading | Checked | Tokenizing | Measured | Failed]:
        """Check, tell what comes, and go on answering until `close`; `Failed` tells that the data, or behind
        `Checked` the model, cannot be used.

        Raises:
            DrkunError: the child died (``check_died``).
        """
        self._folder = Path(tempfile.mkdtemp(prefix="drkun-data-"))
        log = paths.home() / "data-check.log"
        job = self._job = Job(JOB, decode_event, log, (str(self._folder),))
        try:
            await job.start()
        except OSError as error:
            raise _died(str(error)) from error
        job.send(encode(check))
        try:
            while (event := await job.next_event()) is not None:
                if isinstance(event, Rows | Examples):
                    waiting = self._asked.popleft()
                    if not waiting.done():
                        waiting.set_result(event.rows if isinstance(event, Rows) else event.examples)
                else:
                    yield event
            if self._job is job:
                raise _died(ended_by(job.exit_code))
        finally:
            for waiting in self._asked:
                waiting.cancel()
            self._asked.clear()

    async def rows(self, reason: str, offset: int, limit: int) -> tuple[Row, ...]:
        """Rows that were left out, or are flagged, for a reason; `run` has told `Checked`.

        Raises:
            asyncio.CancelledError: the check was closed.
        """
        return await self._ask(ListRows(reason=reason, offset=offset, limit=limit))

    async def examples(self, offset: int, limit: int) -> tuple[Shown, ...]:
        """Some examples, those to train on first; `run` has told `Tokenizing` or `Measured`.

        Raises:
            asyncio.CancelledError: the check was closed.
        """
        return await self._ask(ListExamples(offset=offset, limit=limit))

    async def _ask(self, request: ListRows | ListExamples) -> tuple[Any, ...]:
        if self._job is None:
            raise asyncio.CancelledError
        waiting: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
        self._asked.append(waiting)
        self._job.send(encode(request))
        return await waiting

    async def close(self) -> None:
        """End the child, and remove what it has made; whoever else closes waits for the same end."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            await job.close(PATIENCE_S)
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _died(reason: str) -> DrkunError:
    return DrkunError("check_died", t("data.check_died", reason=reason))
