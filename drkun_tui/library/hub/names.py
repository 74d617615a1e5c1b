"""Names that a hub gives to repositories and files, which are a stranger's: what is not surely a plain
relative name inside the model's folder is refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from drkun_tui.library.hub.base import HubError
from drkun_tui.library.printable import printable
from drkun_tui.library.unfinished import MARKER, PARTIAL

_REPO = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_MOST_BYTES, _MOST_PARTS = 240, 16


def check_repo(repo: str) -> str:
    """`repo` itself.

    Raises:
        HubError: ``bad_repo``, it is not ``org/name``.
    """
    if not _REPO.fullmatch(repo) or ".." in repo or repo.endswith("."):
        raise HubError("bad_repo", repo=printable(repo, 80))
    return repo


def check_inside(paths: Iterable[str]) -> None:
    """Refuse a repository in which any name leads out of the model's folder, wanted or not.

    Raises:
        HubError: ``name_outside``.
    """
    for path in paths:
        if _leads_outside(path):
            raise _refused(path, "outside")


def check_files(paths: Iterable[str]) -> None:
    """Refuse names that could lead out of the model's folder, hide something or meet each other.

    Raises:
        HubError: ``name_control``, ``name_long``, ``name_outside``, ``name_reserved`` or ``name_twice``,
            with the first of them.
    """
    seen: dict[str, str] = {}
    folders: set[str] = set()
    for path in paths:
        if why := _objection(path):
            raise _refused(path, why)
        key = _folded(path)
        if key in seen:
            raise _refused(path, "twice")
        seen[key] = path
        parts = key.split("/")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    for key in seen.keys() & folders:
        raise _refused(seen[key], "twice")


def _refused(path: str, why: str) -> HubError:
    return HubError(f"name_{why}", file=printable(path, 80))


def _folded(path: str) -> str:
    """What file systems that ignore case, or how accents are written, make of a name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _leads_outside(path: str) -> bool:
    parts = re.split(r"[/\\]", path)
    return "\\" in path or bool(re.match("[A-Za-z]:", path)) or any(part in ("", ".", "..") for part in parts)


def _objection(path: str) -> str:
    """Why a name is refused, "" for a good one."""
    if printable(path, len(path)) != path:
        return "control"
    if len(path) > _MOST_BYTES * 4:
        return "long"
    parts = path.split("/")
    if len(parts) > _MOST_PARTS or any(len(part.encode()) > _MOST_BYTES for part in parts):
        return "long"
    if _leads_outside(path) or ":" in path:
        return "outside"
    if _folded(parts[0]) in (MARKER, PARTIAL):
        return "reserved"
    if any(_RESERVED.fullmatch(part) or part != part.strip() or part.endswith(".") for part in parts):
        return "reserved"
    return ""
