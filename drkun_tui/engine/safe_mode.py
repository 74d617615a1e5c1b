"""Which machines need the engine's safe mode, remembered between runs.

llama.cpp's special weight layouts for some CPU extensions crash with a segmentation fault on some
machines (AMX: llama.cpp issue 20824). A crash is noticed once; after that the same machine with the
same build starts in safe mode right away.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from drkun_tui import hardware, learned


def build_key() -> str:
    """Names this machine with this build of llama.cpp."""
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    return f"{hardware.machine_key()}/llama-cpp-python-{version}"


def is_needed(memory: Path) -> bool:
    """Has this machine with this build crashed before?"""
    return build_key() in _known(memory)


def remember(memory: Path) -> None:
    """Start in safe mode from now on. A memory that cannot be written costs a crash next time."""
    if build_key() not in (known := _known(memory)):
        learned.put(memory, "safe_mode", [*known, build_key()])


def _known(memory: Path) -> list[str]:
    return learned.get(memory, "safe_mode", list[str], [])
