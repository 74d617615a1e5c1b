"""What repeats is found whatever way it is cut, the split stays put, and a folder is whole or nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import numpy as np
import pyarrow as pa

from drkun_tui.errors import DrkunError
from drkun_tui.training.data import duplicates, sources
from drkun_tui.training.data.dataset import check
from drkun_tui.training.data.reading import COLUMNS
from drkun_tui.training.data.splitting import EXPLAINED_COLUMNS
from drkun_tui.training.data.text import Texts, folded
from drkun_tui.training.recipe import Data
from tests.conftest import wait_until
from tests.data_files import answer, every_row, pairs, prepared, question, rows_of, write_lines

CHINESE = st.text(st.sampled_from("头晕胃痛发热咳嗽三天了怎么办，。？ aA１1"), max_size=60)


def texts(values: list[str]) -> Texts:
    return folded(pa.array(values, pa.string()))


def slow_jaccard(one: str, other: str) -> float:
    """By the book."""

    def grams(text: str) -> set[str]:
        edged = f"\0\0{text}\0\0"
        return {edged[n : n + 3] for n in range(len(edged) - 2)} - {"\0\0\0"}

    ones, others = grams(one), grams(other)
    return len(ones & others) / len(ones | others) if ones | others else 0.0


def plain(values: list[str]) -> list[str]:
    made = texts(values)
    return [
        "".join(map(chr, made.codes[begin:end]))
        for begin, end in zip(made.starts[:-1], made.starts[1:], strict=True)
    ]


def test_folding() -> None:
    values = ["ＡＢc， d!", "Ⅱ度 ①", "38℃", "", "①②", "Straße", "e\u0301te\u0301", "头晕？\n怎么办", "👍"]
    assert plain(values) == ["abcd", "ii度1", "38c", "", "12", "strasse", "étés"[:3], "头晕怎么办", ""]


@given(st.lists(CHINESE, max_size=20))
@settings(deadline=None)
def test_a_key_depends_on_the_folded_text_alone(values: list[str]) -> None:
    keys, words = duplicates.keys(texts(values)), plain(values)
    assert len({(str(key), word) for key, word in zip(keys, words, strict=True)}) == len(set(words))
    assert len(set(keys.tolist())) == len(set(words))
    alone = [duplicates.keys(texts([value]))[0] for value in values]
    assert keys.tolist() == alone


@given(st.lists(st.tuples(CHINESE, CHINESE), max_size=20))
@settings(deadline=None)
def test_the_jaccard_index_is_that_of_the_book(values: list[tuple[str, str]]) -> None:
    ones, others = [one for one, _ in values], [other for _, other in values]
    found = duplicates.jaccard(texts(ones), texts(others))
    wanted = [slow_jaccard(*pair) for pair in zip(plain(ones), plain(others), strict=True)]
    assert found.tolist() == pytest.approx(wanted)


@given(st.lists(CHINESE, min_size=1, max_size=30), st.integers(1, 29))
@settings(deadline=None)
def test_signatures_do_not_depend_on_the_batch(values: list[str], cut: int) -> None:
    whole = duplicates.signatures(texts(values))
    parts = [duplicates.signatures(texts(part)) for part in (values[:cut], values[cut:]) if part]
    assert (whole == np.concatenate(parts)).all()


def test_equal_bins_estimate_the_index() -> None:
    ones = [question(n) * 2 for n in range(0, 3000, 3)]
    others = [text[: 20 + n % 60] + question(n + 7) for n, text in enumerate(ones)]
    equal = (duplicates.signatures(texts(ones)) == duplicates.signatures(texts(others))).mean(axis=1)
    wanted = duplicates.jaccard(texts(ones), texts(others))
    assert abs(float((equal - wanted).mean())) < 0.03
    assert float(np.abs(equal - wanted).mean()) < 0.12


@given(st.lists(CHINESE, max_size=40), st.integers(0, 40))
@settings(deadline=None, max_examples=50)
def test_near_duplicates_are_real_and_rows_behind_change_nothing(values: list[str], cut: int) -> None:
    def found(some: list[str]) -> dict[int, int]:
        words = pa.array(some, pa.string())
        rows, first = duplicates.near(
            duplicates.signatures(folded(words)), lambda rows: folded(words.take(pa.array(rows)))
        )
        return dict(zip(rows.tolist(), first.tolist(), strict=True))

    whole, words = found(values), plain(values)
    for row, first in whole.items():
        assert first < row
        assert slow_jaccard(words[row], words[first]) >= duplicates.SAME
    assert found(values[:cut]) == {row: first for row, first in whole.items() if row < cut}


def test_rows_from_known_on_do_not_hide_those_before_from_each_other() -> None:
    """All meet in every band; the first one there says something else, and so does the one before."""
    values = pa.array(["头晕三天了怎么办", "牙疼要不要看医生", "失眠", "牙疼要不要看医生"], pa.string())
    signatures = np.repeat(duplicates.signatures(folded(values))[:1], len(values), axis=0)
    rows, first = duplicates.near(signatures, lambda rows: folded(values.take(pa.array(rows))), known=2)
    assert (rows.tolist(), first.tolist()) == ([3], [1])


def test_almost_all_near_duplicates_are_found(tmp_path: Path) -> None:
    rows = []
    for number in range(2000):
        long = question(number) + question(number * 13 + 5)
        rows += [
            {"question": long, "answer": answer(number)},
            {"question": f"请问{long}", "answer": answer(number)},
        ]
    summary = prepared(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert summary.dropped.keys() == {"near_duplicate"}
    assert 1980 <= summary.dropped["near_duplicate"] <= 2000
    for row in rows_of(tmp_path / "out", "dropped")[:50]:
        assert int(row["detail"]) == row["row"] - 1


def test_one_word_makes_another_question(tmp_path: Path) -> None:
    rows = [
        {"question": f"{what}应该挂哪个科，平时要注意什么？", "answer": answer(1)}
        for what in ("头痛", "胃痛", "牙痛", "腰痛")
    ]
    assert prepared(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out").dropped == {}


def test_exact_duplicates(tmp_path: Path) -> None:
    asked = ["头晕，怎么办？", "头晕怎么办", "头晕 怎么办!", "头晕怎么治", "ＡＢＣ指标高", "abc指标高"]
    rows = [{"question": text, "answer": answer(n)} for n, text in enumerate(asked)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    summary = prepared(path, tmp_path / "out", near_duplicates=False)
    assert summary.dropped == {"duplicate": 3}
    details = {row["row"]: row["detail"] for row in rows_of(tmp_path / "out", "dropped")}
    assert details == {1: "0", 2: "0", 5: "4"}


def test_a_dropped_row_is_nobodys_original(tmp_path: Path) -> None:
    """The second row repeats the first one, which is empty and gone."""
    rows = [{"question": question(1), "answer": ""}, {"question": question(1), "answer": answer(1)}]
    summary = prepared(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert (summary.usable, summary.dropped) == (1, {"empty": 1})


def test_the_same_question_after_another_beginning_is_another_one(tmp_path: Path) -> None:
    def dialogue(begin: str) -> dict[str, object]:
        said = [
            ("user", begin),
            ("assistant", "请说得详细一些"),
            ("user", question(1)),
            ("assistant", answer(1)),
        ]
        return {"messages": [{"role": role, "content": text} for role, text in said]}

    rows = [
        dialogue("我是一名孕妇，想问问题"),
        dialogue("我父亲今年八十岁，身体不好"),
        dialogue("我是一名孕妇，想问问题"),
    ]
    summary = prepared(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert summary.dropped == {"duplicate": 1}


# The split


def held_out(folder: Path) -> set[str]:
    return {row["question"] for row in rows_of(folder, "held_out")}


def test_every_row_is_in_one_place(tmp_path: Path) -> None:
    rows = pairs(3000) + pairs(100) + [{"question": "", "answer": "x"}]
    summary = prepared(
        write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out", held_out=0.1, held_out_most=500
    )
    names = ("train", "held_out", "dropped")
    counts = [len(rows_of(tmp_path / "out", name)) for name in names]
    assert counts == [summary.train, summary.held_out, sum(summary.dropped.values())]
    numbers = sorted(row["row"] for name in names for row in rows_of(tmp_path / "out", name))
    assert numbers == list(range(len(rows)))
    assert 0.08 < summary.held_out / summary.usable < 0.12
    for name in names:
        with pa.memory_map(str(tmp_path / "out" / f"{name}.arrow")) as file:
            wanted = EXPLAINED_COLUMNS if name == "dropped" else COLUMNS
            assert pa.ipc.open_stream(file).schema == wanted


def test_rows_that_are_added_move_no_other_row_out_of_training(tmp_path: Path) -> None:
    before = write_lines(tmp_path / "before.jsonl", pairs(2000))
    after = write_lines(tmp_path / "after.jsonl", pairs(500, 5000) + pairs(2000) + pairs(500, 9000))
    for most in (1000, 30):
        options: dict[str, Any] = {"held_out": 0.05, "held_out_most": most, "near_duplicates": False}
        prepared(before, tmp_path / f"b{most}", **options)
        prepared(after, tmp_path / f"a{most}", **options)
        trained = {row["question"] for row in rows_of(tmp_path / f"b{most}", "train")}
        assert held_out(tmp_path / f"a{most}") & trained == set()
        assert 0 < len(held_out(tmp_path / f"a{most}")) <= most
    assert held_out(tmp_path / "b1000") <= held_out(tmp_path / "a1000")


def test_the_seed_decides_who_is_held_out(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(2000))
    for folder, seed in (("one", 1), ("again", 1), ("two", 2)):
        prepared(path, tmp_path / folder, seed=seed)
    assert held_out(tmp_path / "one") == held_out(tmp_path / "again")
    assert held_out(tmp_path / "one") != held_out(tmp_path / "two")


@pytest.mark.parametrize("options", [{"held_out": 0.0}, {"held_out_most": 0}])
def test_nothing_held_out(tmp_path: Path, options: dict[str, Any]) -> None:
    summary = prepared(write_lines(tmp_path / "a.jsonl", pairs(200)), tmp_path / "out", **options)
    assert (summary.train, summary.held_out) == (200, 0)


def test_only_so_many_rows(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(2000))
    summary = prepared(path, tmp_path / "out", rows=300)
    assert (summary.usable, summary.train + summary.held_out, summary.unused) == (2000, 300, 1700)
    numbers = [row["row"] for row in every_row(tmp_path / "out")]
    # Drawn from everywhere, and in the order of the file.
    assert numbers == sorted(numbers)
    assert 800 < np.median(numbers) < 1200


# The folder


def test_the_result_does_not_depend_on_how_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(3000) + pairs(50))
    prepared(path, tmp_path / "one")
    monkeypatch.setattr(sources, "ROWS_AT_ONCE", 37)
    prepared(path, tmp_path / "two")
    for name in ("train", "held_out", "dropped"):
        assert rows_of(tmp_path / "one", name) == rows_of(tmp_path / "two", name)


def test_what_is_there_is_taken_until_something_changes(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(100))
    first = prepared(path, tmp_path / "out")
    made = {file.name: file.stat().st_ino for file in (tmp_path / "out").iterdir()}
    assert made.keys() == {f"{name}.arrow" for name in ("train", "held_out", "dropped", "flagged")} | {
        "summary.json"
    }
    assert prepared(path, tmp_path / "out") == first
    assert {file.name: file.stat().st_ino for file in (tmp_path / "out").iterdir()} == made
    os.utime(path, ns=(1, 1))
    touched = prepared(path, tmp_path / "out")
    assert (touched.fingerprint, touched.inputs != first.inputs) == (first.fingerprint, True)
    assert prepared(path, tmp_path / "out", shortest_answer=5).fingerprint != first.fingerprint
    write_lines(path, pairs(101))
    changed = prepared(path, tmp_path / "out")
    assert (changed.rows, changed.fingerprint != first.fingerprint) == (101, True)
    (tmp_path / "out" / "train.arrow").unlink()
    assert prepared(path, tmp_path / "out") == changed
    assert (tmp_path / "out" / "train.arrow").exists()


def test_a_torn_summary_counts_for_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(100))
    first = prepared(path, tmp_path / "out")
    (tmp_path / "out" / "summary.json").write_text('{"rows": 1', "utf8")
    assert prepared(path, tmp_path / "out") == first
    assert json.loads((tmp_path / "out" / "summary.json").read_text("utf8"))["rows"] == 100


def test_no_rows_is_an_error_that_can_be_looked_into(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": question(n), "answer": "嗯"} for n in range(5)])
    for _ in range(2):
        with pytest.raises(DrkunError) as caught:
            prepared(path, tmp_path / "out")
        assert (caught.value.kind, caught.value.exit_code) == ("no_rows", 2)
        assert "回答过短 5" in caught.value.message
    summary = check(Data(path=str(path)), tmp_path / "out", 1, lambda _done, _total: None, lambda: False)
    assert (summary.usable, summary.dropped) == (0, {"too_short": 5})
    assert len(rows_of(tmp_path / "out", "dropped")) == 5


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(10))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DrkunError) as caught:
        prepared(path, tmp_path / "file" / "out")
    assert caught.value.kind == "unwritable"


def test_a_killed_preparation_leaves_nothing_that_counts(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(60_000))
    out = tmp_path / "out"
    code = f"""
from pathlib import Path
from tests.data_files import prepared
prepared(Path({str(path)!r}), Path({str(out)!r}))
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    wait_until(lambda: any(file.stat().st_size > 1000 for file in out.glob(".unfinished/rows.arrow")))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (out / "summary.json").exists()
    summary = prepared(path, out)
    assert summary.rows == 60_000
    assert not (out / ".unfinished").exists()


def test_the_demonstration(tmp_path: Path) -> None:
    summary = check(Data(path="demo"), tmp_path, 1, lambda _done, _total: None, lambda: False)
    assert 240 <= summary.rows <= 400
    assert (summary.dropped, summary.flagged) == ({}, {})
    assert summary.held_out > 0
    rows = every_row(tmp_path)
    assert all(60 <= len(row["answer"]) <= 160 and 30 <= len(row["reasoning"]) <= 80 for row in rows)
    assert all(row["department"] for row in rows)
    assert len({row["answer"] for row in rows}) == len(rows)
