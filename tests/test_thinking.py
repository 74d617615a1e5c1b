from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkun_tui.engine.thinking import (
    SPELLINGS,
    XML_SPELLINGS,
    Kind,
    Reclassify,
    Segment,
    Spelling,
    Split,
    Splitter,
    Start,
    opened_by,
    split,
    start_state,
)

FRESH, OPEN, CLOSED = Start.FRESH, Start.OPEN, Start.CLOSED
THINKING, ANSWER, MARKUP = Kind.THINKING, Kind.ANSWER, Kind.MARKUP
THINK, HUATUO = SPELLINGS[0], SPELLINGS[-1]
TAGS = [tag for s in SPELLINGS for tag in (s.open, s.close)]

Event = Segment | Reclassify


def run(chunks: Iterable[str], start: Start, spelling: Spelling | None = None) -> tuple[list[Event], bool]:
    splitter = Splitter(start, spelling)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events + splitter.finish(), splitter.truncated


def merge(events: Iterable[Event]) -> list[Event]:
    """The events as one chunk would have given them: neighbours of a kind joined."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, Segment) and isinstance(last, Segment) and event.kind is last.kind:
            merged[-1] = Segment(event.kind, last.text + event.text)
        else:
            merged.append(event)
    return merged


def joined(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Segment))


def is_maybe_tag(held: str) -> bool:
    """Whether text is whitespace and the beginning of a tag, or a heading whose line has not ended."""
    tag = held.lstrip()
    return any(t.startswith(tag) for t in TAGS) or tag.rstrip() in (HUATUO.open, HUATUO.close)


WHOLE = [
    # A block and its answer, in every spelling.
    *[
        (f"{s.open}\n头晕？\n{s.close}\n\n多喝水。", FRESH, None, "头晕？", "多喝水。", False)
        for s in SPELLINGS
    ],
    ("<think>a</think>b", FRESH, None, "a", "b", False),
    ("\n <think> a\n\nb </think> c\n", FRESH, None, "a\n\nb", "c\n", False),
    # The prompt opened the block (DeepSeek-R1).
    ("头晕？\n</think>\n\n多喝水。", OPEN, THINK, "头晕？", "多喝水。", False),
    ("a</thinking>b</think>c", OPEN, THINK, "a</thinking>b", "c", False),
    ("a</思考>b", OPEN, None, "a", "b", False),
    ("a</thinking>b</think>c", OPEN, None, "a", "b</think>c", False),
    ("a\n\n## Final Response\n\nb", OPEN, HUATUO, "a", "b", False),
    ("a\n\n## Final Response\n\nb", OPEN, None, "a\n\n## Final Response\n\nb", "", True),
    # A model that repeats the prompt's open tag.
    ("<think>\na</think>b", OPEN, None, "a", "b", False),
    ("a <think> b</think>c", OPEN, None, "a <think> b", "c", False),
    # The prompt pre-filled an empty block (Qwen3 with thinking off).
    ("多喝水。", CLOSED, None, "", "多喝水。", False),
    ("<think>a</think>b", CLOSED, None, "a", "b", False),
    # The close tag never comes.
    ("<think>\n头晕，可能是\n", FRESH, None, "头晕，可能是\n", "", True),
    ("头晕，可能是", OPEN, THINK, "头晕，可能是", "", True),
    ("<think>a</thi", FRESH, None, "a</thi", "", True),
    ("<think>a</thinking>", FRESH, None, "a</thinking>", "", True),
    ("## Thinking\na\n## Final", FRESH, None, "a\n## Final", "", True),
    ("<think>", FRESH, None, "", "", True),
    ("", OPEN, None, "", "", True),
    # A lone close tag makes what came before it reasoning.
    ("头晕？\n</think>\n\n多喝水。", FRESH, None, "头晕？", "多喝水。", False),
    ("头晕？\n</思考>\n\n多喝水。", CLOSED, None, "头晕？", "多喝水。", False),
    ("a</think>b</think>c", FRESH, None, "a", "b</think>c", False),
    (" </think> a", FRESH, None, "", "a", False),
    ("a\n## Final Response\nb", FRESH, None, "", "a\n## Final Response\nb", False),
    # An answer that writes about the tags.
    ("标签 <think>x</think> 之后", FRESH, None, "", "标签 <think>x</think> 之后", False),
    # An empty block.
    ("<think>\n\n</think>\n\na", FRESH, None, "", "a", False),
    ("<think></think>", FRESH, None, "", "", False),
    ("\n</think>\na", OPEN, THINK, "", "a", False),
    ("## Thinking\n\n## Final Response\n\na", FRESH, None, "", "a", False),
    # Only a leading block counts, and only one.
    ("a <think>b", FRESH, None, "", "a <think>b", False),
    ("a\n## Thinking\nb", FRESH, None, "", "a\n## Thinking\nb", False),
    ("a\n## Thinking\n</think>b", FRESH, None, "a\n## Thinking", "b", False),
    ("<think>a</think>b<think>c</think>d", FRESH, None, "a", "b<think>c</think>d", False),
    ("<think>a</think><think>b</think>c", FRESH, None, "a", "<think>b</think>c", False),
    ("<think>a<think>b</think>c", FRESH, None, "a<think>b", "c", False),
    # Headings count on lines of their own.
    ("  ## Thinking \r\na\n  ## Final Response\t\nb", FRESH, None, "a", "b", False),
    ("## Thinking aloud\na", FRESH, None, "", "## Thinking aloud\na", False),
    ("### Thinking\na", FRESH, None, "", "### Thinking\na", False),
    ("## Thinking", FRESH, None, "", "", True),
    ("## Thinking\na ## Final Response\nb", FRESH, None, "a ## Final Response\nb", "", True),
    ("## Thinking\na\n## Final Response: b", FRESH, None, "a\n## Final Response: b", "", True),
    ("## Thinking\na\n## Final Response", FRESH, None, "a", "", False),
    ("## Thinking  </think>a", FRESH, None, "## Thinking", "a", False),
    # No block at all.
    ("", FRESH, None, "", "", False),
    (" \n", FRESH, None, "", "", False),
    ("\n 多喝水。\n", FRESH, None, "", "多喝水。\n", False),
    ("<thin", FRESH, None, "", "<thin", False),
    ("血压 <140 / <90", FRESH, None, "", "血压 <140 / <90", False),
    ("<<think>a", FRESH, None, "", "<<think>a", False),
    ("<Think>a", FRESH, None, "", "<Think>a", False),
]


@pytest.mark.parametrize(("text", "start", "spelling", "thinking", "answer", "truncated"), WHOLE)
def test_split(
    text: str, start: Start, spelling: Spelling | None, thinking: str, answer: str, truncated: bool
) -> None:
    assert split(text, start, spelling) == Split(thinking, answer, truncated)
    by_char, cut_short = run(text, start, spelling)
    assert merge(by_char) == merge(run([text], start, spelling)[0])
    assert (joined(by_char), cut_short) == (text, truncated)


EVENTS: list[tuple[str, Start, list[Event]]] = [
    (
        "\n<think>\n a \n</think>\n\nb ",
        FRESH,
        [
            Segment(MARKUP, "\n<think>\n "),
            Segment(THINKING, "a"),
            Segment(MARKUP, " \n</think>\n\n"),
            Segment(ANSWER, "b "),
        ],
    ),
    (
        " a b \n</think>\nc",
        FRESH,
        [
            Segment(MARKUP, " "),
            Segment(ANSWER, "a b"),
            Reclassify(),
            Segment(MARKUP, " \n</think>\n"),
            Segment(ANSWER, "c"),
        ],
    ),
    (
        "\na\n\n## Final Response \n\nb",
        OPEN,
        [
            Segment(MARKUP, "\n"),
            Segment(THINKING, "a"),
            Segment(MARKUP, "\n\n## Final Response \n\n"),
            Segment(ANSWER, "b"),
        ],
    ),
    ("<think>a \n", FRESH, [Segment(MARKUP, "<think>"), Segment(THINKING, "a \n")]),
    (" \n", FRESH, [Segment(MARKUP, " \n")]),
]


@pytest.mark.parametrize(("text", "start", "expected"), EVENTS)
def test_whitespace_around_tags_is_markup(text: str, start: Start, expected: list[Event]) -> None:
    spelling = HUATUO if HUATUO.close in text else None
    assert merge(run([text], start, spelling)[0]) == expected
    assert merge(run(text, start, spelling)[0]) == expected


def test_reclassify_comes_when_the_lone_close_tag_is_complete() -> None:
    splitter = Splitter()
    assert splitter.feed("可能是贫血") == [Segment(ANSWER, "可能是贫血")]
    assert splitter.feed("\n</thi") == []
    assert splitter.feed("nk>多") == [Reclassify(), Segment(MARKUP, "\n</think>"), Segment(ANSWER, "多")]


def test_text_that_cannot_be_a_tag_comes_at_once() -> None:
    splitter = Splitter()
    assert splitter.feed("血压 <") == [Segment(ANSWER, "血压")]
    assert splitter.feed("1") == [Segment(ANSWER, " <1")]
    assert splitter.feed("40 ") == [Segment(ANSWER, "40")]
    closed = Splitter(OPEN)
    closed.feed("a</think>b")
    assert closed.feed(" <") == [Segment(ANSWER, " <")]


def test_state_follows_the_output() -> None:
    splitter = Splitter()
    states = []
    for chunk in ("\n", "<think>", "a", "</thi", "nk>", "b"):
        splitter.feed(chunk)
        states.append(splitter.thinking)
    assert states == [False, True, True, True, False, False]

    cut_short = Splitter(OPEN)
    cut_short.feed("a ")
    assert (cut_short.thinking, cut_short.truncated) == (True, False)
    assert cut_short.finish() == [Segment(THINKING, " ")]
    assert (cut_short.thinking, cut_short.truncated) == (True, True)
    assert cut_short.finish() == []


PROMPTS = [
    *[(f"<|user|>头晕<|assistant|>{s.open}\n", OPEN, s) for s in XML_SPELLINGS],
    *[(f"<|assistant|>{s.open}\n\n{s.close}\n\n", CLOSED, None) for s in XML_SPELLINGS],
    ("<|assistant|>\n## Thinking\n\n", OPEN, HUATUO),
    ("<|assistant|>\n## Thinking\n\n## Final Response\n", CLOSED, None),
    ("Write about ## Thinking", FRESH, None),
    ("<think>", OPEN, THINK),
    ("", FRESH, None),
    ("<|user|>头晕<|assistant|>\n", FRESH, None),
    # DeepSeek-V3.1 with thinking off.
    ("<|Assistant|></think>", CLOSED, None),
    # Earlier turns and the user's own words.
    ("<|assistant|><think>\na</think>b<|user|>c<|assistant|>\n", FRESH, None),
    ("<|user|>What is <think>?<|assistant|>\n", FRESH, None),
    ("<|user|>What is <think>\n\n</think>?<|assistant|>\n", FRESH, None),
    ("<|user|></think><|assistant|><think>\n", OPEN, THINK),
]


@pytest.mark.parametrize(("prompt", "start", "spelling"), PROMPTS)
def test_start_is_read_from_the_end_of_the_prompt(
    prompt: str, start: Start, spelling: Spelling | None
) -> None:
    assert start_state(prompt) is start
    assert opened_by(prompt) == spelling


PARTS = st.one_of(
    st.sampled_from(TAGS),
    st.sampled_from(TAGS).flatmap(lambda tag: st.integers(1, len(tag)).map(lambda n: tag[:n])),
    st.sampled_from([" ", "\n", "\n\n", "\r\n", "\t", "　"]),
    st.sampled_from(["头晕", "血压 <140", "a", "Take water.", "</", "#", "<br>", "## 建议"]),
)
# Short texts of few parts, so that tags meet each other and the edges often.
TEXTS = st.lists(PARTS, max_size=9).map("".join)
STARTS = st.one_of(
    st.tuples(st.sampled_from(Start), st.none()), st.tuples(st.just(OPEN), st.sampled_from(SPELLINGS))
)


@st.composite
def chunked(draw: st.DrawFn) -> list[str]:
    text = draw(TEXTS)
    cuts = draw(st.sets(st.integers(0, len(text))))
    return [text[a:b] for a, b in pairwise(sorted({0, len(text)} | cuts))]


@settings(max_examples=300, deadline=None)
@given(chunks=chunked(), begin=STARTS)
def test_cuts_do_not_matter_and_nothing_is_lost(
    chunks: list[str], begin: tuple[Start, Spelling | None]
) -> None:
    text = "".join(chunks)
    events, truncated = run([text], *begin)
    whole = merge(events)
    by_chunk, by_char = run(chunks, *begin), run(text, *begin)
    assert (merge(by_chunk[0]), by_chunk[1]) == (merge(by_char[0]), by_char[1]) == (whole, truncated)
    assert joined(whole) == text
    assert sum(isinstance(event, Reclassify) for event in whole) <= 1
    assert all(event.text for event in whole if isinstance(event, Segment))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, begin=STARTS)
def test_only_what_could_be_a_tag_is_held_back(text: str, begin: tuple[Start, Spelling | None]) -> None:
    splitter = Splitter(*begin)
    given_back = ""
    for n, char in enumerate(text, 1):
        given_back += joined(splitter.feed(char))
        assert text.startswith(given_back)
        assert is_maybe_tag(text[len(given_back) : n])


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, begin=STARTS)
def test_a_block_that_never_closes_is_never_answer(text: str, begin: tuple[Start, Spelling | None]) -> None:
    result = split(text, *begin)
    if result.truncated:
        assert result.answer == ""
    if begin[0] is OPEN:
        assert result.truncated or any(s.close in text for s in SPELLINGS)
    assert result.thinking == result.thinking.lstrip()
    assert result.answer == result.answer.lstrip()


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize(
    "text",
    [
        lambda n: "头" * n,
        lambda n: "<" * n,
        lambda n: "a" + " " * n,
        lambda n: "a" + " <" * (n // 2),
        lambda n: "a" + "\n" * n + "</think>",
        lambda n: "## Thinking" + " " * n + "a",
        lambda n: "## Thinking\n" + "\n## Final Response a" * (n // 20),
    ],
    ids=["prose", "angles", "spaces", "spaces and angles", "lines before a tag", "heading", "headings"],
)
def test_time_is_linear_for_single_characters(text: Callable[[int], str], start: Start) -> None:
    """Four times the text takes four times the time, not sixteen times. What else the machine does
    may stretch one look, hardly five."""
    ratios = []
    for _ in range(5):
        took = []
        for length in (8_000, 32_000):
            began = time.process_time()
            events, _ = run(text(length), start)
            took.append(time.process_time() - began)
            assert joined(events) == text(length)
        ratios.append(took[1] / max(took[0], 0.01))
        if ratios[-1] < 9:
            return
    raise AssertionError(ratios)
