"""How much of a download is there, and how fast it comes."""

from __future__ import annotations

import collections
import threading
import time

WINDOW_S = 5.0
"""The speed is that of the last so many seconds."""


class Meter:
    """Counts bytes, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        """What is there of each file."""
        self._working: dict[str, int] = {}
        """How far each file is that is worked at."""
        self._verifying: set[str] = set()
        self._received = 0
        self._samples: collections.deque[tuple[float, int]] = collections.deque()

    def expect(self, path: str, there: int) -> None:
        """A file of which so much is there already."""
        self._bytes[path] = there

    def set(self, path: str, done: int, *, verifying: bool) -> None:
        """So much of a file was received, or with `verifying`, was there before and is read again."""
        with self._lock:
            self._working[path] = done
            if verifying:
                self._verifying.add(path)
            else:
                self._verifying.discard(path)
                self._received += max(0, done - self._bytes[path])
                self._bytes[path] = done

    def finish(self, path: str, size: int) -> None:
        """A file is in its place."""
        with self._lock:
            self._working.pop(path, None)
            self._verifying.discard(path)
            self._bytes[path] = size

    @property
    def done(self) -> int:
        """Bytes of all files."""
        with self._lock:
            return sum(self._bytes.values())

    @property
    def verifying(self) -> bool:
        """Is nothing received now, and something read that was there before?"""
        with self._lock:
            return bool(self._verifying) and len(self._verifying) == len(self._working)

    def working(self) -> dict[str, int]:
        """How far each file is that is worked at."""
        with self._lock:
            return dict(self._working)

    def speed(self) -> float:
        """Bytes a second that were received lately; asked for regularly."""
        now = time.monotonic()
        self._samples.append((now, self._received))
        while now - self._samples[0][0] > WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()
        began, received = self._samples[0]
        return (self._received - received) / (now - began) if now > began else 0.0
