"""What the columns of a file mean, and its rows in the columns that all data sets have here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.engine import thinking
from drkun_tui.training.data.summary import ROLES, data_error
from drkun_tui.training.data.text import Counts, Hashes, Strings, Table, raw_bytes, rows_at

TEXTS = ("system", "question", "reasoning", "answer", "department", "history")
"""The canonical columns that come from a row; ``row`` and ``source`` say where it stood."""

_NAMES: dict[str, tuple[str, ...]] = {
    "question": (
        *("question", "问题", "提问", "ask", "咨询", "问", "query", "instruction", "指令"),
        *("prompt", "input", "输入", "user", "human"),
    ),
    "answer": (
        *("answer", "回答", "答案", "答", "回复", "response", "output", "输出", "completion", "reply"),
        *("assistant", "医生回答"),
    ),
    "reasoning": (
        *("complex_cot", "reasoning", "reasoning_content", "thinking", "thought", "think", "cot"),
        *("思考", "思考过程", "推理", "推理过程", "rationale"),
    ),
    "system": ("system", "system_prompt", "系统", "系统提示"),
    "department": ("department", "科室", "科别", "dept"),
    "title": ("title", "标题", "题目"),
}
"""How columns are called, the surest name first; compared without case and with spaces as underscores."""

_DIALOGUES = ("conversations", "conversation", "messages", "dialogue", "对话")
_SPEAKERS = {
    **dict.fromkeys(("user", "human", "patient", "患者", "病人"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "doctor", "chatgpt", "bard", "医生"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_PLACEHOLDER = re.compile(
    r"(?i)(?:无|没有|暂无|空|如题|如上|同上|同标题|见标题|rt|null|none|nan|n/a|[-—./。？?…]+)[。.!！]?"
)
"""An ask that only says: see the title."""

_SHORT = 8
"""Characters from which on a text is more than a placeholder."""

_THINKS = r"^\s*(?:<|## Thinking)"
_ENDS_THINKING = "</"
"""What an answer with reasoning in it begins with, or has in it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a file are read.

    Attributes:
        name: ``toyhom``, ``alpaca``, ``sharegpt``, ``messages``, ``reasoning``, ``pairs`` or ``mapped``.
        columns: from roles to names of columns; beside `ROLES` there are ``input`` and ``history``.
    """

    name: str
    columns: dict[str, str]


def recognise(path: str, first: Table, mapping: Mapping[str, str]) -> Shape:
    """What the columns of a file mean.

    Args:
        path: for the error.
        first: some rows of the file.
        mapping: roles and columns that somebody has told; they go before everything else.

    Raises:
        DrkunError: ``unknown_columns``, ``no_such_column``, ``no_such_role`` or ``no_dialogues``.
    """
    names: Sequence[str] = first.column_names
    shown = ", ".join(names)
    for role, column in mapping.items():
        if role not in ROLES:
            raise data_error("no_such_role", role=role, known=", ".join(ROLES))
        if column not in names:
            raise data_error("no_such_column", path=path, column=column, columns=shown)
    plain = {re.sub(r"\s+", "_", name.strip("\ufeff \t").casefold()): name for name in reversed(names)}
    if told := mapping.get("dialogue"):
        if not _dialogue_kind(first[told]):
            raise data_error("no_dialogues", path=path, column=told)
        return Shape("mapped", _with_system(mapping, plain))
    if not mapping:
        for dialogue in _DIALOGUES:
            if dialogue in plain and (kind := _dialogue_kind(first[plain[dialogue]])):
                return Shape(kind, _with_system({"dialogue": plain[dialogue]}, plain))
    roles = dict(mapping)
    for role, candidates in _NAMES.items():
        found = [plain[name] for name in candidates if name in plain and plain[name] not in roles.values()]
        if role not in roles and found:
            roles[role] = found[0]
    question = roles.get("question", "").strip().casefold()
    extra = plain.get("input") or plain.get("输入")
    if question in ("instruction", "指令") and extra and extra not in roles.values():
        roles["input"] = extra
    if "history" in plain and question:
        roles["history"] = plain["history"]
    if "title" in roles and "question" not in roles:
        roles["question"] = roles.pop("title")
    if "question" not in roles or "answer" not in roles:
        raise data_error("unknown_columns", path=path, columns=shown)
    return Shape(_name(roles, mapping), roles)


def _with_system(roles: Mapping[str, str], plain: Mapping[str, str]) -> dict[str, str]:
    """A dialogue with the system text beside it, which its rows may have in a column of their own."""
    return {"system": plain["system"], **roles} if "system" in plain else dict(roles)


def _name(roles: Mapping[str, str], mapping: Mapping[str, str]) -> str:
    if mapping:
        return "mapped"
    if "title" in roles:
        return "toyhom"
    if roles["question"].strip().casefold() in ("instruction", "指令"):
        return "alpaca"
    return "reasoning" if "reasoning" in roles else "pairs"


def _dialogue_kind(column: Strings) -> str:
    """``sharegpt`` or ``messages``; "" where the column holds no dialogues."""
    for text in column.to_pylist()[:100]:
        turns = _turns_of(text)
        if turns:
            return "sharegpt" if "from" in turns[0] else "messages"
    return ""


def canonical(table: Table, shape: Shape) -> dict[str, Strings]:
    """The rows in the columns of `TEXTS`, not cleaned yet."""
    rows = len(table)

    def column(role: str) -> Strings:
        name = shape.columns.get(role)
        if name is None or name not in table.column_names:
            return pa.repeat(pa.scalar("", pa.string()), rows)
        chunked = table[name]
        return chunked.combine_chunks() if isinstance(chunked, pa.ChunkedArray) else chunked

    if "dialogue" in shape.columns:
        made = _from_dialogues(column("dialogue"), column("system"))
    else:
        question = column("question")
        if "title" in shape.columns:
            question = _joined(column("title"), question)
        if "input" in shape.columns:
            question = _joined(question, column("input"))
        made = {
            "system": column("system"),
            "question": question,
            "reasoning": column("reasoning"),
            "answer": column("answer"),
            "department": column("department"),
            "history": _histories(column("history")) if "history" in shape.columns else column("history"),
        }
    made["reasoning"], made["answer"] = _apart(made["reasoning"], made["answer"])
    return made


def _joined(titles: Strings, asks: Strings) -> Strings:
    """Title and text of a question, each once. Rows that may need more than putting them together are those
    where one is short, or as long as what it might be part of, or has the title's beginning in its text."""
    if not len(titles):
        return titles
    titles, asks = pc.utf8_trim_whitespace(titles), pc.utf8_trim_whitespace(asks)
    title_length, ask_length = (pc.utf8_length(of).to_numpy(zero_copy_only=False) for of in (titles, asks))
    special = (title_length < _SHORT) | (ask_length < _SHORT) | (ask_length <= title_length)
    special[_begun(titles, asks)] = True
    joined = pc.binary_join_element_wise(titles, asks, "\n")
    if not special.any():
        return joined
    rows = pa.array(special)
    pairs = zip(titles.filter(rows).to_pylist(), asks.filter(rows).to_pylist(), strict=True)
    made = [_question(title, ask) for title, ask in pairs]
    return pc.replace_with_mask(joined, rows, pa.array(made, pa.string()))


