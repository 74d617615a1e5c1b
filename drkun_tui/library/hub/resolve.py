"""From a repository's listing, which is a stranger's, to a plan that is safe to carry out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.choose import Fits, choose
from drkun_tui.library.hub.names import check_files, check_inside
from drkun_tui.library.hub.protocol import Listing, Plan, RepoFile

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MOST_FILES = 20_000


def resolve(listing: Listing, fits: Fits, *, quant: str = "", include: Sequence[str] = ()) -> Plan:
    """What to fetch.

    Raises:
        HubError: a file name is not to be trusted, or as `choose`.
    """
    if len(listing.files) > _MOST_FILES:
        raise HubError("too_many", files=len(listing.files))
    check_inside(file.path for file in listing.files)
    chosen = choose([_checked(file) for file in listing.files], fits, quant=quant, include=include)
    check_files(file.path for file in chosen)
    return Plan(listing.revision, chosen)


def _checked(file: RepoFile) -> RepoFile:
    """What is no digest cannot be compared with one, and no size is negative."""
    digest = file.digest.lower()
    digest = digest if _DIGEST.fullmatch(digest) else ""
    return msgspec.structs.replace(file, size=max(0, file.size), digest=digest)
