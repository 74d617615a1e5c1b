"""Reads the small files around a model: within bounds, and from regular files only."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

MAX_JSON = 32 * 1024 * 1024
"""Bytes of the largest header or index that is read; those of the largest models have some 10 MB."""

MAX_CONFIG = 8 * 1024 * 1024
"""Bytes of the largest configuration that is read; a tokenizer's has up to 1 MB."""

MAX_MEMBERS = 400_000
"""Most names with a value in one header or index: four for each tensor of the largest models."""

SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<total>\d{5})\.(?:gguf|safetensors)", re.IGNORECASE)
"""The name of one part of a split model."""


def open_regular(path: Path) -> BinaryIO:
    """A regular file. Opening a pipe or a device could wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("no regular file")
    return path.open("rb")


def read_bytes(path: Path, most: int = MAX_CONFIG) -> bytes:
    """A file's content, cut after `most` bytes."""
    with open_regular(path) as file:
        return file.read(most)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty when there is none to be had."""
    try:
        told = msgspec.json.decode(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def bounded(raw: bytes) -> bytes:
    """JSON that names few enough things to be decoded.

    Raises:
        ValueError: it names more than `MAX_MEMBERS`; as Python objects they take a hundred times the
            bytes.
    """
    if raw.count(b":") > MAX_MEMBERS:
        raise ValueError("too many members")
    return raw


def is_folder(path: Path) -> bool:
    """Is this a folder, as far as one may look?"""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # in a folder that is not ours to look into, or no possible name
        return False


def is_file(path: Path) -> bool:
    """Is this a regular file, as far as one may look?"""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and in the folders in it, links to folders not followed."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def size_of(path: Path) -> int:
    """A file's bytes, 0 when it cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