def _begun(titles: Strings, asks: Strings) -> Counts:
    """Rows with the first eight bytes of their title in their text, and perhaps others; titles that are
    shorter are not looked for."""
    raw, starts = raw_bytes(titles)
    text, begins = raw_bytes(asks)
    if len(raw) < 8 or len(text) < 8:
        return np.zeros(0, np.int64)
    first = np.minimum(starts[:-1], len(raw) - 8)
    wanted = np.repeat(_eights(raw)[first], np.diff(begins))[:-7]
    return rows_at(begins, _eights(text) == wanted)


def _eights(raw: npt.NDArray[np.uint8]) -> Hashes:
    """The eight bytes at each place as one number."""
    return np.ndarray((len(raw) - 7,), np.uint64, np.ascontiguousarray(raw).data, strides=(1,))


def _question(title: str, ask: str) -> str:
    if not ask or ask in title or (len(ask) < _SHORT and _PLACEHOLDER.fullmatch(ask)):
        return title
    if title in ask or (len(title) < _SHORT and _PLACEHOLDER.fullmatch(title)):
        return ask
    return f"{title}\n{ask}"


def _apart(reasoning: Strings, answers: Strings) -> tuple[Strings, Strings]:
    """Reasoning that stands in the answer, in its own column. A block that never ends leaves no answer."""
    raw, starts = raw_bytes(answers)
    suspects = rows_at(starts, (raw == ord("<")) | (raw == ord("#")))
    if not len(suspects):
        return reasoning, answers
    some = answers.take(pa.array(suspects))
    marked = pc.or_(pc.match_substring_regex(some, _THINKS), pc.match_substring(some, _ENDS_THINKING))
    rows = np.zeros(len(answers), bool)
    rows[suspects[marked.to_numpy(zero_copy_only=False)]] = True
    if not rows.any():
        return reasoning, answers
    of = pa.array(rows)
    split = [thinking.split(text) for text in answers.filter(of).to_pylist()]
    told = reasoning.filter(of).to_pylist()
    thoughts = [thought or apart.thinking for thought, apart in zip(told, split, strict=True)]
    return (
        pc.replace_with_mask(reasoning, of, pa.array(thoughts, pa.string())),
        pc.replace_with_mask(answers, of, pa.array([apart.answer for apart in split], pa.string())),
    )


