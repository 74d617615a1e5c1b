"""From the files of a suite, or a training run's held-out rows, to the questions that are asked.

Rows are read in batches, judged, and kept in a file; nothing grows with the suite but, where a limit is set,
one number for each question below it.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from drkun_tui.errors import DrkunError
from drkun_tui.evaluation import choices
from drkun_tui.evaluation.faults import StopRequested, evaluation_error
from drkun_tui.evaluation.overlap import Trained
from drkun_tui.evaluation.protocol import Item, Order, Overlap, Prepared, Task
from drkun_tui.training.data import shapes, sources
from drkun_tui.training.data.text import Table

QUESTIONS, _UNFINISHED = "questions.jsonl", "questions.unfinished"

MOST_DEPARTMENTS = 200
"""More names than these in a column of departments are none, and no prompt would hold them."""

_COMPARED_AT_ONCE = 32768
_QUESTION = ("question", "题目", "问题", "stem")
_OPTIONS = ("options", "option", "选项")
_KEY = ("answer_idx", "answer", "答案", "正确答案")
_KIND = ("question_type", "题型")
_LEFT_OUT = ("empty", "binary", "unknown_columns", "bad_json")
"""What makes a file of a folder no part of the suite, and not the whole folder an error."""

Stopped = Callable[[], bool]


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that can be asked."""

    number: int
    task: Task
    question: str
    expected: str
    reasoning: str = ""
    system: str = ""
    history: str = ""
    """JSON: pairs of question and answer before this one."""
    options: dict[str, str] = {}
    several: bool = False
    """May more than one option be right?"""

    @property
    def id(self) -> str:
        """A hash of what is asked and expected."""
        told = (self.task, self.history, self.question, sorted(self.options.items()), self.expected)
        return hashlib.blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()


_Judged = Row | str
"""A row, or why it is none: a key ``reason_…`` of the catalogue's section ``evaluation``."""

_encode = msgspec.json.Encoder().encode
_decode_row = msgspec.json.Decoder(Row).decode
_decode_item = msgspec.json.Decoder(Item).decode


def prepare(
    order: Order, source: Path, name: str, folder: Path, trained: Trained | None, stopped: Stopped
) -> Prepared:
    """Write the questions that are asked into the folder's `QUESTIONS`, whole or not at all.

    Where there are more than the limit, those with the smallest hashes are taken: the same ones each time,
    from everywhere in the suite.

    Args:
        source: file or folder of the suite; an Arrow file for a run's held-out rows.
        name: what the suite is called.
        trained: what the model or its adapter was trained on, where that is known.
        stopped: asked between batches; then `StopRequested` is raised.

    Raises:
        DrkunError: the suite cannot be read, or nothing in it can be asked.
        OSError: the folder cannot be written.
    """
    aside = folder / _UNFINISHED
    counted: Counter[str] = Counter()
    names: set[str] = set()
    with aside.open("wb") as file:
        drawn = _Drawn(order.limit, file)
        for judged in _rows(source, order.task == "department", stopped):
            if isinstance(judged, str):
                counted[judged] += 1
                continue
            drawn.add(judged)
            if judged.task == "department" and len(names) <= MOST_DEPARTMENTS:
                names.add(judged.expected)
    dropped = dict(sorted(counted.items()))
    if not drawn.usable:
        told = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        raise evaluation_error("no_questions", suite=name, rows=sum(counted.values()), dropped=told or "0")
    if len(names) > MOST_DEPARTMENTS or len(names) == 1:
        raise evaluation_error("no_departments", count=len(names), most=MOST_DEPARTMENTS)
    digest, questions = hashlib.sha256(), 0
    overlap = Counter[str]()
    whole = aside.with_suffix(".items")
    with whole.open("wb") as file:
        for part in _parts(drawn.rows(aside), _COMPARED_AT_ONCE):
            if stopped():
                raise StopRequested
            seen = trained.seen([row.question for row in part]) if trained is not None else [""] * len(part)
            for row, how in zip(part, seen, strict=True):
                item = msgspec.structs.replace(_item(row, sorted(names)), seen=how)
                file.write(_encode(item) + b"\n")
                digest.update(item.id.encode())
                overlap[how] += 1
                questions += 1
    aside.unlink()
    whole.replace(folder / QUESTIONS)
    return Prepared(
        suite=name,
        rows=drawn.usable + sum(counted.values()),
        usable=drawn.usable,
        questions=questions,
        dropped=dropped,
        fingerprint=digest.hexdigest(),
        overlap=None
        if trained is None
        else Overlap(rows=len(trained), same=overlap["same"], near=overlap["near"]),
    )


def items(folder: Path) -> Iterator[Item]:
    """The questions that `prepare` wrote."""
    with (folder / QUESTIONS).open("rb") as lines:
        yield from map(_decode_item, lines)


class _Drawn:
    """Usable rows on their way to a file; with a limit, all that might be among the smallest hashes.

    Args:
        limit: how many are wanted; 0 is all.
        file: takes the rows.
    """

    def __init__(self, limit: int, file: BinaryIO) -> None:
        self.usable = 0
        self._limit = limit
        self._file = file
        self._largest: list[int] = []
        """A heap of the smallest hashes so far, negated: the largest of them is at its top."""

    def add(self, row: Row) -> None:
        """Take a row, if it may be among those that are wanted."""
        self.usable += 1
        if self._limit:
            rank = -int(row.id, 16)
            if len(self._largest) < self._limit:
                heapq.heappush(self._largest, rank)
            elif heapq.heappushpop(self._largest, rank) == rank:
                return
        self._file.write(_encode(row) + b"\n")

    def rows(self, path: Path) -> Iterator[Row]:
        """Those that are wanted, in their order."""
        left = self._limit or self.usable
        with path.open("rb") as lines:
            for row in map(_decode_row, lines):
                if left and (not self._largest or int(row.id, 16) <= -self._largest[0]):
                    left -= 1
                    yield row


