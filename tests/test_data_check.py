"""``drkun data check`` as people and scripts run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

pytest.importorskip("pyarrow")

from drkun_tui import cli
from drkun_tui.training.data.summary import FLAGS, REASONS
from tests.data_files import answer, pairs, question, toyhom, write_lines


def check(*words: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drkun_tui", "data", "check", str(path), *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "zh_CN.UTF-8", **environment}
    )


def told(*words: str, path: Path) -> dict[str, Any]:
    done = check("--json", *words, path=path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Fifty good rows, two that repeat the first ones, and one with an advertisement and an escape."""
    path = tmp_path / "问诊.txt"
    text = toyhom(50) + toyhom(2).partition("\n")[2]
    text += f"骨科,另一个标题,{question(99)},\x1b[31m请加微信 abc12345 咨询\r\n"
    path.write_bytes(text.encode("gb18030"))
    return path


def test_the_object(table: Path) -> None:
    found = told(path=table)
    assert {name: found[name] for name in ("rows", "usable", "dropped", "format", "encoding", "shape")} == {
        "rows": 53,
        "usable": 50,
        "dropped": {"advertisement": 1, "duplicate": 2},
        "format": "csv",
        "encoding": "gb18030",
        "shape": "toyhom",
    }
    assert found["columns"] == {
        "question": "ask",
        "answer": "answer",
        "department": "department",
        "title": "title",
    }
    assert found["train"] + found["held_out"] == 50
    assert (len(found["preview"]), found["preview"][0]["source"]) == (3, table.name)
    assert found["flagged"] == {}
    assert [file["rows"] for file in found["files"]] == [53]
    assert sum(found["lengths"]["answer"]["histogram"]) == 50
    assert found["lengths"]["answer"]["most"] >= found["lengths"]["answer"]["median"] > 10


def test_the_table_lines_up(table: Path) -> None:
    done = check(path=table)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    head, row = lines[:2]
    assert row.startswith("问诊.txt")
    for title, text in (("格式", "csv"), ("编码", "gb18030"), ("结构", "toyhom")):
        assert cell_len(head.partition(title)[0]) == cell_len(row.partition(text)[0])
    assert any("重复" in line and line.endswith("duplicate") for line in lines)
    assert "\x1b" not in done.stdout


def test_dropped_rows_are_listed_and_harmless(table: Path) -> None:
    done = check("--show", "advertisement", path=table)
    assert "请加微信 abc12345 咨询" in done.stdout
    assert "\x1b" not in done.stdout
    done = check("--show", "duplicate", "--limit", "1", path=table)
    assert len(done.stdout.splitlines()) == 3
    assert "还有 1 行" in done.stdout
    assert "没有" in check("--show", "mojibake", path=table).stdout
    rows = told("--show", "duplicate", path=table)["shown_rows"]
    assert [(row["row"], row["detail"]) for row in rows] == [(50, "0"), (51, "1")]


def test_rows_can_be_looked_at_when_all_are_dropped(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": question(n), "answer": "嗯"} for n in range(3)])
    found = told("--show", "too_short", path=path)
    assert (found["usable"], len(found["shown_rows"]), found["preview"]) == (0, 3, [])
    assert check(path=path).returncode == 0


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"甲": question(1), "乙": answer(1)}])
    failed = check("--json", path=path)
    assert failed.returncode == 2
    error = json.loads(failed.stdout)["error"]
    assert (error["kind"], "甲, 乙" in error["message"]) == ("unknown_columns", True)
    assert told("--columns", "question=甲", "answer=乙", path=path)["usable"] == 1
    assert (
        json.loads(check("--json", "--columns", "question", path=path).stdout)["error"]["kind"]
        == "bad_mapping"
    )


