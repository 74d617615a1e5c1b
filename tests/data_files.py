"""Real files with dialogues, as people have them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from drkun_tui.training.data.dataset import prepare
from drkun_tui.training.data.summary import Summary
from drkun_tui.training.recipe import Data

DEPARTMENTS = ("心血管科", "消化科", "神经科", "骨科", "皮肤科", "眼科")


def question(number: int) -> str:
    """One of many that have little in common."""
    parts = ("头晕", "胃痛", "咳嗽", "腰酸", "失眠", "手麻", "发热", "皮疹", "耳鸣", "眼干", "便秘")
    first, second, third = (parts[number // step % 11] for step in (1, 11, 121))
    return f"我{first}已经{number}天了，还有点{second}，偶尔{third}，第{number * 7}次复查要不要紧？"


def answer(number: int) -> str:
    return f"先观察{number}天，注意休息和饮食，如果没有好转，请到医院检查。"


def pairs(count: int, begin: int = 0) -> list[dict[str, str]]:
    return [{"question": question(n), "answer": answer(n)} for n in range(begin, begin + count)]


def as_csv(rows: Iterable[Sequence[str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def toyhom(count: int, begin: int = 0) -> str:
    """Toyhom's columns."""
    rows = [
        (DEPARTMENTS[n % 6], f"第{n}个问题的标题", question(n), answer(n))
        for n in range(begin, begin + count)
    ]
    return as_csv([("department", "title", "ask", "answer"), *rows])


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf8")
    return path


def prepared(path: Path, folder: Path, seed: int = 1, **options: Any) -> Summary:
    return prepare(Data(path=str(path), **options), folder, seed, lambda _done, _total: None, lambda: False)


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    with pa.memory_map(str(folder / f"{name}.arrow")) as file:
        rows: list[dict[str, Any]] = pa.ipc.open_stream(file).read_all().to_pylist()
        return rows


def every_row(folder: Path) -> list[dict[str, Any]]:
    """Those that are trained on and those that are held out, in their order."""
    return sorted(rows_of(folder, "train") + rows_of(folder, "held_out"), key=lambda row: row["row"])
