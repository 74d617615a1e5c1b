"""What commands share that follow a job: a line that is written anew, and Ctrl+C that first asks."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from contextlib import suppress

from rich.cells import set_cell_size

CLEAR = "\r\x1b[K"


def on_interrupt() -> asyncio.Event:
    """Set by Ctrl+C; a second one ends the command, and not the job."""
    loop, following, stopping = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()

    def interrupt() -> None:
        if stopping.is_set() and following is not None:
            following.cancel()
        stopping.set()

    with suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, interrupt)
    return stopping


class StatusLine:
    """Standard error, where on a terminal the last line is written anew.

    Args:
        quiet: show no line that changes; a program reads standard output.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.live = sys.stderr.isatty() and not quiet

    def show(self, text: str) -> None:
        """Write the line anew; nothing where it would stay."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(CLEAR + set_cell_size(text, width).rstrip(), end="", flush=True, file=sys.stderr)

    def keep(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        print(text, file=sys.stderr)

    def clear(self) -> None:
        """Leave a clean line."""
        if self.live:
            print(CLEAR, end="", flush=True, file=sys.stderr)
