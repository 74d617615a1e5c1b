"""How a job gives way to whoever sits at the screen, and to the model that answers there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")


def give_way(pid: int, niceness: int) -> bool:
    """Lower the priority of a process, and of the session that it leads.

    On Linux with autogroups, which is how most distributions come, sessions share the processor whatever the
    nice values of their processes are: these count within a session only. The session has a nice value of its
    own (sched(7), "The autogroup feature").

    Returns:
        False where it should be tried again: the kernel takes such a wish ten times a second at most.
    """
    if not hasattr(os, "setpriority"):
        return True
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    try:
        # That of a shell, with everything that somebody runs there, is not ours to lower.
        if os.getsid(pid) == pid:
            (PROC / str(pid) / "autogroup").write_text(str(niceness))
    except BlockingIOError:
        return False
    except OSError:
        # It has ended, or this kernel has no autogroups.
        pass
    return True
