"""Reads the small files around a model: within bounds, from regular files only, and not again while
they stay as they are."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

MAX_JSON = 32 * 1024 * 1024
"""Bytes of the largest JSON that is read; headers and indexes of the largest models have some 10 MB."""

SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<total>\d{5})\.(?:gguf|safetensors)", re.IGNORECASE)
"""The name of one part of a split model."""

Read = TypeVar("Read")
_cache: dict[tuple[str, int, int], Any] = {}


def open_regular(path: Path) -> BinaryIO:
    """A regular file. Opening a pipe or a device could wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("no regular file")
    return path.open("rb")


def read_bytes(path: Path) -> bytes:
    """A file's content, cut at `MAX_JSON`."""
    with open_regular(path) as file:
        return file.read(MAX_JSON)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty when there is none to be had."""
    try:
        told = msgspec.json.decode(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def size_of(path: Path) -> int:
    """A file's bytes, 0 when it cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def cached(path: Path, read: Callable[[Path], Read]) -> Read:
    """What `read` makes of a file, kept as long as its size and time of change stay."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return read(path)  # which says what is wrong
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _cache:
        if len(_cache) >= 4096:
            _cache.clear()
        _cache[key] = read(path)
    return _cache[key]  # type: ignore[no-any-return]
