"""The bootstrap, in one pass over any number of answers: each counts so many times in each replica as a
Poisson variable of mean 1 says, which for sums and their ratios is the same as drawing with replacement
(Chamandy et al. 2012, "Estimating uncertainty for massive data streams").

Beyond `GROUPS` answers it is groups that are drawn, to which the answers were dealt at random: sums over
random groups differ from each other as the answers say (Wolter 2007, "Introduction to Variance Estimation",
chapter 2). A standard error is found to 1 % so, and neither time nor memory grows with answers × replicas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from drkun_tui.evaluation.statistics import LEVEL, Interval

REPLICAS = 1000
GROUPS = 4096

_AT_ONCE = 250
"""Replicas whose weights are in memory."""

Numbers = npt.NDArray[np.float64]


class Resampled:
    """Sums over all answers, and over the answers of each replica.

    Args:
        width: numbers of one answer.
        seed: the same one gives the same replicas.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        self.count = 0
        self._groups = np.zeros((GROUPS, width))
        self._seed = seed
        self._dealing = np.random.default_rng(seed)
        self._replicas: Numbers | None = None

    @property
    def sums(self) -> Numbers:
        """Over all answers."""
        total: Numbers = self._groups.sum(0)
        return total

    def add(self, values: Numbers) -> None:
        """Take the numbers of some answers, [answers, width]."""
        groups = np.arange(self.count, self.count + len(values))
        dealt = groups >= GROUPS
        groups[dealt] = self._dealing.integers(GROUPS, size=np.count_nonzero(dealt))
        for column, numbers in enumerate(values.T):
            self._groups[:, column] += np.bincount(groups, numbers, GROUPS)
        self.count += len(values)
        self._replicas = None

    def interval(self, statistic: Callable[[Numbers], float]) -> Interval:
        """Where a statistic of the sums lies, by the percentiles of its replicas.

        Args:
            statistic: of `width` sums; not a number where they do not say anything.
        """
        if self._replicas is None:
            self._replicas = self._drawn()
        values = np.array([statistic(sums) for sums in self._replicas])
        values = values[np.isfinite(values)]
        if not len(values):
            return Interval(float("-inf"), float("inf"))
        low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return Interval(float(low), float(high))

    def _drawn(self) -> Numbers:
        """The sums of each replica."""
        random = np.random.default_rng(self._seed)
        groups = self._groups[: self.count]
        shape = _AT_ONCE, len(groups)
        return np.concatenate(
            [random.poisson(1.0, shape).astype(np.float64) @ groups for _ in range(0, REPLICAS, _AT_ONCE)]
        )
