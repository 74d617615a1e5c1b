"""How many threads decode: fewer while other programs want the cores.

llama.cpp's threads wait for each other many times a token, and they wait spinning. When another
program takes one of their cores, the rest burn theirs waiting: seen here, two threads beside one busy
process fell from 690 to under 10 tokens/s, where a single thread still made 400. So a decode that is
suddenly many times slower than it can be gives threads back, and asks for them again later.
"""

from __future__ import annotations

import math

WINDOW = 8
"""Steps that are looked at together."""

BUSY = 10.0
"""A window this many times slower than its quickest step means that the cores are not ours alone."""

SHARE = 0.05
"""Most of the time that may be lost to finding out whether the cores are free again."""

SHORTEST_REST_S = 1.0
"""Seconds before more threads are tried again."""

DRIFT = 1.002
"""A step gets slower as the context fills, so the quickest one is slowly forgotten."""


class Pace:
    """Chooses the number of threads from the time of each decode step.

    Args:
        most: threads to use when the machine is ours.
    """

    def __init__(self, most: int) -> None:
        self.threads = most
        self._most = most
        self._quickest: dict[int, float] = {}
        self._window_s = 0.0
        self._steps = 0
        self._rest_s = 0.0

    def step(self, seconds: float) -> bool:
        """Take the time of one decode step; True when `threads` has changed."""
        quickest = min(self._quickest.get(self.threads, math.inf) * DRIFT, seconds)
        self._quickest[self.threads] = quickest
        self._window_s += seconds
        self._steps += 1
        if self._window_s > WINDOW * BUSY * quickest and self.threads > 1:
            self._rest_s = max(SHORTEST_REST_S, self._window_s / SHARE)
            return self._use(max(1, self.threads // 2))
        if self.threads < self._most:
            self._rest_s -= seconds
            if self._rest_s <= 0:
                return self._use(self._most)
        if self._steps == WINDOW:
            self._window_s, self._steps = 0.0, 0
        return False

    def _use(self, threads: int) -> bool:
        self.threads = threads
        self._window_s, self._steps = 0.0, 0
        return True
