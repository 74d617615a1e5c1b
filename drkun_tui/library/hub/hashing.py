"""The hash that a hub gives of a file, reckoned while the file comes."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from drkun_tui.library.hub.protocol import RepoFile

_AHEAD = 8
"""Chunks that may wait to be hashed: what a file keeps in memory beside the one that comes."""


class Hasher:
    """SHA-256, or Git's SHA-1 of a blob. A context that ends the thread in which it may be reckoned.

    Args:
        file: whose digest decides which hash it is.
        apart: asked for each chunk, whether to hash it in a thread of its own. Hashing lets other threads
            run, so a single connection need not wait for it; several already keep the cores busy, and
            hash a chunk best while it is in their cache.
    """

    def __init__(self, file: RepoFile, apart: Callable[[], bool] = lambda: False) -> None:
        self._file = file
        self._apart = apart
        self._pool = ThreadPoolExecutor(1)
        self._waiting: collections.deque[Future[None]] = collections.deque()
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def restart(self) -> None:
        """Forget what was hashed."""
        self._waiting.clear()
        self._hash: Any = hashlib.sha256()
        if len(self._file.digest) == 40:
            # Git's name for a blob: not chosen by us, and no secret depends on it.
            self._hash = hashlib.sha1(f"blob {self._file.size}\0".encode(), usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        """Hash a chunk, now or soon."""
        if not self._apart():
            self._finish(0)
            self._hash.update(chunk)
            return
        self._finish(_AHEAD - 1)
        self._waiting.append(self._pool.submit(self._hash.update, chunk))

    def matches(self) -> bool:
        """Is what was hashed the file, as far as its hub tells?"""
        self._finish(0)
        return not self._file.digest or self._hash.hexdigest() == self._file.digest

    def _finish(self, most: int) -> None:
        """Wait until at most so many chunks wait."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()
