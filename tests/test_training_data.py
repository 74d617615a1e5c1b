"""Data sets: read in every encoding and shape, cleaned, de-duplicated, split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drkun_tui.errors import DrkunError
from drkun_tui.training.recipe import Data

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet

from drkun_tui.training.data import dataset
from drkun_tui.training.data.dataset import DROPPED, HELD_OUT, TRAIN, prepare, read_rows
from drkun_tui.training.data.summary import StoppedError, Summary
from tests.test_pull import drkun as run_drkun

ROWS = [(f"第{n}个问题：肚子痛应该看什么科室？", f"这是第{n}个回答，建议到消化内科就诊。") for n in range(30)]


@pytest.fixture(autouse=True)
def chinese(home: Path) -> None:
    """The texts of the catalogue."""


def unheard(_done: int, _whole: int) -> None:
    """How far it is."""


def made(path: Path, folder: Path, **options: Any) -> Summary:
    folder.mkdir(exist_ok=True)
    given = Data(path=str(path), **({"held_out": 0.0, "near_duplicates": False} | options))
    return prepare(given, folder, 1, unheard, lambda: False)


def rows_of(folder: Path, name: str = TRAIN) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_rows(folder / name).to_pylist()
    return found


def csv_text(header: str = "ask,answer", rows: list[tuple[str, str]] = ROWS) -> str:
    return "\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]) + "\n"


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        *(("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("gb18030", "gb18030"), ("gbk", "gb18030")),
        *(("gb2312", "gb18030"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le")),
    ],
)
def test_a_table_in_every_encoding(tmp_path: Path, encoding: str, told: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_text().encode(encoding))
    summary = made(path, tmp_path / "out")
    assert (summary.rows, summary.usable, summary.files[0].encoding) == (30, 30, told)
    assert {(row["question"], row["answer"]) for row in rows_of(tmp_path / "out")} == set(ROWS)


def toyhom(folder: Path) -> Path:
    lines = [
        "department,title,ask,answer",
        '心血管科,高血压怎么办,我血压高已经三年了,"注意少盐，\n定期测血压。"',
        "神经科,头晕,无,先坐下休息并测量血压。",
        "消化科,胃痛,胃痛三天了,清淡饮食，必要时就诊。,多一列",
    ]
    path = folder / "内科.csv"
    path.write_bytes("\n".join(lines).encode("gb18030"))
    return path


def alpaca(folder: Path) -> Path:
    path = folder / "a.json"
    path.write_text(
        json.dumps([{"instruction": "头晕怎么办？", "input": "三天了", "output": "先坐下休息。"}] * 1)
    )
    return path


def sharegpt(folder: Path) -> Path:
    talk = [
        {"from": "system", "value": "你是医生"},
        *({"from": who, "value": text} for who, text in (("human", "咳嗽"), ("gpt", "多久了？"))),
        *({"from": who, "value": text} for who, text in (("human", "两天"), ("gpt", "多喝温水。"))),
    ]
    path = folder / "talk.json"
    path.write_text(json.dumps({"conversations": talk}) + "\n", "utf8")
    return path


def messages(folder: Path) -> Path:
    path = folder / "m.jsonl"
    talk = [
        {"role": "user", "content": "胃痛"},
        {"role": "assistant", "content": "<think>\n想\n</think>\n\n热敷上腹。"},
    ]
    path.write_text(json.dumps({"messages": talk}) + "\n{broken\n", "utf8")
    return path


def reasoning(folder: Path) -> Path:
    path = folder / "o1.parquet"
    table = pa.table({"Question": ["为何头痛？"], "Complex_CoT": ["先想原因"], "Response": ["可能是紧张。"]})
    pyarrow.parquet.write_table(table, path)
    return path


@pytest.mark.parametrize(
    ("make", "shape", "first"),
    [
        (toyhom, "toyhom", {"question": "高血压怎么办\n我血压高已经三年了", "department": "心血管科"}),
        (alpaca, "alpaca", {"question": "头晕怎么办？\n三天了", "answer": "先坐下休息。"}),
        (sharegpt, "talk", {"question": "两天", "system": "你是医生", "history": '[["咳嗽", "多久了？"]]'}),
        (messages, "talk", {"question": "胃痛", "reasoning": "想", "answer": "热敷上腹。"}),
        (reasoning, "reasoning", {"reasoning": "先想原因", "answer": "可能是紧张。"}),
    ],
    ids=["toyhom", "alpaca", "sharegpt", "messages", "reasoning"],
)
def test_every_shape(tmp_path: Path, make: Callable[[Path], Path], shape: str, first: dict[str, str]) -> None:
    summary = made(make(tmp_path), tmp_path / "out")
    row = rows_of(tmp_path / "out")[0]
    assert summary.files[0].shape == shape
    assert {name: row[name] for name in first} == first
    if shape == "toyhom":
        assert summary.dropped == {"malformed": 1}
        assert rows_of(tmp_path / "out")[1]["question"] == "头晕"
    if make is messages:
        assert summary.dropped == {"malformed": 1}


def test_a_folder_of_mixed_encodings_and_formats(tmp_path: Path) -> None:
    folder = tmp_path / "数据"
    (folder / "内科").mkdir(parents=True)
    (folder / "内科" / "a.csv").write_bytes(csv_text(rows=ROWS[:10]).encode("gbk"))
    (folder / "b.tsv").write_bytes("问题\t回答\n牙痛怎么办？\t温水漱口，看口腔科。\n".encode("utf-16"))
    (folder / "c.csv").write_bytes(b"\x00\x01\x02\xff" * 400)
    summary = made(folder, tmp_path / "out")
    assert summary.usable == 11
    told = {source.path: (source.encoding, source.problem) for source in summary.files}
    assert told["内科/a.csv"] == ("gb18030", "")
    assert told["b.tsv"] == ("utf-16", "")
    assert told["c.csv"][1] == "binary"


def test_columns_of_any_name_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(csv_text("eins,zwei"), "utf8")
    with pytest.raises(DrkunError) as caught:
        made(path, tmp_path / "out")
    assert (caught.value.kind, "eins, zwei" in caught.value.message) == ("columns_unknown", True)
    assert made(path, tmp_path / "out", columns={"question": "eins", "answer": "zwei"}).usable == 30
    with pytest.raises(DrkunError) as caught:
        made(path, tmp_path / "out", columns={"question": "drei", "answer": "zwei"})
    assert caught.value.kind == "column_missing"


CLEANED = [
    ("", "有回答没有问题的一行", "empty"),
    ("有问题没有回答的一行？", "", "empty"),
    ("胃痛怎么办？", "锟斤拷锟斤拷，请就诊", "mojibake"),
    ("皮肤痒怎么办？", "请加微信 kang12345 详细咨询", "advertisement"),
    ("脱发怎么办？", "详情请打 13812345678", "advertisement"),
    ("失眠怎么办？", "点击在线咨询，专家为您解答", "advertisement"),
    ("便秘怎么办？", "见 https://example.com/x", "advertisement"),
    ("腰痛怎么办？", "好", "too_short"),
    ("发热 怎么办？", "多喝水并且休息，必要时就诊。", None),
    ("发热怎么办", "另一个回答，内容并不相同。", "duplicate"),
    ("血压 160/100 mmHg 怎么办？", "舒张压 100、收缩压 160 偏高，2~3 天复测，急症请拨打 120。", None),
    ("吃多少合适？", "一般每日 0.25 到 0.5 克，每日 3 次，共 7-10 天，请遵医嘱。", None),
    ("手机 13912345678 求助", "请到附近的医院就诊，注意休息。", None),
]


def test_rows_are_dropped_for_the_reason_told_and_can_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        "".join(json.dumps({"question": q, "answer": a}, ensure_ascii=False) + "\n" for q, a, _ in CLEANED)
    )
    summary = made(path, tmp_path / "out")
    found = {(row["question"], row["answer"]): row["reason"] for row in rows_of(tmp_path / "out", DROPPED)}
    assert found == {(q, a): reason for q, a, reason in CLEANED if reason}
    assert summary.usable == sum(reason is None for *_, reason in CLEANED)
    assert summary.flagged == {"personal": 1}
    told = json.loads(run_drkun("data", "check", str(path), "--json").stdout)
    assert told["dropped"] == summary.dropped
    shown = run_drkun("data", "check", str(path), "--dropped", "mojibake").stdout
    assert "胃痛怎么办" in shown
    assert "脱发" not in shown


def test_questions_in_almost_the_same_words(tmp_path: Path) -> None:
    long = "最近一个月总是觉得头晕而且晚上睡不好觉，早上起来还会觉得恶心想吐，请问应该怎么办才好呢"
    rows = [
        (long, "请到神经内科就诊。"),
        (f"{long}啊", "注意休息，少看手机。"),
        ("胃痛三天", "清淡饮食，多休息。"),
    ]
    path = tmp_path / "x.csv"
    path.write_text(csv_text(rows=rows), "utf8")
    assert made(path, tmp_path / "a", near_duplicates=True).dropped == {"near_duplicate": 1}
    assert made(path, tmp_path / "b").dropped == {}


def test_the_split_depends_on_questions_and_not_on_places(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    rows = [(f"问题{n}：应该怎么办？", f"回答{n}，请到医院就诊。") for n in range(400)]
    path.write_text(csv_text(rows=rows), "utf8")
    other.write_text(
        csv_text(rows=[("新的问题，排在最前面？", "新的回答，请就诊。"), *reversed(rows)]), "utf8"
    )
    kept = []
    for number, file in enumerate((path, other)):
        folder = tmp_path / f"out{number}"
        summary = made(file, folder, held_out=0.1)
        kept.append({row["question"] for row in rows_of(folder, HELD_OUT)})
        train = {row["question"] for row in rows_of(folder)}
        assert not kept[-1] & train
        assert 20 <= summary.held_out <= 60
    assert kept[1] - kept[0] <= {"新的问题，排在最前面？"}
    assert made(path, tmp_path / "few", held_out=0.1, held_out_most=5).held_out == 5
    assert made(path, tmp_path / "part", rows=50).train == 50


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", b"", "empty_file"),
        ("a.csv", b"\x00\x01\x02\xff\xfe" * 100, "binary"),
        ("a.csv", b"only\n1\n2\n", "one_column"),
        ("a.json", b'[{"question": "a", "answer": "bcdef"}, {"quest', "cut_short"),
        ("a.csv", b"ask,answer\n,\n,\n", "no_rows"),
        ("a.csv", b'ask,answer\n"' + b"x" * (5 << 20) + b'","yyyyy"\n', "long_row"),
        ("a.jsonl", b'{"question": "' + b"x" * (17 << 20), "long_row"),
        ("a.bin", b"x", "missing"),
    ],
    ids=["empty", "binary", "one column", "cut short", "all dropped", "long row", "long line", "missing"],
)
def test_bad_files_get_one_clear_line(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if kind == "missing":
        path.unlink()
    with pytest.raises(DrkunError) as caught:
        made(path, tmp_path / "out")
    assert caught.value.kind == kind
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_prepared_is_taken_again_until_something_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text(), "utf8")
    first = made(path, tmp_path / "out")
    (tmp_path / "out" / TRAIN).write_bytes(b"looked at, and not read again")
    assert made(path, tmp_path / "out") == first
    path.write_text(csv_text(rows=ROWS[:5]), "utf8")
    second = made(path, tmp_path / "out")
    assert (second.rows, len(rows_of(tmp_path / "out"))) == (5, 5)
    assert second.fingerprint != first.fingerprint


def test_stopped_in_the_middle_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text(), "utf8")
    (tmp_path / "out").mkdir()
    with pytest.raises(StoppedError):
        prepare(Data(path=str(path)), tmp_path / "out", 1, unheard, lambda: True)
    assert dataset.read_summary(tmp_path / "out") is None
    assert list((tmp_path / "out").iterdir()) == []


def test_the_dialogues_that_come_with_the_program(tmp_path: Path) -> None:
    summary = made(Path("demo"), tmp_path / "out", held_out=0.1)
    assert (summary.rows, summary.usable, summary.dropped) == (320, 320, {})
    assert all(row["reasoning"] and row["department"] for row in rows_of(tmp_path / "out"))
