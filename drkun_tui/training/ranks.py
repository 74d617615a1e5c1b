"""The processes of a run over several devices: the first, which is the job, and those that it starts.

They are told what each is by torchrun's variables, so that ``accelerate launch`` may start them as well. What
the first one has started ends with it, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from drkun_tui import hardware
from drkun_tui.errors import DrkunError
from drkun_tui.training.faults import StopRequested, TrainingError
from drkun_tui.training.recipe import Recipe

_TIED = "DRKUN_ENDS_WITH_STDIN"
"""Set for those that `others` starts, whose standard input ends with the first process."""

GRACE_S = 2.0
"""How long one process may outlive another before that is a fault."""


def rank() -> int:
    """Which of the run's processes this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wanted(recipe: Recipe) -> int:
    """How many processes a recipe asks for: one for each GPU, or so many on a machine without."""
    cards = sum(gpu.vendor == "nvidia" for gpu in hardware.read().gpus)
    asked = recipe.training.devices or cards
    return max(1, min(asked, cards) if cards else asked)


@contextlib.contextmanager
def others(module: str, folder: Path, count: int, on_death: Callable[[int], None]) -> Iterator[None]:
    """Make this process the first of `count`, and start the others for as long as the block lasts.

    Args:
        module: what ``python -m`` runs, with the run's folder as its argument.
        on_death: is called, in another thread, with the exit code of one that ended in the middle.
    """
    if "RANK" in os.environ:
        yield
        return
    if count == 1:
        # CUDA would take the first card, and what was promised was looked up on the one with the most room.
        before = os.environ.get(hardware.VISIBLE)
        if (card := hardware.read().nvidia) and card.uuid:
            os.environ[hardware.VISIBLE] = card.uuid
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(hardware.VISIBLE, None)
            else:
                os.environ[hardware.VISIBLE] = before
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            env={**os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number), _TIED: "1"},
            # It ends when this end of it is closed, by us or by our death.
            stdin=subprocess.PIPE,
        )
        for number in range(1, count)
    ]
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    told = threading.Lock()
    """Whoever holds it says why the run has ended."""

    def watch(process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        # What ends all of them, this one tells better itself.
        time.sleep(GRACE_S)
        if code and told.acquire(blocking=False):
            on_death(code)

    for process in started:
        threading.Thread(target=watch, args=(process,), daemon=True).start()
    try:
        yield
        for process in started:
            process.wait()
    except (TrainingError, StopRequested, DrkunError):
        raise
    except Exception as error:
        # Mostly a library's word for a dead neighbour.
        if code := _death(started):
            raise TrainingError("rank_died", code=code) from error
        raise
    finally:
        told.acquire()
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
        for name in (*shared, "RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)


def _death(started: list[subprocess.Popen[bytes]]) -> int:
    """The exit code of one that has just ended badly, or 0."""
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if code := process.wait(GRACE_S / 2):
                return code
    return 0


def end_with_the_first() -> None:
    """In one that the first process has started: end when that does. Another launcher sees to it itself."""
    if _TIED not in os.environ:
        return

    def wait() -> None:
        # Not through the buffered stream, whose lock this thread would hold when the interpreter ends.
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
