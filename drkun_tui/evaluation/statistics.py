"""How sure a figure is, and whether two differ. Pure, and light to import."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
"""Of every interval here."""

ALPHA = 1 - LEVEL
"""A difference counts as shown where its p value is smaller."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies with a confidence of `LEVEL`."""

    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """May the figure be nothing at all?"""
        return self.low <= 0 <= self.high


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """The score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953), which stays within
    0 and 1 and holds its level for few trials and for shares near the ends. Without a trial nothing is
    known: 0 to 1.

    Raises:
        ValueError: more successes than trials, or less than none.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials}")
    if not trials:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    # At the ends the bound is exact, and rounding must not take it past the share itself.
    return Interval(
        0.0 if not successes else max(0.0, centre - half),
        1.0 if successes == trials else min(1.0, centre + half),
    )


def sign_test(one: int, other: int) -> float:
    """The two-sided exact p value of so many votes for the one and for the other, where chance would give
    each as often; ties are left out before. 1 where there are no votes.

    Raises:
        ValueError: a number is negative.
    """
    if one < 0 or other < 0:
        raise ValueError(f"{one} against {other}")
    votes, fewer = one + other, min(one, other)
    ways = math.lgamma(votes + 1) - math.lgamma(fewer + 1) - math.lgamma(votes - fewer + 1)
    tail, term = 0.0, math.exp(ways - votes * math.log(2))
    # From the largest down, each from the one before, until the rest is lost in rounding.
    for chosen in range(fewer, -1, -1):
        tail += term
        term *= chosen / (votes - chosen + 1)
        if term <= tail * sys.float_info.epsilon:
            break
    return min(1.0, 2 * tail)


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact p value of McNemar's test (1947, doi:10.1007/BF02295996) between two answerers of the same
    questions.

    Args:
        only_one: questions that only the first got right.
        only_other: questions that only the second got right.
    """
    return sign_test(only_one, only_other)
