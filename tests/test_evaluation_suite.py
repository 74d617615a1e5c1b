"""Suites as people have them, good and bad: which questions are asked, and why others are not."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sacrebleu")

import pyarrow as pa

from drkun_tui.errors import DrkunError
from drkun_tui.evaluation import suite
from drkun_tui.evaluation.faults import StopRequested
from drkun_tui.evaluation.overlap import Trained
from drkun_tui.evaluation.protocol import Item, Order, Prepared
from drkun_tui.settings import Settings

ROWS: list[dict[str, Any]] = [
    {"question": "最近总是头晕，应该怎么办？", "answer": "先休息。", "department": "神经内科"},
    {"question": "胃痛三天了", "answer": "做胃镜。", "department": "消化内科"},
    {"question": "突然胸口剧痛，出冷汗，左臂发麻", "answer": "马上打120。", "department": "心血管内科"},
]


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf8")
    return path


def prepared(
    path: Path, folder: Path, trained: Trained | None = None, **order: Any
) -> tuple[Prepared, list[Item]]:
    asked = Order(suite=str(path), settings=Settings(), **order)
    told = suite.prepare(asked, path, path.name, folder, trained, lambda: False)
    return told, list(suite.items(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation's."""
    path = tmp_path / "evaluation"
    path.mkdir()
    return path


def refused(path: Path, folder: Path, **order: Any) -> DrkunError:
    with pytest.raises(DrkunError) as raised:
        prepared(path, folder, **order)
    assert raised.value.exit_code == 2
    assert "\n" not in raised.value.message
    assert not (folder / suite.QUESTIONS).exists()
    return raised.value


# What is asked


def test_questions_with_references(tmp_path: Path, folder: Path) -> None:
    told, items = prepared(write_lines(tmp_path / "s.jsonl", ROWS), folder)
    assert (told.rows, told.usable, told.questions, told.dropped) == (3, 3, 3, {})
    assert told.overlap is None
    assert [(item.question, item.expected, item.task) for item in items] == [
        (row["question"], row["answer"], "answer") for row in ROWS
    ]
    assert [item.number for item in items] == [0, 1, 2]


