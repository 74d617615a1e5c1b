"""Two evaluations of the same questions: which figures differ, and whether that is shown."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from drkun_tui.evaluation.evaluations import Evaluation, Evaluations
from drkun_tui.evaluation.faults import evaluation_error
from drkun_tui.evaluation.protocol import SHARES, Answered, Difference, Result
from drkun_tui.evaluation.resampling import Numbers, Resampled
from drkun_tui.evaluation.statistics import ALPHA, mcnemar
from drkun_tui.evaluation.tally import LOSS, TEXT, TEXT_WIDTH, Statistic, marks, text_numbers

_AT_ONCE = 8192


def compare(evaluations: Evaluations, before: Evaluation, after: Evaluation) -> tuple[Difference, ...]:
    """The differences in every figure that both have.

    Raises:
        DrkunError: ``no_result``, one is not through, or ``other_questions``.
    """
    one, other = _through(before), _through(after)
    if one.fingerprint != other.fingerprint:
        raise evaluation_error("other_questions", before=before.id, after=after.id)
    sides = [Side(one.questions) for _ in range(2)]
    for side, each in zip(sides, (before, after), strict=True):
        for answered in evaluations.answers(each.id):
            side.add(answered)
    return differences(*sides)


def _through(evaluation: Evaluation) -> Result:
    if evaluation.result is None:
        raise evaluation_error("no_result", id=evaluation.id)
    return evaluation.result


class Side:
    """The numbers of one evaluation, a row for each question; 79 bytes.

    Attributes:
        marks: 1 and 0 for what an answer is and is not, −1 where it does not count, [questions, shares].
        text: `text_numbers`, zeros where there is no answer. BLEU's are whole and small enough to be exact.
        loss: loss and tokens of the references.
    """

    def __init__(self, questions: int) -> None:
        self.marks: npt.NDArray[np.int8] = np.full((questions, len(SHARES)), -1, np.int8)
        self.text: npt.NDArray[np.float32] = np.zeros((questions, TEXT_WIDTH), np.float32)
        self.loss: Numbers = np.zeros((questions, 2))

    def add(self, answered: Answered) -> None:
        """Take an answer."""
        for name, holds in marks(answered).items():
            self.marks[answered.place, SHARES.index(name)] = holds
        if answered.bleu:
            self.text[answered.place] = text_numbers(answered)
        if answered.loss_tokens:
            self.loss[answered.place] = answered.loss, answered.loss_tokens


def differences(before: Side, after: Side) -> tuple[Difference, ...]:
    """The differences between the answers to the same questions."""
    found = [
        *_bootstrapped(LOSS, before.loss, after.loss),
        *_bootstrapped(TEXT, before.text, after.text),
    ]
    for column, name in enumerate(SHARES):
        first, second = before.marks[:, column], after.marks[:, column]
        both = (first >= 0) & (second >= 0)
        one, other = (np.column_stack([np.maximum(side, 0), both]) for side in (first, second))
        p = mcnemar(int((both & (first > second)).sum()), int((both & (second > first)).sum()))
        found += (
            msgspec.structs.replace(told, p=p, shown=p < ALPHA)
            for told in _bootstrapped({name: _share}, one, other)
        )
    return tuple(found)


def _share(sums: Numbers) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _bootstrapped(
    statistics: dict[str, Statistic], before: npt.NDArray[Any], after: npt.NDArray[Any]
) -> list[Difference]:
    """By resampling the questions, both answers of each together.

    Args:
        before: the numbers of each answer; the last one is 0 where there is no answer.
        after: the same of the other side.
    """
    half = before.shape[1]
    resampled = Resampled(2 * half)
    for begin in range(0, len(before), _AT_ONCE):
        one, other = (side[begin : begin + _AT_ONCE] for side in (before, after))
        both = (one[:, -1] > 0) & (other[:, -1] > 0)
        resampled.add(np.hstack([one[both], other[both]]).astype(np.float64))
    if not resampled.count:
        return []
    found = []
    for name, statistic in statistics.items():
        between = resampled.interval(partial(_difference, statistic, half))
        found.append(
            Difference(
                name=name,
                before=statistic(resampled.sums[:half]),
                after=statistic(resampled.sums[half:]),
                low=between.low,
                high=between.high,
                count=resampled.count,
                shown=not between.holds_zero,
            )
        )
    return found


def _difference(statistic: Statistic, half: int, sums: Numbers) -> float:
    return statistic(sums[half:]) - statistic(sums[:half])
