"""Curves drawn as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len

from drkun_tui.ui.plot import Curve, draw, ticks
from drkun_tui.ui.typeset.wrap import Line


def text(lines: Sequence[Line]) -> list[str]:
    return ["".join(span.text for span in line) for line in lines]


def dots(line: str) -> int:
    return sum((ord(char) - 0x2800).bit_count() for char in line if "\u2800" <= char <= "\u28ff")


def test_ticks_are_round_and_not_too_many() -> None:
    assert ticks(0, 100, 6) == [0, 20, 40, 60, 80, 100]
    assert ticks(1.07, 4.2, 4) == [2, 3, 4]
    assert ticks(3, 3, 4) == [3]
    assert all(len(ticks(0, 10.0**power, 5)) <= 5 for power in range(-6, 7))


def test_a_falling_curve_falls_and_every_line_has_the_same_width() -> None:
    lines = text(draw([Curve(range(1, 101), [100.0 - x for x in range(100)], "accent")], 60, 12, 100))
    assert len(lines) == 12
    firsts = [next(i for i, char in enumerate(line) if "\u2801" <= char <= "\u28ff") for line in lines[:-1]]
    assert firsts == sorted(firsts) and firsts[0] < firsts[-1]
    assert len({cell_len(line) for line in lines[:-1]}) == 1


def test_no_spike_is_lost_among_many_points_and_more_points_are_no_more_dots() -> None:
    ys = [1.0] * 20_000
    ys[12_345] = 9.0
    spiked = text(draw([Curve(range(20_000), ys, "")], 60, 12, 20_000))
    assert dots(spiked[0]) > 0
    few = text(draw([Curve(range(0, 20_000, 100), ys[::100], "")], 60, 12, 20_000))
    flat = text(draw([Curve(range(20_000), [1.0] * 20_000, "")], 60, 12, 20_000))
    assert sum(map(dots, flat)) == sum(map(dots, few))


def test_points_that_are_no_numbers_are_left_out() -> None:
    lines = text(draw([Curve([1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0], "")], 40, 8, 4))
    assert sum(map(dots, lines)) > 0
    assert text(draw([Curve([1], [math.nan], "")], 40, 8, 4)) == [""] * 8


def test_a_sign_stands_on_a_curve() -> None:
    lines = text(draw([Curve(range(50), [float(x) for x in range(50)], "", "A")], 40, 8, 50))
    assert sum(line.count("A") for line in lines) == 3


def test_too_little_room_draws_nothing() -> None:
    assert draw([Curve([1, 2], [1.0, 2.0], "")], 8, 8, 2) == [()] * 8
    assert draw([], 40, 8, 2) == [()] * 8
