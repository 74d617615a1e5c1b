"""What a hub can do, and how its failures are told."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from drkun_tui.library.hub.protocol import Filters, Found, Listing

MAX_CARD = 256 * 1024
"""Bytes of a model card that are read."""


class HubError(Exception):
    """A hub, or the way to it, failed.

    Args:
        kind: a key of the catalogue's ``fetch`` section.
        retry: may another attempt help?
        after_s: how long the server asks to wait before it, if it does.
        values: fill the text's placeholders.
    """

    def __init__(
        self, kind: str, *, retry: bool = False, after_s: float | None = None, **values: str | int
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.retry = retry
        self.after_s = after_s
        self.values = values


class Hub(Protocol):
    """One hub, through its own client library. Its methods wait for the network and raise `HubError`."""

    token: str
    """"" when nobody is logged in. It goes into `headers` and nowhere else."""

    def search(self, query: str, filters: Filters, limit: int) -> list[Found]:
        """Models whose name matches, the most downloaded first."""
        ...

    def files(self, repo: str, revision: str) -> Listing:
        """All files; `revision` "" is the default branch."""
        ...

    def url(self, repo: str, revision: str, path: str) -> str:
        """Where one file is."""
        ...

    def page(self, repo: str) -> str:
        """The model's page, for people."""
        ...

    def headers(self) -> dict[str, str]:
        """What requests for files carry: who asks, and the token."""
        ...


def from_status(
    status: int, repo: str, page: str, *, code: str = "", after_s: float | None = None
) -> HubError:
    """The failure that an HTTP status stands for.

    Args:
        code: Hugging Face's ``X-Error-Code``, which is more exact.
    """
    kind = {
        "GatedRepo": "gated",
        "RepoNotFound": "unauthorized" if status == 401 else "repo_missing",
        "RevisionNotFound": "revision_missing",
        "EntryNotFound": "file_missing",
    }.get(code) or {401: "unauthorized", 403: "forbidden", 404: "repo_missing", 429: "rate_limited"}.get(
        status
    )
    retry = status in (408, 429) or status >= 500
    if kind is None:
        return HubError("server_error", retry=retry, after_s=after_s, status=status, repo=repo)
    return HubError(kind, retry=retry, after_s=after_s, repo=repo, page=page)


def public(url: str) -> str:
    """An address fit to be shown: without the name and password that a mirror's may hold, and without
    a query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def host_of(url: str) -> str:
    """The host of an address, with its port."""
    return urlsplit(url).netloc.rpartition("@")[2]
