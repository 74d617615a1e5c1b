"""One file over HTTP: from the byte where it stopped, hashed while it comes, verified before it counts.

requests is used for it, not the hubs' own downloaders, which resume, verify, wait and stop each by rules of
their own; huggingface_hub's verifies lengths and no hashes. Reading the raw stream of requests costs a
quarter of the processor time that httpx takes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import requests
import urllib3

from drkun_tui.library.hub.base import Hub, HubError, from_status, host_of
from drkun_tui.library.hub.hashing import Hasher
from drkun_tui.library.hub.protocol import Limits, RepoFile
from drkun_tui.library.hub.retry import Backoff, StoppedError, retry_after

CHUNK = 1024 * 1024
_LINE_BYTES = 256 * 1024
"""Given back on a full disk, so that there is room to write down what happened."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Report(Protocol):
    """What hears how far a file is."""

    def __call__(self, done: int, *, verifying: bool) -> None:
        """So many bytes are there; `verifying` when they were there before."""
        ...


class Transfer:
    """Fetches files of one repository.

    Args:
        stopped: true when the download was asked to stop; looked at between two chunks.
    """

    def __init__(
        self, hub: Hub, repo: str, revision: str, limits: Limits, stopped: Callable[[], bool]
    ) -> None:
        self._hub = hub
        self._repo = repo
        self._revision = revision
        self._limits = limits
        self._stopped = stopped
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=limits.connections, max_retries=0)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        headers = hub.headers()
        # Given as authentication, no netrc takes its place; requests leaves it behind where a redirect
        # leads to another host.
        token = {name: headers.pop(name) for name in list(headers) if name.lower() == "authorization"}
        self._auth = _Headers(token)
        # A compressed answer has neither the length nor the ranges of the file.
        self._session.headers.update({**headers, "Accept-Encoding": "identity"})

    def fetch(self, file: RepoFile, part: Path, backoff: Backoff, report: Report) -> None:
        """Fetch a file into `part`, which may hold its beginning already, and verify it.

        Wrong bytes are deleted and fetched once more.

        Raises:
            HubError: it cannot be fetched; what has come stays in `part`, unless it is wrong.
            StoppedError: the download was asked to stop; what has come stays in `part`.
            OSError: `part` cannot be written.
        """
        for last in (False, True):
            try:
                self._fetch_once(file, part, backoff, report)
            except _WrongError as wrong:
                part.unlink(missing_ok=True)
                if last:
                    raise wrong.error from None
                report(0, verifying=False)
            else:
                return

    def _fetch_once(self, file: RepoFile, part: Path, backoff: Backoff, report: Report) -> None:
        with _open(part) as target:
            done = _Content(file, target, report, self._stopped)
            done.read()
            while done.size < file.size:
                try:
                    self._receive(file, done, backoff)
                except HubError as error:
                    backoff.failed(error)
            done.verify()

    def beginning(self, path: str, size: int) -> bytes:
        """The first bytes of a small file; none, when there is no such file.

        Raises:
            HubError: it cannot be had.
        """
        parts = []
        try:
            with self._answer(path, {}) as answer:
                self._check_status(answer)
                while size > 0 and (chunk := answer.raw.read1(size, decode_content=False)):
                    parts.append(chunk)
                    size -= len(chunk)
        except HubError as error:
            if error.kind not in ("file_missing", "repo_missing"):
                raise
        return b"".join(parts)

    def _receive(self, file: RepoFile, done: _Content, backoff: Backoff) -> None:
        """One request; the rest of the file, if all goes well."""
        with self._answer(file.path, {"Range": f"bytes={done.size}-"} if done.size else {}) as answer:
            self._check(answer, file, done)
            while chunk := answer.raw.read1(CHUNK, decode_content=False):
                done.add(chunk)
                backoff.reset()
                if self._stopped():
                    raise StoppedError
        if done.size < file.size:
            raise HubError("closed", retry=True, file=file.path)

    @contextlib.contextmanager
    def _answer(self, path: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """The answer to a request for a file; what fails until it is read to its end is a `HubError`."""
        url = self._hub.url(self._repo, self._revision, path)
        timeout = (self._limits.connect_s, self._limits.stall_s)
        try:
            with self._session.get(
                url, headers=headers, auth=self._auth, stream=True, timeout=timeout
            ) as answer:
                yield answer
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise HubError("stalled", retry=True, host=host_of(url)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason = type(_cause(error)).__name__
            raise HubError("unreachable", retry=True, host=host_of(url), reason=reason) from None

    def _check(self, answer: requests.Response, file: RepoFile, done: _Content) -> None:
        """Look at an answer's head; begin anew where the server does not go on from where we are."""
        status = answer.status_code
        if status == requests.codes.requested_range_not_satisfiable:
            raise done.wrong_size(None)
        self._check_status(answer)
        begin, whole = 0, answer.headers.get("Content-Length")
        if status == requests.codes.partial_content:
            told = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            begin, whole = (int(told[1]), told[2]) if told else (-1, None)
            if begin != done.size:
                # Not what was asked for, so it belongs nowhere.
                done.clear()
                raise HubError("server_error", retry=True, status=status, repo=self._repo)
        elif done.size:
            done.clear()
        if whole is not None and whole.isdecimal() and int(whole) != file.size:
            raise done.wrong_size(int(whole))

    def _check_status(self, answer: requests.Response) -> None:
        if answer.status_code not in (requests.codes.ok, requests.codes.partial_content):
            raise from_status(
                answer.status_code,
                self._repo,
                self._hub.page(self._repo),
                code=answer.headers.get("X-Error-Code", ""),
                after_s=retry_after(answer.headers.get("Retry-After")),
            )


class _Content:
    """What has come of a file, in a file, with its hash."""

    def __init__(self, file: RepoFile, target: BinaryIO, report: Report, stopped: Callable[[], bool]) -> None:
        self._file = file
        self._target = target
        self._hasher = Hasher(file)
        self._report = report
        self._stopped = stopped
        self.size = 0

    def read(self) -> None:
        """Hash what is there from earlier."""
        self._target.seek(0)
        while chunk := self._target.read(CHUNK):
            self._take(chunk, verifying=True)
            if self._stopped():
                raise StoppedError

    def add(self, chunk: bytes) -> None:
        """Append what has come."""
        try:
            _write_all(self._target, chunk)
        except OSError:
            with contextlib.suppress(OSError):
                self._target.truncate(max(0, self.size - _LINE_BYTES))
            raise
        self._take(chunk, verifying=False)

    def clear(self) -> None:
        """Forget everything."""
        self._target.seek(0)
        self._target.truncate()
        self.size = 0
        self._hasher.restart()
        self._report(0, verifying=False)

    def verify(self) -> None:
        """Raises `_WrongError` when the content is not the file's."""
        if self.size != self._file.size:
            raise self.wrong_size(self.size)
        if not self._hasher.matches():
            raise _WrongError(HubError("wrong_hash", file=self._file.path))

    def wrong_size(self, size: int | None) -> _WrongError:
        """The failure that a file of another size is."""
        told = self.size if size is None else size
        return _WrongError(HubError("wrong_size", file=self._file.path, have=told, need=self._file.size))

    def _take(self, chunk: bytes, *, verifying: bool) -> None:
        self.size += len(chunk)
        if self.size > self._file.size:
            raise self.wrong_size(None)
        self._hasher.update(chunk)
        self._report(self.size, verifying=verifying)


class _WrongError(Exception):
    """What came is not the file."""

    def __init__(self, error: HubError) -> None:
        super().__init__(error.kind)
        self.error = error


class _Headers(requests.auth.AuthBase):
    """Authentication by headers that are known already."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


def is_whole(path: Path, file: RepoFile, report: Report, stopped: Callable[[], bool]) -> bool:
    """Is the content of `path` what the hub has?

    Raises:
        StoppedError: the download was asked to stop.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as source:
        content = _Content(file, source, report, stopped)
        try:
            content.read()
            content.verify()
        except _WrongError:
            return False
    return True


def _open(part: Path) -> BinaryIO:
    """Open for reading and appending, and never through a link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return open(os.open(part, flags, 0o644), "r+b", buffering=0)  # noqa: PTH123


def _write_all(target: BinaryIO, chunk: bytes) -> None:
    """Unbuffered files may take less than they are given."""
    view = memoryview(chunk)
    while view:
        view = view[target.write(view) :]


def _cause(error: BaseException) -> BaseException:
    """What was the matter first: the system's own error, below what libraries wrap it in."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error
