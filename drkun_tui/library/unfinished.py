"""Downloads that have not come to their end, and which models they concern.

A download of this program keeps a marker in the repository's folder from before its first byte until
everything is verified. What has come of a file lies in `PARTIAL` beside it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from drkun_tui.i18n import t
from drkun_tui.library.files import SPLIT, files_below, is_file, read_bytes
from drkun_tui.library.model import Kind, Problem
from drkun_tui.library.printable import printable
from drkun_tui.library.walk import DEPTH

MARKER = ".drkun-download.json"
"""The file in a model's folder that says what of it is still missing."""

PARTIAL = ".drkun-partial"
"""The folder in a model's folder where unfinished files are."""

LOCK = "lock"
"""In `PARTIAL`; whoever downloads holds it."""

MAX_PENDING = 100_000
"""Most files of one marker."""

_OF_A_FOLDER = (".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of weights, configurations and tokenizers; without another file a model is whole."""


class PendingFile(msgspec.Struct, frozen=True):
    """A file that is still to come."""

    path: str
    """Relative to the repository's folder, with ``/``."""
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 60)] = 0


class Marker(msgspec.Struct, frozen=True):
    """The content of a `MARKER`."""

    hub: str
    repo: str
    revision: str = ""
    options: Annotated[list[str], msgspec.Meta(max_length=100)] = []
    """Of ``drkun pull``, so that it goes on with this download."""
    pending: Annotated[list[PendingFile], msgspec.Meta(max_length=MAX_PENDING)] = []


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is still to come into one folder."""

    folder: Path
    problem: Problem
    pending: Mapping[PurePosixPath, int] = field(default_factory=dict)
    """Bytes of each file, 0 where nobody knows, by its path in `folder`."""
    partial: Path | None = None
    """The folder that holds what has come of them."""
    ending: str = ""
    """Of the names under which they lie in their places until then, where that is where they lie."""
    unreadable: bool = False
    """Can nobody say what is pending? Then nothing counts as whole."""
    unnamed: bool = False
    """Are there files whose names nobody knows? Then no folder counts as whole."""

    def of_gguf(self, file: Path) -> list[PurePosixPath] | None:
        """The pending files of the GGUF model that `file` is, or is a part of; None if it is whole."""
        inside = self._inside(file)
        own = [other for other in self.pending if inside and _same_gguf(inside, other)]
        return own if own or self.unreadable else None

    def touches_folder(self, folder: Path) -> bool:
        """Is a file that a model in `folder` needs still to come?"""
        return self.unreadable or self.unnamed or bool(self.of_folder(folder))

    def of_folder(self, folder: Path) -> list[PurePosixPath]:
        """The pending files that a model in `folder` needs."""
        inside = self._inside(folder)
        return [file for file in self.pending if file.parent == inside and file.suffix in _OF_A_FOLDER]

    def ggufs_in(self, folder: Path) -> list[str]:
        """Names of the pending GGUF files in `folder`."""
        inside = self._inside(folder)
        return [file.name for file in self.pending if file.parent == inside and _is_gguf(file)]

    def _inside(self, path: Path) -> PurePosixPath | None:
        return PurePosixPath(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else None

    def to_come(self) -> Iterator[tuple[Kind, Path, list[PurePosixPath]]]:
        """The models that the pending files make: kind, future path, and their pending files.

        The kind is what the names promise; only the files themselves will tell.
        """
        splits: dict[PurePosixPath, list[PurePosixPath]] = {}
        folders: dict[PurePosixPath, list[PurePosixPath]] = {}
        for file in sorted(self.pending):
            if _is_gguf(file):
                split = SPLIT.fullmatch(file.name)
                splits.setdefault(file.with_name(split["stem"]) if split else file, []).append(file)
            elif file.suffix in _OF_A_FOLDER:
                folders.setdefault(file.parent, []).append(file)
        for files in splits.values():
            yield Kind.GGUF, self.folder / files[0], files
        for inside, files in folders.items():
            names = {file.name for file in files}
            if names & {"adapter_config.json", "adapter_model.safetensors"}:
                yield Kind.LORA, self.folder / inside, files
            elif any(name.endswith(".safetensors") for name in names):
                yield Kind.BASE, self.folder / inside, files

    def of_model(self, path: Path) -> list[PurePosixPath]:
        """The pending files of the model at `path`, a GGUF file or a folder."""
        return self.of_gguf(path) or self.of_folder(path)

    def files_here(self, files: list[PurePosixPath]) -> list[Path]:
        """The files that hold what has come of these pending ones, as far as that can be told.

        They may be named by what they will contain. Then they are told apart only where nothing else is
        pending.
        """
        if self.ending:
            return [self.folder / f"{file}{self.ending}" for file in files]
        if self.partial is None:
            return []
        here = [path for path in files_below(self.partial) if path.name != LOCK]
        needed = {file for file in self.pending if _is_gguf(file) or file.suffix in _OF_A_FOLDER}
        if needed <= set(files):
            return here
        names = {str(file) for file in files}
        return [path for path in here if path.relative_to(self.partial).as_posix() in names]

    @property
    def running(self) -> bool:
        """Is a process at it just now?"""
        try:
            with (self.folder / PARTIAL / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def read_marker(folder: Path) -> Unfinished:
    """The unfinished download that a folder's marker tells of."""
    partial = folder / PARTIAL
    try:
        marker = msgspec.json.decode(read_bytes(folder / MARKER), type=Marker)
        pending = {_checked(file.path): file.size for file in marker.pending}
    except (OSError, ValueError, RecursionError):
        return Unfinished(folder, problem_of(t("inventory.remedy_unfinished")), {}, partial, unreadable=True)
    command = printable(shlex.join(["drkun", "pull", marker.repo, *marker.options]), 400)
    remedy = t("inventory.remedy_pull", command=command)
    return Unfinished(folder, problem_of(remedy), pending, partial)


def marked(path: Path) -> Unfinished | None:
    """The unfinished download whose marker lies in the folder `path`, or in one of those that it is in."""
    places = (path, *path.parents[:DEPTH])
    above = next((folder for folder in places if is_file(folder / MARKER)), None)
    return read_marker(above) if above else None


def forget(path: Path) -> None:
    """Strike a removed model out of the marker of its download, and remove a marker that is empty then.

    Raises:
        OSError: the marker cannot be written.
    """
    begun = marked(path)
    if begun is None or begun.unreadable:
        return
    file = begun.folder / MARKER
    marker = msgspec.json.decode(read_bytes(file), type=Marker)
    gone = {str(own) for own in begun.of_model(path)}
    left = [other for other in marker.pending if str(PurePosixPath(other.path)) not in gone]
    if left:
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        aside.write_bytes(msgspec.json.encode(msgspec.structs.replace(marker, pending=left)))
        aside.replace(file)
    else:
        file.unlink()
        shutil.rmtree(begun.folder / PARTIAL, ignore_errors=True)


def problem_of(remedy: str) -> Problem:
    """The problem of a model that is not here as a whole yet."""
    return Problem(t("inventory.unfinished"), remedy)


def _checked(text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in text or len(text) > 1024:
        raise ValueError("no path inside the folder")
    return path


def _is_gguf(file: PurePosixPath) -> bool:
    return file.suffix.lower() == ".gguf"


def _same_gguf(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Are these the same file, or parts of the same split model?"""
    if one == other:
        return True
    splits = SPLIT.fullmatch(one.name), SPLIT.fullmatch(other.name)
    return (
        one.parent == other.parent
        and splits[0] is not None
        and splits[1] is not None
        and splits[0].group("stem", "total") == splits[1].group("stem", "total")
    )