def _turns_of(text: str) -> list[dict[str, Any]]:
    """The turns of a dialogue from its JSON text; none where it is no dialogue."""
    try:
        turns = json.loads(text) if text.startswith("[") else []
    except (ValueError, RecursionError):
        return []
    whole = all(isinstance(turn, dict) and ("from" in turn or "role" in turn) for turn in turns)
    return turns if whole else []


def _from_dialogues(column: Strings, systems: Strings) -> dict[str, Strings]:
    made: dict[str, list[str]] = {name: [] for name in TEXTS}
    for text, system in zip(column.to_pylist(), systems.to_pylist(), strict=True):
        row = dict.fromkeys(TEXTS, "") | _from_turns(_turns_of(text))
        row["system"] = row["system"] or system
        for name in TEXTS:
            made[name].append(row[name])
    return {name: pa.array(texts, pa.string()) for name, texts in made.items()}


def _from_turns(turns: list[dict[str, Any]]) -> dict[str, str]:
    """Question and answer of the last exchange, and the earlier ones as history. Turns of one speaker in a
    row are one; what was asked last and never answered is left out."""
    system = reasoning = ""
    exchanges: list[tuple[str, str]] = []
    asked, answered = "", ""
    for turn in turns:
        who = _SPEAKERS.get(str(turn.get("from", turn.get("role", ""))).strip().casefold(), "")
        said = _said(turn.get("value", turn.get("content", "")))
        if who == "system":
            system = "\n".join(filter(None, (system, said)))
        elif who == "user":
            if answered:
                exchanges.append((asked, answered))
                asked = answered = ""
            asked = "\n".join(filter(None, (asked, said)))
        elif who == "assistant":
            answered = "\n".join(filter(None, (answered, said)))
            reasoning = _said(turn.get("reasoning_content", ""))
    if answered:
        exchanges.append((asked, answered))
    if not exchanges:
        return {}
    *earlier, (question, answer) = exchanges
    history = [[asked, thinking.split(answered).answer] for asked, answered in earlier]
    return {
        "system": system,
        "question": question,
        "reasoning": reasoning,
        "answer": answer,
        "history": json.dumps(history, ensure_ascii=False) if history else "",
    }


def _said(content: Any) -> str:
    """The text of a turn; of one in parts, the parts that are text."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content.strip() if isinstance(content, str) else ""


def _histories(column: Strings) -> Strings:
    """Earlier exchanges, as pairs; anything else is none."""
    made = []
    for text in column.to_pylist():
        try:
            pairs = json.loads(text) if text.startswith("[") else []
        except ValueError:
            pairs = []
        fine = all(isinstance(p, list) and len(p) == 2 and all(isinstance(s, str) for s in p) for p in pairs)
        made.append(json.dumps(pairs, ensure_ascii=False) if pairs and fine else "")
    return pa.array(made, pa.string())
