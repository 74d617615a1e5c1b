"""A model's folder while it is being filled: ``<store>/<org>/<name>/``.

Unfinished files are in ``.drkun-partial/``, named by place and content, so that bytes of different files
never meet. ``.drkun-download.json`` lists the files that are still missing: it is written before
the first byte, a file leaves it when it is verified and in its place, and it goes when none is left. So
a model with that file is incomplete, however whole it looks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from drkun_tui.jobs.detached import write_whole
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.protocol import HubName, Plan, RepoFile, Request
from drkun_tui.library.printable import printable
from drkun_tui.library.unfinished import LOCK, MARKER, PARTIAL, Marker, PendingFile

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Also a quota, and the largest file that the system or its file system allows."""


class ModelFolder:
    """The folder of one model, for one process at a time: a context that holds its lock.

    Args:
        store: the model store.
        repo: ``org/name``, checked.

    Raises:
        HubError: on entering, ``busy``, ``linked``, ``disk_full`` or ``unwritable``.
    """

    def __init__(self, store: Path, hub: HubName, repo: str) -> None:
        self.path = store.joinpath(*repo.split("/"))
        self._store = store
        self._partial = self.path / PARTIAL
        self._marker = Marker(hub, repo)
        self._marking = threading.Lock()

    def __enter__(self) -> Self:
        # Imported late: the interface looks at folders without locking them.
        import filelock

        try:
            self._store.mkdir(parents=True, exist_ok=True)
            _real_folders(self._store, [*self._marker.repo.split("/"), PARTIAL], make=True)
            self._lock = filelock.FileLock(self._partial / LOCK)
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise HubError("busy", repo=self._marker.repo) from None
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._marker = read_marker(self.path) or self._marker
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._marker.pending:
            shutil.rmtree(self._partial, ignore_errors=True)
            remove_empty(self.path, self._store)
        self._lock.release()

    def expect(self, request: Request, plan: Plan, outdated: Plan | None = None) -> None:
        """Write down that these files are missing, beside what another download left unfinished.

        Args:
            outdated: what the same download fetched before the repository changed.

        Raises:
            OSError: it cannot be written.
        """
        gone = {file.path for file in outdated.files} if outdated else set()
        pending = {file.path: file for file in self._marker.pending if file.path not in gone}
        pending |= {file.path: PendingFile(file.path, file.size) for file in plan.files}
        self._mark(
            Marker(
                request.hub,
                self._marker.repo,
                plan.revision,
                options=request.options,
                pending=list(pending.values()),
            )
        )

    def part(self, file: RepoFile) -> Path:
        """Where a file is while it is unfinished."""
        return self._partial / part_name(file)

    def placed(self, file: RepoFile) -> Path | None:
        """The file in its place, when something of the right size is there.

        Raises:
            HubError: ``linked``, a symbolic link, or what is neither file nor folder, is in the way.
        """
        parts = file.path.split("/")
        if not _real_folders(self.path, parts[:-1], make=False):
            return None
        path = self.path.joinpath(*parts)
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise HubError("linked", path=printable(str(path)))
        return path if status.st_size == file.size else None

    def place(self, file: RepoFile) -> None:
        """Move a verified file from where it was unfinished to its place.

        Raises:
            OSError: it cannot be moved.
            HubError: as `placed`.
        """
        parts = file.path.split("/")
        _real_folders(self.path, parts[:-1], make=True)
        self.placed(file)
        self.part(file).replace(self.path.joinpath(*parts))

    def finish(self, file: RepoFile) -> None:
        """A file is verified and in its place.

        Raises:
            OSError: it cannot be written down.
        """
        with self._marking:
            self._expect_no_more({file.path})

    def discard(self, plan: Plan, fetched: set[str]) -> None:
        """Remove what a download has left: its unfinished files, those in `fetched`, and folders that
        are empty then.

        Raises:
            OSError: something cannot be removed.
            HubError: as `placed`.
        """
        for file in plan.files:
            self.part(file).unlink(missing_ok=True)
            if file.path in fetched and (placed := self.placed(file)):
                placed.unlink()
                remove_empty(placed.parent, self.path)
        self._expect_no_more({file.path for file in plan.files})

    def _expect_no_more(self, paths: set[str]) -> None:
        left = [file for file in self._marker.pending if file.path not in paths]
        self._mark(msgspec.structs.replace(self._marker, pending=left))

    def _mark(self, marker: Marker) -> None:
        if marker.pending:
            write_whole(self.path / MARKER, msgspec.json.encode(marker))
        else:
            (self.path / MARKER).unlink(missing_ok=True)
        self._marker = marker


def _real_folders(root: Path, parts: list[str], *, make: bool) -> bool:
    """Whether all these folders are below `root`, made where they are missing and `make` is set.

    Raises:
        HubError: ``linked``, one of them is a symbolic link, which could lead anywhere, or a file.
    """
    for part in parts:
        root /= part
        if make:
            with contextlib.suppress(FileExistsError):
                root.mkdir()
        try:
            if not stat.S_ISDIR(root.lstat().st_mode):
                raise HubError("linked", path=printable(str(root)))
        except FileNotFoundError:
            return False
    return True


def remove_empty(folder: Path, root: Path) -> None:
    """Remove `folder` and those above it, as far as they are empty and below `root`."""
    with contextlib.suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def part_name(file: RepoFile) -> str:
    """What a file is called while it is unfinished: by its place, as two may have the same content, and
    by its content, as a place has other content at another revision."""
    return hashlib.sha256(f"{file.path}\0{file.size}\0{file.digest}".encode()).hexdigest()


def read_marker(folder: Path) -> Marker | None:
    """What is missing of the model in `folder`; None when nothing is known to be."""
    try:
        return msgspec.json.decode((folder / MARKER).read_bytes(), type=Marker)
    except (OSError, msgspec.DecodeError):
        return None


def unwritable(path: Path, error: OSError) -> HubError:
    """The failure that an `OSError` below `path` is."""
    if error.errno in _DISK_FULL:
        return HubError("disk_full", folder=printable(str(path)))
    reason = error.strerror or type(error).__name__
    return HubError("unwritable", path=printable(str(path)), reason=reason)
