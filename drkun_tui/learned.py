"""What was learned about this machine, kept in ``machine.json``: one section for each who learns.

A file that is missing, damaged or of another program is as good as empty, and what cannot be written is
learned again another time: nothing here is worth a failure.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def get(file: Path, section: str, kind: type[T], default: T) -> T:
    """A section as `kind`, or `default` where there is none that can be read so."""
    raw = _sections(file).get(section)
    if raw is not None:
        with contextlib.suppress(ValueError):
            return msgspec.json.decode(raw, type=kind)
    return default


def put(file: Path, section: str, value: Any) -> None:
    """Keep a section, whole or not at all; the others stay as they are."""
    sections: dict[str, Any] = {**_sections(file), section: value}
    aside = file.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
    with contextlib.suppress(OSError):
        aside.write_bytes(msgspec.json.encode(sections))
        aside.replace(file)


def _sections(file: Path) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, ValueError):  # msgspec's errors are ValueErrors, and so is text that is no UTF-8
        return {}
