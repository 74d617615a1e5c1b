"""From the answers, one after the other, to the figures of an evaluation. Nothing grows with their number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from drkun_tui.evaluation import text_metrics
from drkun_tui.evaluation.protocol import SCORES, SHARES, Answered, Figure, Loaded
from drkun_tui.evaluation.resampling import Numbers, Resampled
from drkun_tui.evaluation.statistics import wilson

BLEU_WIDTH = 10
TEXT_WIDTH = BLEU_WIDTH + len(SCORES)
"""Of `text_numbers`."""

_AT_ONCE = 512

Statistic = Callable[[Numbers], float]

LOSS: dict[str, Statistic] = {
    "loss": lambda sums: float(sums[0] / sums[1]) if sums[1] else math.nan,
    # Where the mean is beyond all floats, the model has not learnt the language.
    "perplexity": lambda sums: math.exp(min(sums[0] / sums[1], 700)) if sums[1] else math.nan,
}
"""Of the losses and tokens of the references, summed."""


def _mean(column: int) -> Statistic:
    return lambda sums: 100 * float(sums[column] / sums[-1]) if sums[-1] else math.nan


TEXT: dict[str, Statistic] = {
    "bleu4": lambda sums: (
        text_metrics.bleu_of([round(value) for value in sums[:BLEU_WIDTH]]) if sums[-1] else math.nan
    ),
    **{name: _mean(BLEU_WIDTH + place) for place, name in enumerate(SCORES[1:])},
}
"""Of `text_numbers`, summed."""


def text_numbers(answered: Answered) -> list[float]:
    """What the scores of a text are computed from: BLEU's numbers, ROUGE's, and one."""
    return [*map(float, answered.bleu), *answered.rouge, 1.0]


def marks(answered: Answered) -> dict[str, bool]:
    """What an answer is by itself: the shares that it counts in, and whether it counts for them."""
    told: dict[str, bool] = {}
    if answered.correct is not None:
        told["accuracy" if answered.task == "choice" else "department"] = answered.correct
        told["parsed"] = bool(answered.chosen)
    if not answered.failed:
        told["ends"] = answered.finish_reason == "stop"
        told["repeats"] = answered.repeats
        if answered.closed is not None:
            told["closes"] = answered.closed
    if answered.advised is not None:
        told["advised"] = answered.advised
    return told


class Tally:
    """Answers, counted."""

    def __init__(self) -> None:
        self.questions = self.answered = self.tokens = 0
        self.seconds = 0.0
        self.failed: Counter[str] = Counter()
        self.unscored: Counter[str] = Counter()
        self._last = 0.0
        self._hits: Counter[str] = Counter()
        self._trials: Counter[str] = Counter()
        self._text = _Numbers(TEXT_WIDTH)
        self._loss = _Numbers(2)

    def add(self, event: Answered | Loaded) -> None:
        """Count an answer; from a `Loaded` on time is taken."""
        if isinstance(event, Loaded):
            self._last = event.at
            return
        self.questions += 1
        self.tokens += event.tokens
        self.seconds += max(0.0, event.at - self._last)
        self._last = event.at
        if event.failed:
            self.failed[event.failed] += 1
        else:
            self.answered += 1
        if event.unscored:
            self.unscored[event.unscored] += 1
        for name, holds in marks(event).items():
            self._trials[name] += 1
            self._hits[name] += holds
        if event.bleu:
            self._text.add(text_numbers(event))
        if event.loss_tokens:
            self._loss.add([event.loss, float(event.loss_tokens)])

    def figures(self) -> tuple[Figure, ...]:
        """The figures so far, the losses first."""
        found = [*self._loss.figures(LOSS), *self._text.figures(TEXT)]
        for name in SHARES:
            if trials := self._trials[name]:
                between = wilson(self._hits[name], trials)
                share = self._hits[name] / trials
                found.append(Figure(name=name, value=share, low=between.low, high=between.high, count=trials))
        return tuple(found)


class _Numbers:
    """Numbers of answers, resampled some at a time."""

    def __init__(self, width: int) -> None:
        self._resampled = Resampled(width)
        self._waiting: list[list[float]] = []
        self._count = 0

    def add(self, numbers: list[float]) -> None:
        self._waiting.append(numbers)
        self._count += 1
        if len(self._waiting) >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._resampled.add(np.array(self._waiting))
            self._waiting.clear()

    def figures(self, statistics: dict[str, Statistic]) -> Iterable[Figure]:
        self._flush()
        if not self._count:
            return
        for name, statistic in statistics.items():
            between = self._resampled.interval(statistic)
            value = statistic(self._resampled.sums)
            yield Figure(name=name, value=value, low=between.low, high=between.high, count=self._count)
