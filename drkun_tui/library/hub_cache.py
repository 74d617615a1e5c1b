"""The layout in which huggingface_hub caches a repository.

``models--org--name/`` holds ``blobs/`` with the files' contents, ``snapshots/REVISION/`` with links to
them under the files' names, and ``refs/BRANCH`` with the revision that a branch had when it was fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from drkun_tui.i18n import t
from drkun_tui.library.files import is_folder, open_regular, read_bytes, size_of
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.printable import printable
from drkun_tui.library.unfinished import Unfinished, problem_of

_REPOSITORY = re.compile(r"models--(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision of a repository."""

    folder: Path
    name: str
    """``org/name``, with ``@REVISION`` where it is not what ``main`` was when last fetched."""
    main: bool


def name_of(folder: Path) -> str | None:
    """``org/name`` of a cached repository; None for any other folder."""
    found = _REPOSITORY.fullmatch(folder.name)
    if found is None or not is_folder(folder / "snapshots"):
        return None
    return printable(found["name"].replace("--", "/"))


def snapshots(repository: Path) -> list[Snapshot]:
    """The revisions that are cached, that of ``main`` first."""
    name = name_of(repository) or ""
    try:
        main = read_bytes(repository / "refs" / "main", 256).decode("ascii", "replace").strip()
    except OSError:
        main = ""
    try:
        folders = sorted(folder for folder in (repository / "snapshots").iterdir() if is_folder(folder))
    except OSError:
        folders = []
    found = [
        Snapshot(f, name if f.name == main else f"{name}@{printable(f.name[:8])}", f.name == main)
        for f in folders
    ]
    return sorted(found, key=lambda snapshot: not snapshot.main)


def unfinished(repository: Path) -> Unfinished | None:
    """The download that huggingface_hub has begun there and not finished.

    Its unfinished blobs are named after hashes, so nobody can say which files they will be.
    """
    if not _unfinished_blobs(repository):
        return None
    remedy = t("inventory.remedy_huggingface", repo=name_of(repository) or "")
    return Unfinished(repository, problem_of(remedy), unnamed=True)


def to_come(repository: Path, unfinished: Unfinished) -> Model:
    """The model of a repository of which nothing has come to its end yet."""
    blobs = _unfinished_blobs(repository)
    return Model(
        name=name_of(repository) or "",
        kind=Kind.GGUF if any(map(_begins_as_gguf, blobs)) else Kind.BASE,
        path=repository,
        size_bytes=sum(map(size_of, blobs)),
        complete=False,
        problems=(unfinished.problem,),
    )


def _unfinished_blobs(repository: Path) -> list[Path]:
    try:
        return sorted((repository / "blobs").glob("*.incomplete"))
    except OSError:
        return []


def _begins_as_gguf(blob: Path) -> bool:
    try:
        with open_regular(blob) as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False
