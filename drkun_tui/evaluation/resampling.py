"""The bootstrap, in one pass over any number of answers: each counts so many times in each replica as a
Poisson variable of mean 1 says, which for sums and their ratios is the same as drawing with replacement
(Chamandy et al. 2012, "Estimating uncertainty for massive data streams")."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from drkun_tui.evaluation.statistics import LEVEL, Interval

REPLICAS = 1000
_AT_ONCE = 4096

Numbers = npt.NDArray[np.float64]


class Resampled:
    """Sums over all answers, and over the answers of each replica.

    Args:
        width: numbers of one answer.
        seed: the same one gives the same replicas.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        self.sums = np.zeros(width)
        self.replicas = np.zeros((REPLICAS, width))
        self._random = np.random.default_rng(seed)

    def add(self, values: Numbers) -> None:
        """Take the numbers of some answers, [answers, width]."""
        for begin in range(0, len(values), _AT_ONCE):
            part = values[begin : begin + _AT_ONCE]
            weights = self._random.poisson(1.0, (REPLICAS, len(part))).astype(np.float64)
            self.replicas += weights @ part
            self.sums += part.sum(0)

    def interval(self, statistic: Callable[[Numbers], float]) -> Interval:
        """Where a statistic of the sums lies, by the percentiles of its replicas.

        Args:
            statistic: of `width` sums; not a number where they do not say anything.
        """
        values = np.array([statistic(sums) for sums in self.replicas])
        values = values[np.isfinite(values)]
        if not len(values):
            return Interval(float("-inf"), float("inf"))
        low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return Interval(float(low), float(high))
