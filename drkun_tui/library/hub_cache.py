"""The layouts in which the hubs' client libraries cache a repository.

huggingface_hub: ``models--org--name/`` holds ``blobs/`` with the files' contents, ``snapshots/REVISION/``
with links to them under the files' names, and ``refs/BRANCH`` with the revision that a branch had when it
was fetched. What has not come to its end is ``blobs/HASH.RANDOM.incomplete``, which nobody takes up again.

modelscope_hub: ``models/org--name/`` holds ``snapshots/BRANCH/`` with the files themselves. What has not
come to its end is ``FILE.incomplete`` in its place; `stores` knows that, for it is so in older layouts, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from drkun_tui.i18n import t
from drkun_tui.library.files import is_file, is_folder, open_regular, read_bytes, size_of
from drkun_tui.library.model import Kind, Model, Source
from drkun_tui.library.printable import printable
from drkun_tui.library.unfinished import Unfinished, problem_of

_HUGGINGFACE = re.compile(r"models--(?P<name>.+)")
_MODELSCOPE = re.compile(r"(?!(?:models|datasets|spaces)--)(?P<owner>.+?)--(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision of a repository."""

    folder: Path
    name: str
    """``org/name``, with ``@REVISION`` where it is not the one that counts."""
    main: bool
    """Is it what ``main`` was when last fetched, or of ModelScope ``master``?"""


def source_of(folder: Path) -> Source | None:
    """Whose cached repository this folder is; None for any other folder."""
    named = None
    if _HUGGINGFACE.fullmatch(folder.name):
        named = Source.HUGGINGFACE
    elif folder.parent.name == "models" and _MODELSCOPE.fullmatch(folder.name):
        named = Source.MODELSCOPE
    return named if named and is_folder(folder / "snapshots") else None


def name_of(folder: Path) -> str:
    """``org/name`` of a cached repository."""
    return printable(folder.name.removeprefix("models--").replace("--", "/"))


def snapshots(repository: Path) -> list[Snapshot]:
    """The revisions that are cached, that of ``main`` first."""
    name = name_of(repository)
    try:
        main = read_bytes(repository / "refs" / "main", 256).decode("ascii", "replace").strip()
    except OSError:
        main = "master" if source_of(repository) is Source.MODELSCOPE else ""
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
    remedy = t("inventory.remedy_huggingface", repo=name_of(repository))
    return Unfinished(repository, problem_of(remedy), unnamed=True)


def to_come(repository: Path, unfinished: Unfinished) -> Model:
    """The model of a repository of which nothing has come to its end yet."""
    blobs = _unfinished_blobs(repository)
    return Model(
        name=name_of(repository),
        kind=Kind.GGUF if any(map(_begins_as_gguf, blobs)) else Kind.BASE,
        path=repository,
        size_bytes=sum(map(size_of, blobs)),
        complete=False,
        problems=(unfinished.problem,),
    )


def _unfinished_blobs(repository: Path) -> list[Path]:
    blobs = repository / "blobs"
    try:
        begun = sorted(blobs.glob("*.incomplete"))
    except OSError:
        return []
    # Another attempt may have brought what this one did not.
    return [blob for blob in begun if not is_file(blobs / blob.name.partition(".")[0])]


def _begins_as_gguf(blob: Path) -> bool:
    try:
        with open_regular(blob) as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False
