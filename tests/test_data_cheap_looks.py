"""What looks closely at few rows finds what looking closely at all of them would."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.training.data import cleaning, shapes
from drkun_tui.training.data.text import Strings, folded
from drkun_tui.training.recipe import Data

PIECES = (
    *("加", "添加", "扫码", "医生的", "微信", "威信", "薇信", "V信", "wechat", "VX", "QQ", "扣扣", "公众号"),
    *(
        "号码",
        "：",
        ":",
        "点击",
        "头像",
        "咨询",
        "预约",
        "健康",
        "热线",
        "专线",
        "免费",
        "在线",
        "电话",
        "请点",
    ),
    *(
        "http",
        "s",
        "ſ",
        "://",
        "www.",
        "ab",
        "doc-1",
        ".",
        "com",
        ".CN",
        "@",
        "ſK",
        "1",
        "138",
        "0013",
        "8000",
    ),
    *("400", "0", "12", "-", " ", "\n", "\u200b", "\x07", "信", "击", "线", "烫", "\ufffd", "头晕三天", "龘"),
)
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=10).map("".join), min_size=1, max_size=12)
TITLES = st.text(st.sampled_from("高血压怎么办无如题。 \u3000a"), max_size=12)


def column(values: list[str]) -> Strings:
    return pa.array(values, pa.string())


def by_pattern(of: Strings, pattern: str) -> list[bool]:
    found: list[bool] = pc.match_substring_regex(of, pattern).to_pylist()
    return found


@given(TEXTS)
@settings(deadline=None, max_examples=400)
def test_every_advertisement_and_every_number_is_found(values: list[str]) -> None:
    tidy = cleaning.tidied(column(values))
    none = np.zeros(len(values), bool)
    empty = column([""] * len(values))
    options = Data(path="x", shortest_answer=0)
    columns = {"question": column(["头晕"] * len(values)), "answer": tidy.column}
    verdict = cleaning.judge(columns, options, none, tidy.like_advertising)
    advertises = by_pattern(tidy.column, cleaning.ADVERTISEMENT)
    filled = [bool(text) for text in tidy.column.to_pylist()]
    assert (verdict.reasons == cleaning.CODES["advertisement"]).tolist() == [
        found and full for found, full in zip(advertises, filled, strict=True)
    ]
    answers = column(["多喝水，早休息。"] * len(values))
    asked = cleaning.judge({"question": tidy.column, "answer": answers}, options, none, none)
    wanted = [
        bool(may and cleaning.personal_data(text))
        for may, text in zip(by_pattern(tidy.column, cleaning.PERSONAL), tidy.column.to_pylist(), strict=True)
    ]
    assert asked.personal.tolist() == wanted
    told = cleaning.judge({"question": answers, "answer": tidy.column}, options, none, none)
    assert told.personal[told.reasons == 0].tolist() == [
        found for found, reason in zip(wanted, told.reasons, strict=True) if reason == 0
    ]
    assert cleaning.tidied(empty).column.equals(empty)


@given(TEXTS)
@settings(deadline=None)
def test_code_points_that_are_handed_on_are_those_of_the_column(values: list[str]) -> None:
    tidy = cleaning.tidied(column(values))
    if tidy.whole is not None:
        once, again = folded(tidy.column, tidy.whole), folded(tidy.column)
        assert (once.codes.tolist(), once.starts.tolist()) == (again.codes.tolist(), again.starts.tolist())
        assert tidy.whole.codes.tolist() == [ord(char) for char in "".join(tidy.column.to_pylist())]


@given(st.lists(st.tuples(TITLES, TITLES, st.booleans()), min_size=1, max_size=12), st.integers(0, 3))
@settings(deadline=None, max_examples=400)
def test_titles_and_texts_are_put_together_as_they_are_row_by_row(
    rows: list[tuple[str, str, bool]], cut: int
) -> None:
    titles = [title for title, _, _ in rows]
    asks = [f"{ask}{title}{ask}" if within else ask for title, ask, within in rows]
    table = pa.table({"title": titles, "ask": asks, "answer": ["多喝水"] * len(rows)}).slice(cut)
    shape = shapes.Shape("toyhom", {"title": "title", "question": "ask", "answer": "answer"})
    made = shapes.canonical(table, shape)["question"].to_pylist()
    pairs = zip(table["title"].to_pylist(), table["ask"].to_pylist(), strict=True)
    assert made == [shapes._question(title.strip(), ask.strip()) for title, ask in pairs]


def test_what_arrow_takes_for_white_space_is_what_python_does() -> None:
    around = [f"{chr(code)}a{chr(code)}" for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    assert pc.utf8_trim_whitespace(column(around)).to_pylist() == [text.strip() for text in around]


def test_no_character_says_anything_where_the_folding_does_not_look() -> None:
    codes = (*range(0x40000, 0xE0000, 7), *range(0xF0000, 0x110000, 7))
    assert {unicodedata.category(chr(code))[0] for code in codes} == {"C"}
