"""Trying again: how long to wait before it, and when to give up."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from typing import TypeVar

from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.protocol import Limits

ResultT = TypeVar("ResultT")


class StoppedError(Exception):
    """The download was asked to stop while it waited."""


class Backoff:
    """Waits between attempts: doubled each time, with jitter, or as long as the server asks for.

    Args:
        wait: waits so many seconds; true when the download was asked to stop meanwhile.
        tell: hears of each wait, with the number of the attempt that failed and its seconds.
    """

    def __init__(
        self,
        limits: Limits,
        wait: Callable[[float], bool],
        tell: Callable[[int, float, HubError], None],
    ) -> None:
        self._limits = limits
        self._wait = wait
        self._tell = tell
        self._attempt = 0

    def reset(self) -> None:
        """There was progress: the next failure is the first one again."""
        self._attempt = 0

    def failed(self, error: HubError) -> None:
        """Wait before another attempt.

        Raises:
            HubError: that error, when another attempt cannot help or there were enough.
            StoppedError: the download was asked to stop.
        """
        self._attempt += 1
        if not error.retry or self._attempt >= self._limits.tries:
            raise error
        seconds = self._limits.backoff_s * 2 ** (self._attempt - 1)
        # Many who failed at the same moment shall not come back at the same moment.
        seconds *= random.uniform(0.5, 1.0)  # noqa: S311
        if error.after_s is not None:
            seconds = max(seconds, error.after_s)
        seconds = min(seconds, self._limits.most_backoff_s)
        self._tell(self._attempt, seconds, error)
        if self._wait(seconds):
            raise StoppedError

    def persist(self, call: Callable[[], ResultT]) -> ResultT:
        """Call until it succeeds; raises as `failed`."""
        while True:
            try:
                return call()
            except HubError as error:
                self.failed(error)


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
