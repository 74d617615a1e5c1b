"""The hash that a hub gives of a file, reckoned while the file comes."""

from __future__ import annotations

import hashlib
from typing import Any

from drkun_tui.library.hub.protocol import RepoFile


class Hasher:
    """SHA-256, or Git's SHA-1 of a blob.

    In the thread that receives: handing each chunk to another one, even while the next is on its way, takes
    more time than it saves. A core hashes faster than nearly every network brings.

    Args:
        file: whose digest decides which hash it is.
    """

    def __init__(self, file: RepoFile) -> None:
        self._file = file
        self.restart()

    def restart(self) -> None:
        """Forget what was hashed."""
        self._hash: Any = hashlib.sha256()
        if len(self._file.digest) == 40:
            # Git's name for a blob: not chosen by us, and no secret depends on it.
            self._hash = hashlib.sha1(f"blob {self._file.size}\0".encode(), usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        """Hash a chunk."""
        self._hash.update(chunk)

    def matches(self) -> bool:
        """Is what was hashed the file, as far as its hub tells?"""
        return not self._file.digest or self._hash.hexdigest() == self._file.digest
