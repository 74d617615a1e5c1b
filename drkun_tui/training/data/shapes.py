"""Which column is what: the shapes in which medical dialogues come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drkun_tui.engine.thinking import split
from drkun_tui.training.data.summary import ROLES, data_error

NAMES: dict[str, tuple[str, ...]] = {
    "question": (
        *("question", "ask", "query", "prompt", "instruction", "input", "user", "patient"),
        *("问题", "提问", "问", "患者", "病人问题", "问题描述", "病情描述"),
    ),
    "answer": (
        *("answer", "response", "output", "completion", "reply", "assistant", "doctor"),
        *("回答", "答案", "答复", "答", "医生回答", "医生", "回复"),
    ),
    "reasoning": (
        "complex_cot",
        "reasoning",
        "reasoning_content",
        "cot",
        "thinking",
        "think",
        "思考",
        "推理",
    ),
    "system": ("system", "system_prompt", "系统", "系统提示"),
    "department": ("department", "category", "科室", "部门", "类别"),
    "title": ("title", "标题", "主题"),
}
"""What columns are called, in lower case; of several the first in this order."""

TALKS = ("messages", "conversations", "conversation", "dialog", "dialogue")
"""Columns that hold a whole talk: messages of role and content, or of from and value (ShareGPT)."""

_WHO = {
    **dict.fromkeys(("user", "human", "患者", "问"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "医生", "答"), "assistant"),
    "system": "system",
}
NOTHING = {"", "无", "没有", "暂无", "如题", "同上", "rt", "none", "null", "nan"}
"""What people write where they have nothing to add."""

COLUMNS = ("question", "answer", "reasoning", "system", "department", "history")
"""Of every row of a prepared data set, strings, "" where there is nothing."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a file are read.

    Attributes:
        name: ``toyhom``, ``alpaca``, ``talk``, ``reasoning``, ``columns`` or ``mapped``.
        columns: from a role, or ``talk``, to the column's name.
    """

    name: str
    columns: dict[str, str]


def recognise(names: Sequence[str], mapped: Mapping[str, str]) -> Shape:
    """The shape of a file with these columns.

    Args:
        mapped: from a role to a column, what the recipe says; the rest is found out.

    Raises:
        DrkunError: ``columns_unknown`` or ``column_missing``.
    """
    for role, name in mapped.items():
        if role not in ROLES:
            raise data_error("role_unknown", role=role, roles=", ".join(ROLES))
        if name not in names:
            raise data_error("column_missing", column=name, columns=", ".join(map(str, names)))
    by_name = {str(name).strip().lower(): name for name in reversed(names)}
    if not mapped:
        for talk in TALKS:
            if talk in by_name:
                return Shape("talk", {"talk": by_name[talk]})
    found = dict(mapped)
    for role, known in NAMES.items():
        called = next((by_name[k] for k in known if k in by_name and by_name[k] not in found.values()), None)
        if role not in found and called is not None:
            found[role] = called
    kind = "mapped" if mapped else "columns"
    if not mapped and {"instruction", "output"} <= by_name.keys():
        # Alpaca: the input goes with the instruction.
        found |= {"question": by_name["instruction"], "answer": by_name["output"]}
        if "input" in by_name:
            found["input"] = by_name["input"]
        kind = "alpaca"
    elif "title" in found and "ask" in by_name:
        kind = "toyhom"
    elif "reasoning" in found:
        kind = "reasoning"
    if "question" not in found and "title" in found:
        found["question"] = found.pop("title")
    if "question" not in found or "answer" not in found:
        raise data_error("columns_unknown", columns=", ".join(map(str, names)))
    return Shape(kind, found)


def canonical(row: Mapping[str, Any], shape: Shape) -> dict[str, str]:
    """One row of a file as the `COLUMNS`.

    A talk is trained on in its last answer; what was said before is its history.
    """
    columns = shape.columns
    if "talk" in columns:
        told = _talk(row.get(columns["talk"]))
    else:
        told = {role: _text(row.get(name)) for role, name in columns.items()}
        told["question"] = _joined(told.pop("title", ""), told["question"])
        if more := told.pop("input", ""):
            told["question"] = _joined(told["question"], more)
    if not told.get("reasoning"):
        apart = split(told.get("answer", ""))
        if apart.thinking and apart.answer:
            told["reasoning"], told["answer"] = apart.thinking.strip(), apart.answer.strip()
    return {name: told.get(name, "") for name in COLUMNS}


def _joined(first: str, second: str) -> str:
    """Both, but none that says nothing more."""
    if second.strip().lower() in NOTHING or second in first:
        return first or second
    return second if not first or first in second else f"{first}\n{second}"


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _talk(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    said: list[tuple[str, str]] = []
    system = reasoning = ""
    for message in value if isinstance(value, list) else []:
        if not isinstance(message, Mapping):
            continue
        who = _WHO.get(str(message.get("role", message.get("from", ""))).lower(), "")
        text = _text(message.get("content", message.get("value")))
        if who == "system":
            system = text
        elif who:
            said.append((who, text))
            reasoning = _text(message.get("reasoning_content"))
    while said and said[-1][0] != "assistant":
        said.pop()
    turns = [
        (question, answer)
        for (asker, question), (answerer, answer) in itertools.pairwise(said)
        if (asker, answerer) == ("user", "assistant")
    ]
    if not turns:
        return {"system": system}
    *before, (question, answer) = turns
    history = json.dumps([list(turn) for turn in before], ensure_ascii=False) if before else ""
    return {
        "system": system,
        "question": question,
        "answer": answer,
        "reasoning": reasoning,
        "history": history,
    }
