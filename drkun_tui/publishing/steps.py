"""The stages of an export, each a process of its own: a crash or a shortage of memory in one is a sentence,
and what it held is free for the next.

A stage reads its task as one JSON line from standard input and says on standard output how far it is. Its
input stays open as long as the export lives, so that no stage outlives an export that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from drkun_tui.jobs import ended_by
from drkun_tui.library.kinds import Values
from drkun_tui.publishing.faults import PublishingError, StopRequested

TaskT = TypeVar("TaskT")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Also a quota, and the largest file that the system or its file system allows."""

_NO_ROOM = re.compile(r"No space left|\d+ requested and \d+ written")
"""What writers in other languages, and NumPy, say of it without an error number."""

TELL_EVERY_S = 0.2
LOOK_EVERY_S = 0.1
"""How often a wish to stop is looked for."""

Tell = Callable[[int, int], None]
"""Says how far a stage is: bytes done, and bytes in all."""


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """How far it is, in bytes."""

    done: int
    total: int


class Broke(msgspec.Struct, frozen=True, tag="broke"):
    """It cannot go on; a kind of `PublishingError`."""

    kind: str
    values: Values


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """It is done, and found this."""

    found: dict[str, Any]


_told: msgspec.json.Decoder[Moved | Broke | Ended] = msgspec.json.Decoder(Moved | Broke | Ended)


# The stage's end


def serve(kind: type[TaskT], work: Callable[[TaskT, Tell], dict[str, Any]]) -> None:
    """Do the task that comes on standard input, and end the process.

    Args:
        kind: of the task, for msgspec.
        work: does it; returns what it found.
    """
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=kind)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Whatever a native library prints must not disturb what is told.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    last = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= TELL_EVERY_S:
            last = time.monotonic()
            out.write(msgspec.json.encode(Moved(done, total)) + b"\n")

    try:
        answer: Moved | Broke | Ended = Ended(work(task, tell))
    except PublishingError as error:
        answer = Broke(error.kind, error.values)
    except MemoryError:
        answer = Broke("no_memory", {})
    except Exception as error:
        traceback.print_exc()
        answer = _fault(error)
    out.write(msgspec.json.encode(answer) + b"\n")
    sys.stderr.flush()
    # Native threads may still be at work, and nobody waits for them.
    os._exit(0)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _fault(error: Exception) -> Broke:
    if getattr(error, "errno", None) in FULL or _NO_ROOM.search(str(error)):
        return Broke("disk_full", {})
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
    return Broke("internal", {"reason": reason})


# The export's end


def run(module: str, task: msgspec.Struct, tell: Tell, stopping: Callable[[], bool]) -> dict[str, Any]:
    """Run a stage; what it found.

    Args:
        module: what ``python -m`` runs; it calls `serve`.
        tell: hears how far it is.
        stopping: asked often; the stage is ended when it says so.

    Raises:
        PublishingError: the stage's own, or ``stage_died``.
        StopRequested: it was ended.
    """
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Everything is here; nobody's hub is asked for more. OpenMP's threads sleep while they wait for each
        # other: spinning, they almost stop when another program wants a core.
        env={
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
    ) as process:
        lines: queue.Queue[bytes] = queue.Queue()
        reader = threading.Thread(target=_talk, args=(process, task, lines), daemon=True)
        reader.start()
        try:
            while line := _next(lines, stopping):
                answer = _told.decode(line)
                if isinstance(answer, Moved):
                    tell(answer.done, answer.total)
                elif isinstance(answer, Broke):
                    raise PublishingError(answer.kind, **answer.values)
                else:
                    return answer.found
        finally:
            process.kill()
            process.wait()
            reader.join()
    raise PublishingError("stage_died", how=ended_by(process.returncode))


def _talk(process: subprocess.Popen[bytes], task: msgspec.Struct, lines: queue.Queue[bytes]) -> None:
    """Tell a stage its task, and hear what it says; b"" when it has ended."""
    if process.stdin is not None and process.stdout is not None:
        # Past the buffer, which would be written once more, to a stage that has died, when it is closed.
        with contextlib.suppress(BrokenPipeError):
            os.write(process.stdin.fileno(), msgspec.json.encode(task) + b"\n")
        for line in process.stdout:
            lines.put(line)
    process.wait()
    lines.put(b"")


def _next(lines: queue.Queue[bytes], stopping: Callable[[], bool]) -> bytes:
    """The next whole line, b"" when none comes any more."""
    while True:
        if stopping():
            raise StopRequested
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=LOOK_EVERY_S)
            return line if line.endswith(b"\n") else b""
