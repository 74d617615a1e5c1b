"""Which machines need the engine's safe mode, remembered between runs.

llama.cpp's special weight layouts for some CPU extensions crash with a segmentation fault on some
machines (AMX: llama.cpp issue 20824). A crash is noticed once; after that the same machine with the
same build starts in safe mode right away.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from pathlib import Path

import msgspec

from drkun_tui import hardware


class _Machine(msgspec.Struct):
    safe_mode: list[str] = []


def build_key() -> str:
    """Names this machine with this build of llama.cpp."""
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    return f"{hardware.machine_key()}/llama-cpp-python-{version}"


def is_needed(memory: Path) -> bool:
    """Has this machine with this build crashed before?"""
    return build_key() in _read(memory).safe_mode


def remember(memory: Path) -> None:
    """Start in safe mode from now on. A memory that cannot be written costs a crash next time."""
    machine = _read(memory)
    if build_key() not in machine.safe_mode:
        machine.safe_mode.append(build_key())
    with contextlib.suppress(OSError):
        aside = memory.with_suffix(f".{os.getpid()}.tmp")
        aside.write_bytes(msgspec.json.encode(machine))
        aside.replace(memory)


def _read(memory: Path) -> _Machine:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=_Machine)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors, and so is text that is no UTF-8
        return _Machine()