def test_dialogues_keep_what_came_before(tmp_path: Path, folder: Path) -> None:
    turns = [("user", "头晕"), ("assistant", "多久了？"), ("user", "三天"), ("assistant", "先休息。")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    _, (item,) = prepared(write_lines(tmp_path / "s.jsonl", [row]), folder)
    assert item.history == [("头晕", "多久了？")]
    assert (item.question, item.expected) == ("三天", "先休息。")


def test_reasoning_in_the_reference_is_kept_apart(tmp_path: Path, folder: Path) -> None:
    row = {"question": "头晕", "answer": "<think>想一想</think>先休息。"}
    _, (item,) = prepared(write_lines(tmp_path / "s.jsonl", [row]), folder)
    assert (item.reasoning, item.expected) == ("想一想", "先休息。")


CMB: dict[str, Any] = {
    "exam_type": "医师考试",
    "question": "治疗肝性脑病的措施正确的是",
    "answer": "B",
    "question_type": "单项选择题",
    "option": {"A": "胆固醇", "B": "白蛋白", "C": "", "D": "脂肪"},
}
MEDQA: dict[str, Any] = {
    "question": "Which organ makes bile?",
    "answer": "Liver",
    "options": {"A": "Heart", "B": "Liver", "C": "Lung", "D": "Skin"},
    "meta_info": "step1",
    "answer_idx": "B",
}


def test_cmb_as_a_json_array(tmp_path: Path, folder: Path) -> None:
    several = CMB | {"question_type": "多项选择题", "answer": "BA"}
    path = tmp_path / "CMB-val.json"
    path.write_text(json.dumps([CMB, several], ensure_ascii=False, indent=1), "utf8")
    _, (one, more) = prepared(path, folder)
    assert (one.task, one.expected) == ("choice", "B")
    assert one.options == {"A": "胆固醇", "B": "白蛋白", "D": "脂肪"}
    assert "B. 白蛋白" in one.question and "唯一" in one.question
    assert more.expected == "AB"
    assert "所有" in more.question


def test_medqa_as_json_lines(tmp_path: Path, folder: Path) -> None:
    without = {key: value for key, value in MEDQA.items() if key != "answer_idx"}
    _, (one, other) = prepared(write_lines(tmp_path / "test.jsonl", [MEDQA, without]), folder)
    assert one.expected == other.expected == "B"
    assert "Answer:" in one.question


def test_cmexam_as_csv(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "CMExam.csv"
    with path.open("w", encoding="utf8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Question", "Options", "Answer", "Explanation"])
        rows.writerow(["下列属于肾毒性的是", "A 庆大霉素\nB 青霉素\nC 红霉素", "A", "氨基糖苷类"])
        rows.writerow(["下列正确的是", "A 甲\nB 乙\nC 丙\nD 丁\nE 戊", "ACD", ""])
    _, (one, more) = prepared(path, folder)
    assert one.options == {"A": "庆大霉素", "B": "青霉素", "C": "红霉素"}
    assert (one.expected, more.expected) == ("A", "ACD")


def test_cmmlu_as_csv_in_gb18030(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "anatomy.csv"
    text = ",Question,A,B,C,D,Answer\n0,心脏位于,胸腔,腹腔,颅腔,盆腔,A\n1,肝位于,胸腔,腹腔,颅腔,盆腔,B\n"
    path.write_bytes(text.encode("gb18030"))
    _, (one, other) = prepared(path, folder)
    assert one.options == {"A": "胸腔", "B": "腹腔", "C": "颅腔", "D": "盆腔"}
    assert (one.expected, other.expected) == ("A", "B")


def test_departments_of_toyhoms_rows(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "内科.csv"
    lines = [("department", "title", "ask", "answer"), ("心血管科", "高血压", "能吃党参吗？", "可以。")]
    lines += [("消化科", "胃痛", "饭后胃痛", "做胃镜。"), ("", "牙疼", "牙疼", "看牙。")]
    path.write_bytes("\n".join(map(",".join, lines)).encode("gb18030"))
    told, (one, other) = prepared(path, folder, task="department")
    assert told.dropped == {"no_department": 1}
    assert (one.task, one.expected, other.expected) == ("department", "心血管科", "消化科")
    assert list(one.options) == ["心血管科", "消化科"]
    assert "高血压" in one.question and "心血管科、消化科" in one.question


def test_departments_are_few_and_more_than_one(tmp_path: Path, folder: Path) -> None:
    same = [row | {"department": "内科"} for row in ROWS]
    assert (
        refused(write_lines(tmp_path / "s.jsonl", same), folder, task="department").kind == "no_departments"
    )
    many = [ROWS[0] | {"department": f"科{number}"} for number in range(300)]
    assert (
        refused(write_lines(tmp_path / "m.jsonl", many), folder, task="department").kind == "no_departments"
    )


def test_a_folder_of_suites(tmp_path: Path, folder: Path) -> None:
    made = tmp_path / "suites"
    made.mkdir()
    write_lines(made / "a.jsonl", ROWS)
    write_lines(made / "b.jsonl", [MEDQA])
    (made / "note.txt").write_text("about these questions\nnothing more", "utf8")
    told, items = prepared(made, folder)
    assert [item.task for item in items] == ["answer"] * 3 + ["choice"]
    assert [item.number for item in items] == [0, 1, 2, 3]
    assert told.suite == "suites"


# How many


def test_a_limit_draws_the_same_questions_wherever_they_stand(tmp_path: Path, folder: Path) -> None:
    rows = [{"question": f"问题{number}？", "answer": f"回答{number}"} for number in range(500)]
    told, items = prepared(write_lines(tmp_path / "s.jsonl", rows), folder, limit=40)
    assert (told.rows, told.usable, told.questions) == (500, 500, 40)
    numbers = [item.number for item in items]
    assert numbers == sorted(set(numbers)) and len(numbers) == 40
    # From everywhere, not the first ones.
    assert max(numbers) > 400
    again, others = prepared(write_lines(tmp_path / "r.jsonl", rows[::-1]), folder, limit=40)
    assert {item.question for item in others} == {item.question for item in items}
    assert again.questions == 40


def test_a_limit_counts_the_same_question_as_often_as_it_stands(tmp_path: Path, folder: Path) -> None:
    told, items = prepared(write_lines(tmp_path / "s.jsonl", [ROWS[0]] * 50), folder, limit=7)
    assert (told.usable, told.questions, len(items)) == (50, 7, 7)


def test_the_fingerprint_is_of_the_questions(tmp_path: Path, folder: Path) -> None:
    one, _ = prepared(write_lines(tmp_path / "a.jsonl", ROWS), folder)
    same, _ = prepared(write_lines(tmp_path / "b.jsonl", ROWS), folder)
    other, _ = prepared(write_lines(tmp_path / "c.jsonl", [*ROWS[:2], ROWS[2] | {"answer": "别的"}]), folder)
    assert one.fingerprint == same.fingerprint != other.fingerprint


MEMORY = """
    import json, resource, sys
    from pathlib import Path
    from drkun_tui.evaluation import suite
    from drkun_tui.evaluation.protocol import Order
    from drkun_tui.settings import Settings
    path, folder, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    order = Order(suite=str(path), limit=limit, settings=Settings())
    told = suite.prepare(order, path, path.name, folder, None, lambda: False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"questions": told.questions, "usable": told.usable, "peak": peak}))
"""


@pytest.mark.parametrize("limit", [0, 1000])
def test_memory_does_not_grow_with_the_suite(tmp_path: Path, folder: Path, limit: int) -> None:
    """Ten times the questions, and no more than the batches that are in work."""
    if sys.platform == "win32":
        pytest.skip("no resource module")
    peaks = []
    for count in (4_000, 40_000):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w", encoding="utf8") as file:
            for number in range(count):
                file.write(f'{{"question": "第{number}个问题，头晕？", "answer": "{"先休息。" * 20}"}}\n')
        command = [sys.executable, "-c", textwrap.dedent(MEMORY), str(path), str(folder), str(limit)]
        told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        assert (told["usable"], told["questions"]) == (count, min(limit, count) if limit else count)
        peaks.append(told["peak"])
    assert peaks[1] - peaks[0] < 24 * 2**20


# What cannot be asked


def test_rows_with_missing_fields_are_counted_by_reason(tmp_path: Path, folder: Path) -> None:
    rows = [ROWS[0], {"question": "只有问题"}, {"answer": "只有答案"}, {}, {"question": " ", "answer": "空"}]
    path = write_lines(tmp_path / "s.jsonl", rows)
    with path.open("a", encoding="utf8") as file:
        file.write("这不是JSON\n[1]\n")
    told, items = prepared(path, folder)
    assert told.dropped == {"malformed": 2, "no_answer": 1, "no_question": 3}
    assert (told.rows, told.usable, len(items)) == (7, 1, 1)


def test_wrong_letters_are_no_questions(tmp_path: Path, folder: Path) -> None:
    rows = [CMB, CMB | {"answer": "F"}, CMB | {"answer": "AC"}, CMB | {"answer": ""}, CMB | {"option": {}}]
    rows += [CMB | {"question": ""}, CMB | {"option": {"A": "一"}}, CMB | {"answer": None}]
    told, items = prepared(write_lines(tmp_path / "s.jsonl", rows), folder)
    assert told.dropped == {"no_answer": 2, "no_options": 2, "no_question": 1, "wrong_letter": 2}
    assert len(items) == 1


def test_nothing_that_can_be_asked(tmp_path: Path, folder: Path) -> None:
    error = refused(write_lines(tmp_path / "s.jsonl", [CMB | {"answer": "F"}] * 3), folder)
    assert error.kind == "no_questions"
    assert "3" in error.message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (bytes(range(256)) * 40, "binary"),
        (b"PAR1 and nothing more", "bad_parquet"),
        (b'{"text": "no question here"}\n', "unknown_columns"),
        (b"[1, 2, 3]", None),
        (b"{not json}\n", "bad_json"),
    ],
)
def test_files_that_are_no_suites(tmp_path: Path, folder: Path, content: bytes, kind: str | None) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    error = refused(path, folder)
    assert kind is None or error.kind == kind


def test_a_file_that_is_not_there(tmp_path: Path, folder: Path) -> None:
    assert refused(tmp_path / "none.jsonl", folder).kind == "not_found"


def test_held_out_rows_that_are_damaged(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "held_out.arrow"
    path.write_bytes(b"no arrow")
    assert refused(path, folder).kind == "unreadable_suite"


def test_it_can_be_stopped(tmp_path: Path, folder: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", ROWS)
    order = Order(suite=str(path), settings=Settings())
    with pytest.raises(StopRequested):
        suite.prepare(order, path, path.name, folder, None, lambda: True)
    assert not (folder / suite.QUESTIONS).exists()


# Overlap with what was trained on


def trained_on(path: Path, questions: list[str]) -> Trained:
    table = pa.table({"question": questions, "answer": ["。"] * len(questions)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return Trained(path)


LONG = "我最近三个月总是在早上起床的时候感到头晕，站起来以后会好一点，请问这是什么原因，需要做什么检查？"


def test_questions_that_were_trained_on_are_found(tmp_path: Path, folder: Path) -> None:
    trained = trained_on(tmp_path / "train.arrow", ["胃痛三天了。", "失眠", LONG, "牙疼", "耳鸣"])
    rows = [
        *ROWS,
        {"question": LONG.replace("请问", ""), "answer": "查血压。"},
        {"question": "头痛", "answer": "休息"},
    ]
    told, items = prepared(write_lines(tmp_path / "s.jsonl", rows), folder, trained)
    assert [item.seen for item in items] == ["", "same", "", "near", ""]
    assert told.overlap is not None
    assert (told.overlap.rows, told.overlap.same, told.overlap.near) == (5, 1, 1)


def test_nothing_in_common(tmp_path: Path, folder: Path) -> None:
    """Also not where questions of the suite are alike among themselves."""
    trained = trained_on(tmp_path / "train.arrow", ["失眠"])
    rows = [{"question": LONG, "answer": "一"}, {"question": LONG.replace("请问", ""), "answer": "二"}]
    told, _ = prepared(write_lines(tmp_path / "s.jsonl", rows), folder, trained)
    assert told.overlap is not None
    assert (told.overlap.same, told.overlap.near) == (0, 0)


def test_nothing_trained_on_is_nothing_in_common(tmp_path: Path) -> None:
    assert trained_on(tmp_path / "train.arrow", []).seen(["头晕", LONG]) == ["", ""]
