"""The terminal that the program is shown in, as far as Textual does not look at it."""

from __future__ import annotations

import select
import sys


def is_gone() -> bool:
    """Has the terminal been closed, as when a connection breaks?

    Who leads its session is told by a signal, everybody else is not; and reading from it then returns at
    once, for ever.
    """
    stdin = sys.__stdin__
    if stdin is None or not hasattr(select, "poll"):
        return False
    poller = select.poll()
    # Hanging up is told without having been asked for.
    poller.register(stdin.fileno(), 0)
    return any(event & select.POLLHUP for _, event in poller.poll(0))