@pytest.mark.parametrize("language", ["zh_CN.UTF-8", "en_US.UTF-8"])
def test_a_fault_is_one_line(tmp_path: Path, language: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(bytes(range(256)) * 40)
    done = check(path=path, LC_ALL=language)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "Traceback" not in done.stderr


def test_without_pyarrow_there_is_a_hint(tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "pyarrow.py").write_text("raise ModuleNotFoundError('No', name='pyarrow')", "utf8")
    path = write_lines(tmp_path / "a.jsonl", pairs(3))
    here = os.environ.get("PYTHONPATH", "")
    done = check("--json", path=path, PYTHONPATH=f"{tmp_path / 'absent'}{os.pathsep}{here}")
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["hint"]) == ("packages_missing", "pip install 'drkun[data]'")


def test_the_grammar_knows_every_reason() -> None:
    assert (*REASONS, *FLAGS) == cli.REASONS


def test_nothing_is_left_in_the_temporary_folder(table: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    assert check(path=table, TMPDIR=str(tmp_path / "tmp")).returncode == 0
    assert list((tmp_path / "tmp").iterdir()) == []


# Tokens


def test_tokens_are_counted_and_examples_shown_with_what_is_trained_on(table: Path) -> None:
    found = told("--length", "64", path=table)
    tokens, examples = found["tokens"], found["examples"]
    assert (tokens["model"], tokens["examples"], tokens["context_length"]) == ("starter", 50, 64)
    assert sum(tokens["histogram"]) == 50
    assert 0 < tokens["trained"] < tokens["total"]
    assert tokens["median"] <= tokens["p95"] <= tokens["max"]
    whole = told(path=table)
    assert tokens["longer"] == sum(tokens["histogram"][3:]) > 0
    assert (whole["tokens"]["longer"], whole["tokens"]["masked"], whole["tokens"]["lost_row"]) == (0, 0, 0)
    assert whole["tokens"]["total"] == tokens["total"]
    shown = whole["examples"][0]
    prompt, response = shown["segments"]
    assert (prompt["trained"], response["trained"], shown["cut"]) == (False, True, 0)
    assert prompt["text"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert response["text"] == whole["preview"][0]["answer"] + "<|im_end|>"
    assert (prompt["tokens"] + response["tokens"], response["tokens"]) == (shown["tokens"], shown["trained"])
    cut = next(example for example in examples if example["cut"])
    assert sum(segment["tokens"] for segment in cut["segments"]) == 64
    assert cut["tokens"] == 64 + cut["cut"]


def test_examples_that_no_response_is_left_of_are_told(table: Path) -> None:
    found = told("--length", "8", path=table)["tokens"]
    assert (found["masked"], found["trained"]) == (50, 0)
    assert "全部 50 条样本" in check("--length", "8", path=table).stdout


def test_the_trained_part_is_marked_without_colour(table: Path) -> None:
    done = check(path=table)
    lines = done.stdout.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("第 1 行"))
    end = next(at for at, line in enumerate(lines) if line.endswith("<|im_end|>") and line[0] == ">")
    shown = lines[begin + 1 : end + 1]
    assert shown[0].strip() == "<|im_start|>user"
    prompt, response = "\n".join(shown).split("\n> ", 1)
    assert prompt.rstrip().endswith("</think>")
    assert not any(line.startswith(">") for line in prompt.splitlines())
    assert response.endswith("<|im_end|>")
    assert all(line.startswith("> ") for line in response.splitlines()[1:])
    assert "\x1b" not in done.stdout


def test_rows_with_personal_data_are_listed(tmp_path: Path) -> None:
    rows = [*pairs(3), {"question": f"{question(9)}电话13812345678", "answer": answer(9)}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    found = told("--show", "personal", path=path)
    assert found["flagged"] == {"personal": 1}
    (row,) = found["shown_rows"]
    assert (row["row"], row["reason"], row["detail"]) == (3, "personal", "13812345678")
    assert row["question"].endswith("13812345678")
    assert "13812345678" in check("--show", "personal", path=path).stdout
    assert any(line.endswith("personal") for line in check(path=path).stdout.splitlines())


def test_a_model_that_is_none_costs_no_reading(table: Path) -> None:
    failed = check("--json", "--model", "nowhere", path=table)
    assert failed.returncode == 3
    assert json.loads(failed.stdout)["error"]["kind"] == "model_not_found"
