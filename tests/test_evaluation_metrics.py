"""Metrics against their reference libraries and against cases made by hand."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc
from pathlib import Path

import pytest

pytest.importorskip("sacrebleu")

import numpy as np
import rjieba
from rouge_score import rouge_scorer
from sacrebleu.metrics.bleu import BLEU

import drkun_tui
from drkun_tui.evaluation import choices, marks, resampling, text_metrics
from drkun_tui.evaluation.comparison import Side, differences
from drkun_tui.evaluation.protocol import Answered, Figure
from drkun_tui.evaluation.resampling import Resampled
from drkun_tui.evaluation.statistics import Interval
from drkun_tui.evaluation.tally import Tally

DEMO = Path(drkun_tui.__file__).parent / "training" / "demo.jsonl"
ROWS = [json.loads(line) for line in DEMO.read_text("utf8").splitlines()]
PAIRS = [(one["answer"], other["answer"]) for one, other in itertools.pairwise(ROWS)]


# Text


def test_bleu_is_sacrebleus_over_the_corpus() -> None:
    sums = np.sum([text_metrics.bleu(answer, reference) for answer, reference in PAIRS], axis=0)
    wanted = BLEU(tokenize="char").corpus_score([a for a, _ in PAIRS], [[r for _, r in PAIRS]])
    assert text_metrics.bleu_of([int(number) for number in sums]) == pytest.approx(wanted.score, abs=1e-9)
    assert 0 < wanted.score < 100


def test_bleu_by_hand() -> None:
    """Five characters of six, of which 5, 3, 2 and 1 n-grams match: with a brevity penalty."""
    told = text_metrics.bleu("多喝水休息", "多喝水，休息")
    assert told == (5, 3, 1, 0, 5, 4, 3, 2, 5, 6)
    same = text_metrics.bleu("请多喝水休息", "请多喝水休息")
    assert text_metrics.bleu_of(same) == pytest.approx(100)
    # No word is split from another: it is the characters that count.
    half = text_metrics.bleu("多喝热水", "多喝热水早些休息")
    assert text_metrics.bleu_of(half) == pytest.approx(100 * math.exp(1 - 8 / 4))


def test_nothing_said_has_no_match() -> None:
    told = text_metrics.bleu("", "多喝水")
    assert told[:4] == (0, 0, 0, 0)
    assert told[9] == 3
    assert text_metrics.bleu_of(told) == 0
    assert text_metrics.rouge("", "多喝水") == (0, 0, 0)


class SpacedWords:
    def tokenize(self, text: str) -> list[str]:
        return text.split()


def test_rouge_is_that_of_its_library_over_words() -> None:
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=SpacedWords())
    for answer, reference in PAIRS[::10]:
        spaced = [
            " ".join(word for word in rjieba.cut(text) if word[0].isalnum()) for text in (reference, answer)
        ]
        wanted = scorer.score(*spaced)
        told = text_metrics.rouge(answer, reference)
        assert told == tuple(wanted[kind].fmeasure for kind in ("rouge1", "rouge2", "rougeL"))


def test_rouge_by_hand() -> None:
    """心血管 | 内科 | 检查 against 心血管 | 外科 | 检查: two words of three, no pair, two in order."""
    assert list(rjieba.cut("心血管内科检查")) == ["心血管", "内科", "检查"]
    told = text_metrics.rouge("心血管内科检查。", "心血管，外科检查")
    assert told == pytest.approx((2 / 3, 0, 2 / 3))
    assert text_metrics.rouge("Drink Water", "drink water!") == (1, 1, 1)


# Choices


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("B", "B"),
        ("答案：C", "C"),
        ("答案是B。", "B"),
        ("A不对，B也不对，所以选D", "D"),
        ("A. 不对\nB. 对\n答案：B", "B"),
        ("应选ABD", "ABD"),
        ("应选 A、B、D。", "ABD"),
        ("应选D、A和B。", "ABD"),
        ("The answer is (C).", "C"),
        ("Answer: A and D", "AD"),
        ("**Answer:** **B**", "B"),
        ("Answer: B. A patient with fever needs rest.", "B"),
        ("Answer: B. A 45-year-old man with fever needs rest.", "B"),
        ("答案：Ｂ", "B"),
        ("应选Ａ、Ｃ。", "AC"),
        ("答案：B。体温39℃，即 102 °F，或 39 °C", "B"),
        ("维生素Ｂ１２缺乏", ""),
        ("C is right because A's lesion is elsewhere", "C"),
        ("A is right", "A"),
        ("维生素B12缺乏", ""),
        ("Because of COVID", ""),
        ("我不知道", ""),
        ("选E", ""),
        ("选b", ""),
        ("", ""),
    ],
)
def test_the_last_letters_count(answer: str, letters: str) -> None:
    assert choices.chosen(answer, "ABCD") == letters


def test_an_option_that_is_not_there_is_not_chosen() -> None:
    assert choices.chosen("选E", "ABCDE") == "E"
    assert choices.chosen("选A", "") == ""


@pytest.mark.parametrize(
    "text",
    [
        '{"A": "肝", "B": "胆", "C": ""}',
        '["肝", "胆"]',
        '[{"key": "A", "value": "肝"}, {"key": "B", "value": "胆"}]',
        "A 肝\nB 胆",
        "A．肝\nB．胆\n",
        "Ａ．肝\nＢ．胆",
        '{"Ａ": "肝", "Ｂ": "胆"}',
        "A. 肝\n\nB、胆",
        "(A) 肝\n(B) 胆".replace("(", "").replace(")", ")"),
    ],
)
def test_options_as_data_sets_write_them(text: str) -> None:
    assert choices.options_of(text) == {"A": "肝", "B": "胆"}


@pytest.mark.parametrize("text", ["", "肝", "[1", "{}", "[]", "null", '{"肝": "A"}', "[[]]"])
def test_what_are_no_options(text: str) -> None:
    assert len(choices.options_of(text)) < 2


@pytest.mark.parametrize(
    ("key", "letters"),
    [
        *(("B", "B"), ("b", "B"), ("BA", "AB"), ("A,C", "AC"), ("A、B", "AB"), (" C ", "C"), ("胆", "B")),
        *(("Ｂ", "B"), ("Ａ，Ｃ", "AC"), ("ｂ", "B")),
        *(("D", ""), ("AD", ""), ("", ""), ("肾", ""), ("1", ""), ("ABCDEFG", "")),
    ],
)
def test_keys_are_letters_of_options(key: str, letters: str) -> None:
    assert choices.key_of(key, {"A": "肝", "B": "胆", "C": "脾"}) == letters


def test_departments_are_named_last_and_whole() -> None:
    names = ["内科", "心血管内科", "外科"]
    assert choices.department("科室：心血管内科", names) == "心血管内科"
    assert choices.department("不是外科，应挂内科。", names) == "内科"
    assert choices.department("去儿科", names) == ""
    assert choices.department("", names) == choices.department("内科", []) == ""


def test_a_question_shows_its_options_in_its_language() -> None:
    told = choices.asked("下列哪个是消化器官？", {"A": "胃", "B": "肺"}, several=False)
    assert "A. 胃\nB. 肺" in told and "答案" in told
    assert "all correct" in choices.asked("Which are organs?", {"A": "liver"}, several=True)
    assert "内科、外科" in choices.asked_for_department("头晕", ["内科", "外科"])


# Marks


def test_going_round_in_circles() -> None:
    assert marks.repeats("多喝水，注意休息。" * 20)
    assert marks.repeats("啊" * 100)
    assert marks.repetition("12345678" * 2) == pytest.approx(1 / 9)
    assert marks.repetition("短") == marks.repetition("") == 0


def test_answers_of_people_do_not_go_round_in_circles() -> None:
    most = max(marks.repetition(row["reasoning"] + row["answer"]) for row in ROWS)
    assert most < marks.MOST_REPEATED / 2
    assert not any(marks.repeats(row["reasoning"] + row["answer"]) for row in ROWS)


@pytest.mark.parametrize(
    ("answer", "advises"),
    [
        ("请立即拨打120。", True),
        ("马上去医院！", True),
        ("建议尽快就医，或去急诊。", True),
        ("Call 911 now.", True),
        ("Go to the nearest hospital.", True),
        ("You should seek immediate medical attention", True),
        ("不需要去急诊，多休息。", False),
        ("There is no need to call an ambulance.", False),
        ("这不是急救的事，但不用去急诊；如果加重，请打120", True),
        ("您的血压是120/80，很正常。", False),
        ("每次120mg，每日 120 毫克", False),
        ("多喝水，注意休息。", False),
        ("", False),
    ],
)
def test_emergency_advice(answer: str, advises: bool) -> None:
    assert marks.advises_emergency(answer) is advises


# Figures


def answered(place: int, **more: object) -> Answered:
    return Answered(place=place, id=f"{place:016x}", **{"task": "choice", **more})  # type: ignore[arg-type]


def figure(tally: Tally, name: str) -> Figure:
    return next(figure for figure in tally.figures() if figure.name == name)


def test_unparsed_and_failed_choices_are_wrong() -> None:
    tally = Tally()
    tally.add(answered(0, chosen="A", correct=True, closed=True))
    tally.add(answered(1, chosen="", correct=False, closed=False, finish_reason="length"))
    tally.add(answered(2, correct=False, failed="prompt_too_long"))
    assert figure(tally, "accuracy").value == pytest.approx(1 / 3)
    assert figure(tally, "parsed").value == pytest.approx(1 / 3)
    # What has no answer neither ends nor closes anything.
    assert (figure(tally, "ends").value, figure(tally, "ends").count) == (0.5, 2)
    assert (figure(tally, "closes").value, figure(tally, "closes").count) == (0.5, 2)
    assert tally.failed == {"prompt_too_long": 1}
    assert (tally.questions, tally.answered) == (3, 2)


def test_loss_is_over_tokens_and_not_over_questions() -> None:
    tally = Tally()
    tally.add(answered(0, task="answer", loss=10.0, loss_tokens=10))
    tally.add(answered(1, task="answer", loss=90.0, loss_tokens=30))
    assert figure(tally, "loss").value == pytest.approx(2.5)
    assert figure(tally, "perplexity").value == pytest.approx(math.exp(2.5))


def test_text_scores_are_those_of_the_corpus() -> None:
    tally = Tally()
    for place, (answer, reference) in enumerate(PAIRS):
        bleu, rouge = text_metrics.bleu(answer, reference), text_metrics.rouge(answer, reference)
        tally.add(answered(place, task="answer", bleu=bleu, rouge=rouge))
    wanted = BLEU(tokenize="char").corpus_score([a for a, _ in PAIRS], [[r for _, r in PAIRS]])
    found = figure(tally, "bleu4")
    assert found.value == pytest.approx(wanted.score)
    assert found.low < found.value < found.high
    mean = np.mean([text_metrics.rouge(answer, reference)[0] for answer, reference in PAIRS])
    assert figure(tally, "rouge1").value == pytest.approx(100 * mean)


def test_the_bootstrap_is_as_wide_as_theory_says() -> None:
    """The mean of so many numbers is nearly normal: its interval is 1.96 standard errors to each side."""
    values = np.random.default_rng(3).exponential(2.0, 5000)
    resampled = Resampled(2)
    resampled.add(np.column_stack([values[:1000], np.ones(1000)]))
    resampled.add(np.column_stack([values[1000:], np.ones(4000)]))
    found = resampled.interval(lambda sums: float(sums[0] / sums[1]))
    error = values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.4 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.4 * error)
    assert resampled.sums[1] == 5000


def test_a_million_questions_are_compared_in_little_memory() -> None:
    """As theory says, and for all figures of the same answers in one pass."""
    count, draw = 10**6, np.random.default_rng(5)
    sides = [Side(count), Side(count)]
    hard = draw.exponential(20.0, count)
    for number, side in enumerate(sides):
        side.loss[:] = np.column_stack(
            [hard + draw.normal(0.0, 1.0, count) - 0.1 * number, np.full(count, 10)]
        )
        side.text[:, :10] = text_metrics.bleu("多喝水休息", "多喝水，休息")
        side.text[:, 10:13] = draw.random((count, 1), np.float32) + 0.25 * number
        side.text[:, 13] = 1
        side.marks[:, 0] = draw.random(count) < 0.5
    tracemalloc.start()
    found = {each.name: each for each in differences(*sides)}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert list(found) == ["loss", "perplexity", "bleu4", "rouge1", "rouge2", "rougeL", "accuracy"]
    loss, rouge, accuracy = found["loss"], found["rouge1"], found["accuracy"]
    assert {each.count for each in found.values()} == {count}
    # Of pairs: what makes a question hard is in both.
    error = float(np.std(sides[1].loss[:, 0] - sides[0].loss[:, 0])) / 10 / math.sqrt(count)
    assert loss.high - loss.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert loss.low < -0.01 < loss.high and loss.shown
    assert rouge.low < 25 < rouge.high and rouge.shown
    assert rouge.high - rouge.low == pytest.approx(2 * 1.96 * 100 * math.sqrt(1 / 6 / count), rel=0.15)
    assert (found["bleu4"].low, found["bleu4"].high, found["bleu4"].shown) == (0, 0, False)
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * math.sqrt(0.5 / count), rel=0.15)
    assert accuracy.p is not None and 0 < accuracy.p < 1


def test_groups_show_as_much_as_single_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the answers come in an order: the easy ones first."""
    values = np.column_stack([np.sort(np.random.default_rng(3).exponential(2.0, 20_000)), np.ones(20_000)])

    def interval() -> Interval:
        resampled = Resampled(2)
        for part in np.array_split(values, 13):
            resampled.add(part)
        return resampled.interval(lambda sums: float(sums[0] / sums[1]))

    grouped = interval()
    monkeypatch.setattr(resampling, "GROUPS", 20_000)
    single = interval()
    error = values[:, 0].std() / math.sqrt(20_000)
    for one, other in ((grouped.low, single.low), (grouped.high, single.high)):
        assert one == pytest.approx(other, abs=0.3 * error)


def test_nothing_is_known_of_nothing() -> None:
    assert Tally().figures() == ()
    found = Resampled(2).interval(lambda sums: float("nan") if not sums[1] else 1.0)
    assert (found.low, found.high) == (-math.inf, math.inf)
