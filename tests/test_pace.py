"""How many threads decode, from the time that each step took."""

from __future__ import annotations

import pytest

from drkun_tui.engine.pace import SHORTEST_REST_S, WINDOW, Pace

QUICK_S, STALLED_S = 0.001, 0.1


def steps(pace: Pace, seconds: float, count: int) -> list[int]:
    """The thread counts after each of `count` steps of the same length."""
    seen = []
    for _ in range(count):
        pace.step(seconds)
        seen.append(pace.threads)
    return seen


def test_keeps_all_threads_while_steps_are_even() -> None:
    assert set(steps(Pace(4), QUICK_S, 1000)) == {4}


def test_tolerates_a_context_that_grows() -> None:
    pace = Pace(4)
    for n in range(2000):
        assert not pace.step(QUICK_S * (1 + n / 500))
    assert pace.threads == 4


@pytest.mark.parametrize(("most", "expected"), [(2, 1), (4, 2), (8, 4), (3, 1)])
def test_gives_half_of_them_back_when_steps_stall(most: int, expected: int) -> None:
    pace = Pace(most)
    steps(pace, QUICK_S, WINDOW)
    assert pace.step(STALLED_S)
    assert pace.threads == expected


def test_one_thread_is_never_given_back() -> None:
    pace = Pace(1)
    steps(pace, QUICK_S, WINDOW)
    assert set(steps(pace, STALLED_S, 100)) == {1}


def test_a_single_short_hiccup_changes_nothing() -> None:
    pace = Pace(2)
    steps(pace, QUICK_S, WINDOW)
    assert not pace.step(4 * QUICK_S)
    assert pace.threads == 2


def test_asks_for_them_again_after_a_rest_in_proportion_to_the_loss() -> None:
    pace = Pace(2)
    steps(pace, QUICK_S, WINDOW)
    pace.step(STALLED_S)
    assert pace.threads == 1
    rest = steps(pace, 2 * QUICK_S, int(1.5 * STALLED_S / 0.05 / (2 * QUICK_S)))
    assert rest[int(SHORTEST_REST_S / (2 * QUICK_S)) - 2] == 1
    assert rest[-1] == 2


def test_keeps_giving_back_while_the_machine_stays_busy() -> None:
    pace = Pace(8)
    steps(pace, QUICK_S, WINDOW)
    pace.step(STALLED_S)
    assert pace.threads == 4
    pace.step(QUICK_S)
    pace.step(STALLED_S)
    assert pace.threads == 2
