"""What a later turn of a conversation costs: only its own tokens, and no more time than an early one."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import Bench
from benchmarks.report import Row, Target, compare

EARLY, LATE = 2, 10
OWN_TOKENS = Target("at most", 1.0)
TIME = Target("at most", 1.5)

PAUSE_S = 0.4
"""Between an answer's end and the next question; a reader takes longer."""

ENOUGH = 3
"""Conversations whose every answer ended by itself, without which nothing is claimed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn, as the child reports it.

    Attributes:
        own: tokens of the question with what the template puts around it.
        state: how the answer ended.
        dropped: how many turns had left the context.
    """

    prompt: int
    reused: int
    own: int
    ttft_s: float
    state: str
    dropped: int

    @property
    def evaluated(self) -> int:
        """Tokens of the prompt that had to be evaluated."""
        return self.prompt - self.reused


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation of ten turns."""

    turns: list[Turn]

    @property
    def whole(self) -> bool:
        """Did every answer end by itself, and did nothing leave the context?"""
        return all(turn.state == "done" and turn.dropped == 0 for turn in self.turns)

    def __str__(self) -> str:
        late = self.turns[LATE - 1]
        times = f"{self.turns[EARLY - 1].ttft_s * 1000:.1f} → {late.ttft_s * 1000:.1f} ms"
        return (
            f"turn {LATE}: {late.prompt} tokens, {late.reused} reused, {late.own} own; {times}; {self.whole=}"
        )


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    seeds = iter(range(1, 1000))
    held = bench.rounds_of("turns", {"conversation": lambda: _hold(bench, next(seeds))})["conversation"]
    talks = [talk for talk in held if talk.whole]
    if len(talks) < min(ENOUGH, bench.rounds):
        raise RuntimeError(
            f"only {len(talks)} of {len(held)} conversations had answers that all ended by themselves"
        )
    if len(talks) < len(held):
        bench.note(
            f"turns: {len(held) - len(talks)} of {len(held)} conversations left out, "
            "because an answer in them reached its limit or a turn left the context"
        )

    def of(number: int, figure: Callable[[Turn], float]) -> list[float]:
        return [figure(talk.turns[number - 1]) for talk in talks]

    prompt, reused = (
        statistics.median(of(LATE, figure)) for figure in (lambda turn: turn.prompt, lambda turn: turn.reused)
    )
    return [
        compare(
            f"turn {LATE}, tokens evaluated",
            "tokens",
            of(LATE, lambda turn: turn.evaluated),
            "its question's own",
            of(LATE, lambda turn: turn.own),
            OWN_TOKENS,
            f"prompt {prompt:.0f}, reused {reused:.0f}",
        ),
        compare(
            f"turn {LATE}, time to first token",
            "ms",
            of(LATE, lambda turn: turn.ttft_s * 1000),
            f"turn {EARLY}",
            of(EARLY, lambda turn: turn.ttft_s * 1000),
            TIME,
        ),
    ]


def _hold(bench: Bench, seed: int) -> Talk:
    told = bench.run(sys.executable, "-m", "benchmarks.children.consultation", str(seed), str(PAUSE_S))
    return Talk([Turn(**turn) for turn in json.loads(told)])
