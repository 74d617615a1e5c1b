"""Looks through the model folders whenever a line on standard input asks: ``python -m
drkun_tui.library.scan_job``. It ends with its input."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle  # both ends are this program
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from drkun_tui.i18n import set_language
from drkun_tui.jobs.priority import give_way
from drkun_tui.library.overview import Entry, overview
from drkun_tui.library.scanner import Event, Found, Look, Looked, encode

NICENESS = 5

AT_ONCE = 50
"""Entries in one event: about a millisecond to read."""


class Looker:
    """Remembers what it has told, so that only what is different is told again."""

    def __init__(self) -> None:
        self._told: dict[tuple[Path, str], tuple[int, Entry]] = {}
        self._numbers = itertools.count()

    def look(self, request: Look) -> Iterator[Event]:
        """What one look finds."""
        set_language(request.language)
        found = overview(*pickle.loads(request.of))  # noqa: S301  # from our own parent
        before, self._told = self._told, {}
        changed: dict[int, Entry] = {}
        for entry in found.entries:
            number, old = before.get(entry.model.key, (-1, None))
            if entry != old:
                number = next(self._numbers)
                changed[number] = entry
            self._told[entry.model.key] = (number, entry)
        pairs = iter(changed.items())
        while some := dict(itertools.islice(pairs, AT_ONCE)):
            yield Found(pickle.dumps(some))
        order = [number for number, _ in self._told.values()]
        yield Looked(number=request.number, order=order, unreadable=pickle.dumps(found.unreadable))


def main() -> None:
    """Answer until nobody asks any more."""
    looker = Looker()
    gives_way = False
    # Whoever asked may be gone before the answer.
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            # The screen that it is for comes first.
            gives_way = gives_way or give_way(os.getpid(), NICENESS)
            for event in looker.look(msgspec.json.decode(line, type=Look)):
                sys.stdout.buffer.write(encode(event) + b"\n")
                sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
