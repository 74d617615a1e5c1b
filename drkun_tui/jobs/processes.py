"""Which run of which process: a process id alone may be another's by now."""

from __future__ import annotations

import functools
import sys
from pathlib import Path


@functools.cache
def signature(pid: int) -> str:
    """A text that names this run of process `pid`, for `is_alive`."""
    return f"{pid} {_start_of(pid)}"


def is_alive(signed: str) -> bool:
    """Whether the process that signed so still runs."""
    pid, _, start = signed.partition(" ")
    return pid.isdecimal() and bool(start) and _start_of(int(pid)) == start


def _start_of(pid: int) -> str | None:
    """A text that tells this run of process `pid` from any other, None when there is none."""
    if sys.platform != "linux":
        import psutil

        try:
            process = psutil.Process(pid)
            dead = process.status() == psutil.STATUS_ZOMBIE
            return None if dead else f"{process.create_time():.0f}"
        except psutil.Error:
            return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie is dead, though its parent has not looked yet.
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
