"""Walks through folders: within bounds, and through each only once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

DEPTH = 5
"""Levels of folders below a model folder that are searched."""

FOLDERS = 20_000
"""Most folders of one scan; a whole disk given by mistake ends there."""

_SKIPPED_FOLDER = re.compile(r"\..*|checkpoints|checkpoint-\d+", re.IGNORECASE)


def walk(root: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with its files' names, in order. A folder is visited once, so links may form loops."""
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
        except OSError:  # not there, not a folder, or not ours to read
            continue
        yield folder, sorted(files)
        if depth < DEPTH:
            names = (name for name in sorted(below, reverse=True) if not _SKIPPED_FOLDER.fullmatch(name))
            waiting.extend((folder / name, depth + 1) for name in names)


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
