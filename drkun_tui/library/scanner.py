"""The interface's end of a look through the model folders, which a child process takes.

With thousands of models a look is half a second of Python. In a thread it would hold the interpreter's lock
whenever the screen wants to paint, longest when the cores are busy.
"""

from __future__ import annotations

import asyncio
import gc
import pickle  # both ends are this program
from collections.abc import Sequence
from pathlib import Path

import msgspec

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import language, t
from drkun_tui.jobs import Job, ended_by
from drkun_tui.library.fit import USUAL, Wish
from drkun_tui.library.overview import Entry, Overview
from drkun_tui.library.speed import Known

JOB = "drkun_tui.library.scan_job"

_MANY = 200
"""Entries of which the garbage collector is told at a time."""

PATIENCE_S = 0.5
"""What the child gets to end by itself; it has nothing to lose."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A request to look through the folders.

    Attributes:
        number: comes back with what is found.
        language: of the sentences in it.
        of: `overview`'s arguments, pickled: types that JSON does not know, such as paths in any encoding.
    """

    number: int
    language: str
    of: bytes


class Found(msgspec.Struct, frozen=True, tag="found"):
    """Some entries that are not as they were at the last look, or were not there: by their numbers, pickled.
    Few at a time, so that whoever reads can paint in between."""

    entries: bytes


class Looked(msgspec.Struct, frozen=True, tag="looked", kw_only=True):
    """A look is over: the numbers of all entries in their order, and the unreadable folders, pickled."""

    number: int
    order: list[int]
    unreadable: bytes


Event = Found | Looked

encode = msgspec.json.Encoder().encode
_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Scanner:
    """Looks through folders as often as it is asked, in one child process; what has not changed since the
    last look is the very same `Entry`."""

    def __init__(self) -> None:
        self._job: Job[Event] | None = None
        self._entries: dict[int, Entry] = {}
        self._number = 0
        self._came = 0
        """Entries since the garbage collector was told of some."""
        self._turn = asyncio.Lock()

    async def look(
        self, folders: Sequence[Path], machine: Hardware, known: Known, wish: Wish = USUAL
    ) -> Overview:
        """As `drkun_tui.library.overview.overview`. Safe to cancel; the next look begins behind this one.

        Raises:
            DrkunError: the child died (``scan_died``).
        """
        async with self._turn:
            job = await self._started()
            self._number += 1
            wanted = pickle.dumps((list(folders), machine, known, wish))
            job.send(encode(Look(number=self._number, language=language(), of=wanted)))
            while (event := await job.next_event()) is not None:
                if isinstance(event, Found):
                    some = pickle.loads(event.entries)  # noqa: S301  # from our own child
                    self._entries |= some
                    self._keep(len(some))
                    await asyncio.sleep(0)
                    continue
                self._entries = {number: self._entries[number] for number in event.order}
                if event.number == self._number:
                    unreadable = pickle.loads(event.unreadable)  # noqa: S301
                    return Overview(list(self._entries.values()), unreadable)
            raise _died(ended_by(job.exit_code))

    def _keep(self, came: int) -> None:
        """Tell the garbage collector that entries stay. None leads back to itself, and a full collection that
        walked thousands of them would hold up the screen, for a tenth of a second on a slow machine."""
        self._came += came
        if self._came >= _MANY:
            self._came = 0
            gc.collect(1)
            gc.freeze()

    async def _started(self) -> Job[Event]:
        if self._job is None or not self._job.running:
            self._entries = {}
            self._job = Job(JOB, _EVENTS.decode, paths.home() / "scan.log")
            try:
                await self._job.start()
            except OSError as error:
                raise _died(error.strerror or str(error)) from error
        return self._job

    async def close(self) -> None:
        """End the child."""
        if self._job is not None:
            await self._job.close(PATIENCE_S)


def _died(reason: str) -> DrkunError:
    return DrkunError("scan_died", t("inventory.scan_died", reason=reason))