def _parts(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while part := list(itertools.islice(rows, size)):
        yield part


def _item(row: Row, departments: Sequence[str]) -> Item:
    question = row.question
    if row.task == "choice":
        question = choices.asked(question, row.options, several=row.several)
    elif row.task == "department":
        question = choices.asked_for_department(question, departments)
    return Item(
        number=row.number,
        id=row.id,
        task=row.task,
        question=question,
        expected=row.expected,
        reasoning=row.reasoning,
        system=row.system,
        history=json.loads(row.history) if row.history else [],
        options=row.options
        if row.task == "choice"
        else dict.fromkeys(departments, "")
        if row.task == "department"
        else {},
    )


# Reading


def _rows(source: Path, departments: bool, stopped: Stopped) -> Iterator[_Judged]:
    """Every row of the suite, judged."""
    if source.suffix == ".arrow":
        yield from _prepared(source, departments, stopped)
        return
    number = 0
    files = sources.files(source)
    problems = []
    for file in files:
        before = number
        try:
            file.look()
            layout: _Layout | None = None
            for batch in file.batches():
                if stopped():
                    raise StopRequested
                if layout is None and batch.table.column_names:
                    layout = _Layout(str(file.path), batch.table, departments)
                yield from ["malformed"] * len(batch.malformed)
                number += len(batch.malformed)
                if layout is not None:
                    for judged in layout.rows(batch.table, number):
                        yield judged
                        number += 1
        except DrkunError as error:
            if error.kind not in _LEFT_OUT or len(files) == 1 or number > before:
                raise
            problems.append(error)
    if problems and len(problems) == len(files):
        raise problems[0]


def _prepared(source: Path, departments: bool, stopped: Stopped) -> Iterator[_Judged]:
    """Rows that were prepared for training."""
    try:
        with pa.memory_map(str(source)) as file:
            number = 0
            for batch in pa.ipc.open_stream(file):
                if stopped():
                    raise StopRequested
                columns = {name: batch[name].to_pylist() for name in shapes.TEXTS}
                for judged in _judged(columns, number, departments):
                    yield judged
                    number += 1
    except (OSError, pa.ArrowInvalid) as error:
        raise evaluation_error(
            "unreadable_suite", suite=source.name, reason=str(error).splitlines()[0]
        ) from error


class _Layout:
    """What the columns of a file are.

    Args:
        path: for the error.
        first: some rows of it.
        departments: is the department wanted, and nothing else?

    Raises:
        DrkunError: ``unknown_columns``.
    """

    def __init__(self, path: str, first: Table, departments: bool) -> None:
        plain = {name.strip("\ufeff \t").casefold(): name for name in reversed(first.column_names)}

        def named(names: Sequence[str]) -> str:
            return next((plain[name] for name in names if name in plain), "")

        self._departments = departments
        self._question, self._kind = named(_QUESTION), named(_KIND)
        self._keys = [plain[name] for name in _KEY if name in plain]
        """The surest first: a row may have only the other."""
        self._options = named(_OPTIONS)
        in_a_row = itertools.takewhile(plain.__contains__, string.ascii_lowercase)
        self._letters = {letter.upper(): plain[letter] for letter in in_a_row}
        has_options = self._question and self._keys and (self._options or len(self._letters) > 1)
        self._shape = None if has_options and not departments else shapes.recognise(path, first, {})

    def rows(self, table: Table, number: int) -> Iterator[_Judged]:
        """The rows of a batch whose first one has this number."""
        if self._shape is not None:
            columns = {n: c.to_pylist() for n, c in shapes.canonical(table, self._shape).items()}
            yield from _judged(columns, number, self._departments)
            return
        names = [self._question, *self._keys, self._kind, self._options, *self._letters.values()]
        texts = {
            name: table[name].to_pylist() if name in table.column_names else [""] * len(table)
            for name in dict.fromkeys(names)
        }
        for place in range(len(table)):
            yield self._choice({name: values[place] for name, values in texts.items()}, number + place)

    def _choice(self, row: dict[str, str], number: int) -> _Judged:
        question = row[self._question].strip()
        if not question:
            return "no_question"
        if self._options:
            options = choices.options_of(row[self._options])
        else:
            texts = {letter: row[name].strip() for letter, name in self._letters.items()}
            options = {letter: text for letter, text in texts.items() if text}
        if len(options) < 2:
            return "no_options"
        told = next((row[name] for name in self._keys if row[name].strip()), "")
        if not told:
            return "no_answer"
        key = choices.key_of(told, options)
        if not key:
            return "wrong_letter"
        several = len(key) > 1 or bool(re.search("多项|多选|multi", row[self._kind], re.IGNORECASE))
        return Row(
            number=number, task="choice", question=question, expected=key, options=options, several=several
        )


def _judged(columns: dict[str, list[str]], number: int, departments: bool) -> Iterator[_Judged]:
    """Rows in the canonical columns."""
    expected = "department" if departments else "answer"
    for place, question in enumerate(columns["question"]):
        wanted = columns[expected][place].strip()
        if not question.strip():
            yield "no_question"
        elif not wanted:
            yield "no_department" if departments else "no_answer"
        else:
            yield Row(
                number=number + place,
                task="department" if departments else "answer",
                question=question.strip(),
                expected=wanted,
                reasoning="" if departments else columns["reasoning"][place].strip(),
                system=columns["system"][place].strip(),
                history=columns["history"][place],
            )
