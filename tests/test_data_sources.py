"""Files of every format and encoding come out as the rows that went in, and bad ones as one clear error."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as parquet

from drkun_tui.errors import DrkunError
from drkun_tui.training.data import encodings, formats, sources
from drkun_tui.training.data.summary import StoppedError
from drkun_tui.training.recipe import Data
from tests import data_files
from tests.data_files import as_csv, every_row, pairs, prepared, rows_of, toyhom, write_lines

ENCODINGS = ("utf-8", "utf-8-sig", "gb18030", "gbk", "gb2312", "utf-16", "utf-16-le", "utf-16-be")


def error_of(path: Path, folder: Path, **options: Any) -> DrkunError:
    with pytest.raises(DrkunError) as caught:
        prepared(path, folder, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert not folder.exists() or list(folder.iterdir()) == []
    return caught.value


def strings(path: Path) -> list[dict[str, str]]:
    file = sources.files(path)[0]
    file.look()
    return [row for batch in file.batches() for row in batch.table.to_pylist()]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_a_table_in_any_encoding(tmp_path: Path, encoding: str, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    wanted = pairs(30)
    cells = [list(wanted[0]), *([row["question"], row["answer"]] for row in wanted)]
    path.write_bytes(as_csv(cells, "\t" if suffix == ".tsv" else ",").encode(encoding))
    summary = prepared(path, tmp_path / "out")
    assert [{k: row[k] for k in ("question", "answer")} for row in every_row(tmp_path / "out")] == wanted
    (file,) = summary.files
    assert file.format == ("tsv" if suffix == ".tsv" else "csv")
    assert file.encoding == ("gb18030" if encoding.startswith("gb") else encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".data"])
@pytest.mark.parametrize("array", [False, True])
def test_json_under_any_suffix(tmp_path: Path, encoding: str, suffix: str, array: bool) -> None:
    path = tmp_path / f"data{suffix}"
    wanted = pairs(30)
    lines = [json.dumps(row, ensure_ascii=False) for row in wanted]
    text = json.dumps(wanted, ensure_ascii=False, indent=2) if array else "\n".join(lines)
    path.write_bytes(text.encode(encoding))
    summary = prepared(path, tmp_path / "out")
    assert [{k: row[k] for k in ("question", "answer")} for row in every_row(tmp_path / "out")] == wanted
    assert summary.files[0].format == ("json" if array else "jsonl")


@given(
    st.lists(
        st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=8, max_size=40),
        min_size=1,
    ),
    st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be"]),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_encoding_is_found_from_the_bytes(
    tmp_path: Path, texts: list[str], encoding: str, shift: int
) -> None:
    """Common characters, wherever the border of a block of bytes falls."""
    common = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分"
    # UTF-16 without a mark is known by its separators, which every data set has.
    text = (
        "ask\n"
        + "a" * shift
        + ",".join("".join(common[ord(char) % len(common)] for char in one) for one in texts)
    )
    path = tmp_path / "text"
    path.write_bytes(text.encode(encoding))
    found, _ = encodings.find(path)
    assert found == encoding
    with encodings.Utf8(path.open("rb"), found) as file:
        assert file.readall().decode("utf8") == text


@pytest.mark.parametrize("shift", range(4))
def test_a_character_across_the_border_of_two_blocks(tmp_path: Path, shift: int) -> None:
    text = "a" * shift + "头晕目眩" * 200_000
    for encoding in ("utf-8", "gb18030"):
        path = tmp_path / encoding
        path.write_bytes(text.encode(encoding))
        assert encodings.find(path)[0] == encoding
        with encodings.Utf8(path.open("rb"), encoding) as file:
            assert file.readall().decode("utf8") == text


def test_one_wrong_byte_far_behind_costs_one_row(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    good = toyhom(20_000).encode()
    assert len(good) > encodings.CHUNK
    broken = good.replace(answer := data_files.answer(19_990).encode(), b"\xff" + answer)
    path.write_bytes(broken)
    summary = prepared(path, tmp_path / "out", near_duplicates=False)
    assert summary.files[0].encoding == "utf-8"
    assert summary.dropped == {"mojibake": 1}
    (row,) = rows_of(tmp_path / "out", "dropped")
    assert row["row"] == 19_990


def test_parquet_with_nested_and_missing_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": pa.array([data_files.question(1), None, data_files.question(2)]),
            "answer": pa.array([data_files.answer(1), "没有问题的回答", None]).dictionary_encode(),
            "score": pa.array([1.5, float("nan"), None]),
            "tags": pa.array([["a", "b"], [], None]),
        }
    )
    parquet.write_table(table, tmp_path / "data.bin")
    rows = strings(tmp_path / "data.bin")
    assert [row["score"] for row in rows] == ["1.5", "", ""]
    assert [row["tags"] for row in rows] == ['["a", "b"]', "[]", ""]
    summary = prepared(tmp_path / "data.bin", tmp_path / "out")
    assert (summary.rows, summary.usable, summary.dropped) == (3, 1, {"empty": 2})


def test_json_with_nan_numbers_nesting_and_lone_surrogates(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"question": "血压150算高吗", "answer": NaN, "n": 3}\n'
        '{"question": "\\ud83d血压高怎么办呢", "answer": "少吃盐，多运动。", "n": {"a": [1]}}\n',
        "utf8",
    )
    rows = strings(path)
    assert [row["answer"] for row in rows] == ["", "少吃盐，多运动。"]
    assert [row["n"] for row in rows] == ["3", '{"a": [1]}']
    assert rows[1]["question"] == "?血压高怎么办呢"


def test_a_folder_with_everything_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for number, (name, encoding) in enumerate(
        [("IM_内科", "gb18030"), ("Surgical_外科", "utf-8"), ("Pediatric_儿科", "utf-16")]
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}5000-33000.csv").write_bytes(toyhom(40, number * 40).encode(encoding))
    write_lines(folder / "more.jsonl", pairs(10, 500))
    (folder / "README.md").write_text("# read me", "utf8")
    (folder / "dataset_infos.json").write_text('{"features": {"a": 1}}\n', "utf8")
    (folder / "nothing.csv").write_bytes(b"")
    (folder / ".hidden.csv").write_bytes(b"a,b\n1,2\n")
    summary = prepared(folder, tmp_path / "out")
    assert (summary.rows, summary.usable) == (130, 130)
    assert {file.path: (file.encoding, file.rows, file.shape, file.problem) for file in summary.files} == {
        "IM_内科/IM_内科5000-33000.csv": ("gb18030", 40, "toyhom", ""),
        "Pediatric_儿科/Pediatric_儿科5000-33000.csv": ("utf-16", 40, "toyhom", ""),
        "Surgical_外科/Surgical_外科5000-33000.csv": ("utf-8", 40, "toyhom", ""),
        "dataset_infos.json": ("utf-8", 0, "", "unknown_columns"),
        "more.jsonl": ("utf-8", 10, "pairs", ""),
        "nothing.csv": ("", 0, "", "empty"),
    }
    rows = every_row(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(130))
    assert {row["source"] for row in rows if row["row"] < 40} == {"IM_内科/IM_内科5000-33000.csv"}


def test_ragged_rows_are_counted_and_shown_where_they_stood(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    lines = toyhom(30_000).splitlines(keepends=True)
    lines.insert(1, "only one\r\n")
    lines.insert(4, "one,two,three,four,five\r\n")
    lines.insert(29_000, "late,late\r\n")
    lines.append("last\r\n")
    path.write_text("".join(lines), "utf8", newline="")
    summary = prepared(path, tmp_path / "out", near_duplicates=False)
    assert (summary.rows, summary.dropped) == (30_004, {"malformed": 4})
    dropped = {row["row"]: row["question"] for row in rows_of(tmp_path / "out", "dropped")}
    assert dropped == {0: "only one", 3: "one,two,three,four,five", 28_999: "late,late", 30_003: "last"}
    numbers = [row["row"] for row in every_row(tmp_path / "out")]
    assert sorted([*numbers, *dropped]) == list(range(30_004))


def test_quoted_line_breaks_belong_to_their_row(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    text = '第一行\n第二行，"引用"'
    path.write_bytes(as_csv([("question", "answer"), (text, "多喝水，多休息。")]).encode("gb18030"))
    prepared(path, tmp_path / "out")
    assert every_row(tmp_path / "out")[0]["question"] == text


def test_duplicate_column_names_keep_the_first(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("question,answer,answer\n头晕怎么办呢,多休息多喝水,另一个回答\n", "utf8")
    prepared(path, tmp_path / "out")
    assert every_row(tmp_path / "out")[0]["answer"] == "多休息多喝水"


# What cannot be read


def test_an_empty_file(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", b""),
        ("b.jsonl", b" \n\n"),
        ("c.csv", b"question,answer\n"),
        ("d.json", b"[]"),
    ):
        (tmp_path / name).write_bytes(content)
        assert error_of(tmp_path / name, tmp_path / "out").kind == "empty", name


@pytest.mark.parametrize("seed", range(8))
def test_a_binary_file(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(random.Random(seed).randbytes(100_000))
    assert error_of(path, tmp_path / "out").kind == "binary"


def test_archives_and_pictures_are_binary(tmp_path: Path) -> None:
    for name, begin in (
        ("a.csv", b"PK\x03\x04\x14\x00"),
        ("b.csv", b"\x89PNG\r\n\x1a\n\x00\x00"),
        ("c.csv", b"\x1f\x8b\x08\x00"),
    ):
        (tmp_path / name).write_bytes(begin + random.Random(0).randbytes(3000))
        assert error_of(tmp_path / name, tmp_path / "out").kind == "binary"


def test_one_column_and_unknown_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("文本\n头晕怎么办\n", "utf8")
    error = error_of(path, tmp_path / "out")
    assert (error.kind, "文本" in error.message, "--columns" in error.hint) == ("unknown_columns", True, True)
    path.write_text("foo,bar\n头晕怎么办,多休息多喝水\n", "utf8")
    assert "foo, bar" in error_of(path, tmp_path / "out").message
    mapped = prepared(path, tmp_path / "out", columns={"question": "foo", "answer": "bar"})
    assert (mapped.usable, mapped.files[0].shape) == (1, "mapped")


def test_a_mapping_that_names_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(2))
    assert error_of(path, tmp_path / "out", columns={"question": "nope"}).kind == "no_such_column"
    assert error_of(path, tmp_path / "out", columns={"asks": "question"}).kind == "no_such_role"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_line_without_end_is_refused_before_it_is_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = {"a.csv": b'question,answer\n"', "a.jsonl": b'{"question": "', "a.json": b'[{"question": "'}[name]
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(begin)
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    taken = []
    original = encodings.Utf8.readinto

    def counted(self: encodings.Utf8, buffer: memoryview) -> int:
        count = original(self, buffer)
        taken.append(count)
        return count

    monkeypatch.setattr(encodings.Utf8, "readinto", counted)
    assert error_of(path, tmp_path / "out").kind == "row_too_long"
    assert sum(taken) <= 4 * formats.LONGEST_ROW


def test_a_truncated_or_broken_array(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    text = json.dumps(pairs(3000), ensure_ascii=False)
    path.write_text(text[: len(text) // 2], "utf8")
    error = error_of(path, tmp_path / "out")
    assert error.kind == "truncated"
    path.write_text(text[:-1], "utf8")
    assert "3000" in error_of(path, tmp_path / "out").message
    path.write_text("[" + '{"question": "一" "answer": "二"},' * 40 + "]", "utf8")
    assert error_of(path, tmp_path / "out").kind == "bad_json"
    # More digits than Python reads, deeper than it goes.
    for value in ("1" * 5000, "[" * 100_000):
        path.write_text('[{"question": ' + value + "}, 1, 2, 3, 4, 5, 6, 7, 8, 9]", "utf8")
        assert error_of(path, tmp_path / "out").kind == "bad_json"


def test_lines_that_are_no_json_are_dropped_unless_all_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = [json.dumps(row, ensure_ascii=False) for row in pairs(5)]
    deep = '{"question": ' + "[" * 100_000
    path.write_text("\n".join([good[0], '{"question": ', "[1]", deep, *good[1:]]), "utf8")
    summary = prepared(path, tmp_path / "out")
    assert (summary.usable, summary.dropped) == (5, {"malformed": 3})
    assert [row["row"] for row in rows_of(tmp_path / "out", "dropped")] == [1, 2, 3]
    path.write_text('{\n "question": 1\n}\n', "utf8")
    assert error_of(path, tmp_path / "other").kind == "bad_json"


def test_broken_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"question": ["头晕"], "answer": ["休息"]}), path)
    path.write_bytes(path.read_bytes()[:-30])
    assert error_of(path, tmp_path / "out").kind == "bad_parquet"


def test_what_tells_of_a_folder_is_none_of_its_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "a.jsonl", pairs(5))
    for name in ("LICENSE.txt", "readme.txt", "requirements.txt"):
        (tmp_path / "data" / name).write_text("Copyright\n", "utf8")
    assert prepared(tmp_path / "data", tmp_path / "out").usable == 5
    # Named, it is looked at.
    assert error_of(tmp_path / "data" / "LICENSE.txt", tmp_path / "other").exit_code == 2


def test_nothing_there(tmp_path: Path) -> None:
    assert error_of(tmp_path / "nothing", tmp_path / "out").kind == "not_found"
    (tmp_path / "empty").mkdir()
    assert error_of(tmp_path / "empty", tmp_path / "out").kind == "no_files"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", pairs(2))
    path.chmod(0)
    assert error_of(path, tmp_path / "out").kind == "unreadable"


def test_a_file_that_vanishes_while_others_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_lines(folder / "a.jsonl", pairs(9000))
    last = write_lines(folder / "b.jsonl", pairs(10, 9000))

    from drkun_tui.training.data.dataset import prepare

    def report(_done: int, _total: int) -> None:
        last.unlink(missing_ok=True)

    with pytest.raises(DrkunError) as caught:
        prepare(Data(path=str(folder)), tmp_path / "out", 1, report, lambda: False)
    assert (caught.value.kind, "b.jsonl" in caught.value.message) == ("not_found", True)
    assert list((tmp_path / "out").iterdir()) == []


def test_stopping_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    from drkun_tui.training.data.dataset import prepare

    path = write_lines(tmp_path / "a.jsonl", pairs(30_000))
    seen: list[int] = []

    def report(done: int, _total: int) -> None:
        seen.append(done)

    with pytest.raises(StoppedError):
        prepare(Data(path=str(path)), tmp_path / "out", 1, report, lambda: len(seen) >= 2)
    assert 0 < seen[-1] < path.stat().st_size
    assert list((tmp_path / "out").iterdir()) == []


def test_a_hub_data_set_from_its_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    from drkun_tui.training.data.dataset import prepare

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repo = tmp_path / "repo"
    repo.mkdir()
    write_lines(repo / "train.jsonl", pairs(20))
    options = Data(hub=str(repo))
    summary = prepare(options, tmp_path / "out", 1, lambda _done, _total: None, lambda: False)
    assert (summary.usable, summary.files[0].format, summary.files[0].rows) == (20, "hub", 20)
    assert [row["question"] for row in every_row(tmp_path / "out")] == [r["question"] for r in pairs(20)]
    again = prepare(options, tmp_path / "out", 1, lambda _done, _total: None, lambda: False)
    assert again == summary
    with pytest.raises(DrkunError) as caught:
        wrong = Data(hub=str(tmp_path / "nothing"))
        prepare(wrong, tmp_path / "other", 1, lambda _done, _total: None, lambda: False)
    assert caught.value.kind == "hub_failed"
