"""What was read out of the headers of model files, remembered within a run and between runs.

Headers of large models take tens of milliseconds each: their vocabularies must be stepped over. What
was read once is known again by the file's path, size and times of change. The memory is a convenience:
one that is missing, broken, too large or from another version is ignored, and one that cannot be
written costs the time of the next scan.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from drkun_tui import __version__, paths
from drkun_tui.errors import DrkunError

FORMAT = f"4 {__version__}"
"""Raise the number whenever something else is read out of a header."""

MAX_FILE = 32 * 1024 * 1024
"""Bytes of the largest memory that is read or written; 2,000 models take about 3 MB."""

MAX_ENTRIES = 20_000
"""Most files that are remembered; the longest unused are forgotten first."""

Read = TypeVar("Read")
Stamp = tuple[int, int, int]
"""Size, time of the content's change, time of any change, in nanoseconds."""


class _Entry(msgspec.Struct, array_like=True):
    stamp: Stamp
    read: msgspec.Raw


class _File(msgspec.Struct, array_like=True):
    format: str
    entries: dict[bytes, _Entry]


_lock = threading.Lock()
_known: dict[bytes, tuple[Stamp, Any]] = {}
"""What this process has read or decoded, in the order of its use."""
_stored: dict[bytes, _Entry] = {}
"""What an earlier process has read and nobody has asked for yet."""
_loaded: Path | None = None
_changed = False


def cached(path: Path, read: Callable[[Path], Read], kind: Any) -> Read:
    """What `read` makes of a file, kept as long as its size and times of change stay.

    Args:
        path: the file.
        read: reads it; what it raises is passed on, and nothing is remembered. What will be the same the
            next time, such as why a header is refused, it should return.
        kind: the type of what it returns, for msgspec.
    """
    global _changed
    try:
        status = path.stat()
    except (OSError, ValueError):
        return read(path)  # which says what is wrong
    key = os.fsencode(path)
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    with _lock:
        known = _known.pop(key, None)
        entry = _stored.pop(key, None)
    if known is None and entry is not None and entry.stamp == stamp:
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            known = (stamp, msgspec.msgpack.decode(entry.read, type=kind))
    if known is None or known[0] != stamp:
        known = (stamp, read(path))
        _changed = True
    with _lock:
        _known[key] = known
        while len(_known) > MAX_ENTRIES:
            del _known[next(iter(_known))]
    return known[1]


def load() -> None:
    """Take up what earlier runs remembered."""
    global _loaded, _changed
    try:
        path = paths.header_cache()
    except DrkunError:  # no data folder: whoever needs it says so
        return
    with _lock:
        if _loaded == path:
            return
        _loaded = path
        # Another data folder, another memory.
        _known.clear()
        _stored.clear()
        _changed = False
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if path.stat().st_size <= MAX_FILE:
                stored = msgspec.msgpack.decode(path.read_bytes(), type=_File)
                if stored.format == FORMAT:
                    _stored.update(stored.entries)


def save() -> None:
    """Write what is remembered, if anything is new; whole or not at all."""
    global _changed
    with _lock:
        if _loaded is None or not _changed:
            return
        _changed = False
        known = list(_known.items())[-MAX_ENTRIES:]
        room = MAX_ENTRIES - len(known)
        entries = dict(list(_stored.items())[-room:]) if room else {}
        path = _loaded
    for key, (stamp, read) in known:
        # What has no place in the format, such as a stranger's number of 100 digits, is read again.
        with contextlib.suppress(OverflowError, ValueError):
            entries[key] = _Entry(stamp, msgspec.Raw(msgspec.msgpack.encode(read)))
    raw = msgspec.msgpack.encode(_File(FORMAT, entries))
    if len(raw) > MAX_FILE:
        return
    aside = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        aside.write_bytes(raw)
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
