"""Who won how often, pair by pair, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from drkun_tui.comparison.records import Line, Record
from drkun_tui.consult.conversation import State, Turn
from drkun_tui.evaluation.statistics import sign_test

WHOLE = (State.DONE, State.LENGTH)
"""How answers end that can be voted on."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two contestants, and the votes of the comparisons in which both took part.

    Attributes:
        wins: of the one over the other: it was voted best.
        losses: of the other over the one.
        equal: votes that all were as good, or, among more than two, that a third was best.
    """

    one: str
    other: str
    wins: int
    losses: int
    equal: int

    @property
    def p(self) -> float:
        """How likely votes at least as uneven are where both are as good: the sign test's two-sided p."""
        return sign_test(self.wins, self.losses)

    def as_dict(self) -> dict[str, Any]:
        """The object of ``drkun compare --votes --json``."""
        return {
            "one": self.one,
            "other": self.other,
            "wins": self.wins,
            "losses": self.losses,
            "equal": self.equal,
            "p": self.p,
        }


def can_vote(turns: Sequence[Turn]) -> bool:
    """Is there something to choose from: has everyone answered to the end?"""
    return all(turn.answer.strip() and turn.state in WHOLE for turn in turns)


def tally(lines: Iterable[Line]) -> list[Pair]:
    """Every pair that was voted on, the most votes first. Of several votes on one comparison the last
    counts."""
    records: dict[str, Record] = {}
    best: dict[str, int | None] = {}
    for line in lines:
        if isinstance(line, Record):
            records[line.id] = line
        elif line.of in records and (line.best is None or 0 <= line.best < len(records[line.of].answers)):
            best[line.of] = line.best
    counts: dict[tuple[str, str], list[int]] = {}
    for id, winner in best.items():
        answers = records[id].answers
        for a, b in combinations(range(len(answers)), 2):
            first, second = sorted((a, b), key=lambda index: answers[index].name)
            counted = counts.setdefault((answers[first].name, answers[second].name), [0, 0, 0])
            counted[0 if winner == first else 1 if winner == second else 2] += 1
    pairs = [Pair(one, other, *counted) for (one, other), counted in counts.items()]
    return sorted(pairs, key=lambda pair: -(pair.wins + pair.losses + pair.equal))
