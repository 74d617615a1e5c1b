"""Two evaluations of the same questions: which figures differ, and whether that is shown."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from drkun_tui.evaluation.evaluations import Evaluation, Evaluations
from drkun_tui.evaluation.faults import evaluation_error
from drkun_tui.evaluation.protocol import SHARES, Answered, Difference, Result
from drkun_tui.evaluation.resampling import Numbers, Resampled
from drkun_tui.evaluation.statistics import ALPHA, mcnemar
from drkun_tui.evaluation.tally import LOSS, TEXT, TEXT_WIDTH, Statistic, marks, text_numbers


def compare(evaluations: Evaluations, before: Evaluation, after: Evaluation) -> tuple[Difference, ...]:
    """The differences in every figure that both have.

    Raises:
        DrkunError: ``no_result``, one is not through, or ``other_questions``.
    """
    one, other = _through(before), _through(after)
    if one.fingerprint != other.fingerprint:
        raise evaluation_error("other_questions", before=before.id, after=after.id)
    sides = [_Side(one.questions, evaluations.answers(each.id)) for each in (before, after)]
    found: list[Difference] = []
    for statistics, numbers in ((LOSS, [side.loss for side in sides]), (TEXT, [side.text for side in sides])):
        both = (numbers[0][:, -1] > 0) & (numbers[1][:, -1] > 0)
        if both.any():
            values = np.hstack([numbers[0][both], numbers[1][both]])
            found += (_bootstrapped(name, statistic, values) for name, statistic in statistics.items())
    for column, name in enumerate(SHARES):
        first, second = (side.marks[:, column] for side in sides)
        both = (first >= 0) & (second >= 0)
        if both.any():
            found.append(_share(name, first[both].astype(float), second[both].astype(float)))
    return tuple(found)


def _through(evaluation: Evaluation) -> Result:
    if evaluation.result is None:
        raise evaluation_error("no_result", id=evaluation.id)
    return evaluation.result


class _Side:
    """The numbers of one evaluation, a row for each question.

    Attributes:
        marks: 1 and 0 for what an answer is and is not, −1 where it does not count, [questions, shares].
        text: `text_numbers`, zeros where there is no answer.
        loss: loss and tokens of the references.
    """

    def __init__(self, questions: int, answers: Iterable[Answered]) -> None:
        self.marks: npt.NDArray[np.int8] = np.full((questions, len(SHARES)), -1, np.int8)
        self.text: Numbers = np.zeros((questions, TEXT_WIDTH))
        self.loss: Numbers = np.zeros((questions, 2))
        columns = {name: column for column, name in enumerate(SHARES)}
        for answered in answers:
            for name, holds in marks(answered).items():
                self.marks[answered.place, columns[name]] = holds
            if answered.bleu:
                self.text[answered.place] = text_numbers(answered)
            if answered.loss_tokens:
                self.loss[answered.place] = answered.loss, answered.loss_tokens


def _bootstrapped(name: str, statistic: Statistic, values: Numbers) -> Difference:
    """By resampling the questions, both answers of each together.

    Args:
        values: the numbers of both sides beside each other.
    """
    half = values.shape[1] // 2
    resampled = Resampled(values.shape[1])
    resampled.add(values)
    between = resampled.interval(lambda sums: statistic(sums[half:]) - statistic(sums[:half]))
    return Difference(
        name=name,
        before=statistic(resampled.sums[:half]),
        after=statistic(resampled.sums[half:]),
        low=between.low,
        high=between.high,
        count=len(values),
        shown=not between.holds_zero,
    )


def _share(name: str, first: Numbers, second: Numbers) -> Difference:
    def share(sums: Numbers) -> float:
        return float(sums[0] / sums[1]) if sums[1] else float("nan")

    one = np.ones(len(first))
    told = _bootstrapped(name, share, np.column_stack([first, one, second, one]))
    p = mcnemar(int((first > second).sum()), int((second > first).sum()))
    return msgspec.structs.replace(told, p=p, shown=p < ALPHA)
