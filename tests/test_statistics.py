"""Intervals and tests, against SciPy and against figures from the literature."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from drkun_tui.evaluation.statistics import Interval, mcnemar, sign_test, wilson


def exact_sign_test(one: int, other: int) -> float:
    """By its definition: the probability of a split at least as uneven."""
    votes = one + other
    tail = sum(Fraction(math.comb(votes, k), 2**votes) for k in range(min(one, other) + 1))
    return float(min(Fraction(1), 2 * tail))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (score without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_wilson_is_symmetric_and_holds_the_share() -> None:
    for trials in range(1, 60):
        for successes in range(trials + 1):
            found, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
            assert 0 <= found.low <= successes / trials <= found.high <= 1
            assert found.low == pytest.approx(1 - mirrored.high)


def test_wilson_knows_nothing_without_a_trial() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(2, 1), (-1, 3)])
def test_wilson_refuses_what_cannot_be(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="of"):
        wilson(successes, trials)


def test_the_sign_test_is_exact() -> None:
    for one in range(30):
        for other in range(30):
            assert sign_test(one, other) == pytest.approx(exact_sign_test(one, other), rel=1e-12)


def test_mcnemar_as_worked_out_by_hand() -> None:
    # 1 + 10 + 45 of 1024 ways are as uneven as 2 to 8, on either side.
    assert mcnemar(8, 2) == pytest.approx(2 * 56 / 1024)
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(5, 5) == mcnemar(0, 0) == 1.0


def test_many_votes_overflow_nothing() -> None:
    """Against the normal approximation with continuity correction, which is good for so many."""
    p = sign_test(4_900, 5_100)
    z = (100 - 0.5) / math.sqrt(2_500)
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)
    p = sign_test(499_000, 501_000)
    assert p == pytest.approx(math.erfc((1_000 - 0.5) / 500 / math.sqrt(2)), rel=1e-4)
    assert 0 <= sign_test(0, 5_000) < 1e-300
    assert sign_test(600, 400) == pytest.approx(exact_sign_test(600, 400))


def test_votes_are_not_negative() -> None:
    with pytest.raises(ValueError, match="against"):
        sign_test(-1, 2)
