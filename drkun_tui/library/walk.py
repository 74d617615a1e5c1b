"""Walks through folders: within bounds, and through each only once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drkun_tui.i18n import t

DEPTH = 5
"""Levels of folders below a model folder that are searched."""

FOLDERS = 20_000
"""Most folders of one scan; a whole disk given by mistake ends there."""

_CHECKPOINT = re.compile(r"checkpoints|checkpoint-\d+", re.IGNORECASE)

SKIPPED_FOLDER = re.compile(rf"\..*|{_CHECKPOINT.pattern}|(datasets|spaces)--.*", re.IGNORECASE)
"""Names of folders in which no model is looked for."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that could not be looked into, and why."""

    path: Path
    reason: str


def walk(
    root: Path,
    seen: set[tuple[int, int]],
    *,
    whole: Callable[[Path], bool] = lambda _: False,
    store: Path | None = None,
    unreadable: list[Unreadable] | None = None,
) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with its files' names, in order. A folder is visited once, so links may form loops.

    Args:
        root: where to begin; nothing comes of one that does not exist.
        seen: device and inode of the folders and files that were already met.
        whole: is this folder one thing, whose folders are not to be walked through?
        store: has a folder for each organisation, with nothing in it but one for each model, which somebody
            may have called like a training run's checkpoint.
        unreadable: takes the folders that exist and cannot be read, and `root` if it has too many.
    """
    waiting = [(root, 0)]
    visited = 0
    while waiting and visited < FOLDERS:
        folder, depth = waiting.pop()
        if not first_sight(folder, seen):
            continue
        visited += 1
        files: list[str] = []
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # What is neither, such as a link to nothing, counts as a file that has a problem.
                    (below if _is_folder(entry) else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):  # or it went while others were looked at
            continue
        except OSError as error:
            if unreadable is not None:
                unreadable.append(Unreadable(folder, error.strerror or str(error)))
            continue
        yield folder, sorted(files)
        if depth < DEPTH and not whole(folder):
            of_organisation = folder.parent == store and not files
            waiting.extend(
                (folder / name, depth + 1)
                for name in sorted(below, reverse=True)
                if not SKIPPED_FOLDER.fullmatch(name) or (of_organisation and _CHECKPOINT.fullmatch(name))
            )
    if waiting and unreadable is not None:
        unreadable.append(Unreadable(root, t("inventory.too_many_folders", most=f"{FOLDERS:,}")))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def first_sight(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Is this file or folder not among those `seen`, by device and inode? Now it is."""
    try:
        status = path.stat()
    except OSError:
        return True
    key = (status.st_dev, status.st_ino)
    if not status.st_ino or key not in seen:  # some file systems have no inodes; the depth bounds those
        seen.add(key)
        return True
    return False
