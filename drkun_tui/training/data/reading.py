"""Every row of the files, read, cleaned and judged, into one file on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.errors import DrkunError
from drkun_tui.training.data import cleaning, duplicates, formats, shapes, sources
from drkun_tui.training.data.cleaning import CODES, Flags
from drkun_tui.training.data.summary import Source, StoppedError, data_error
from drkun_tui.training.data.text import Hashes, Strings, Table, folded
from drkun_tui.training.recipe import Data

COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("source", pa.string()),
        *((name, pa.string()) for name in ("system", "question", "reasoning", "answer")),
        ("department", pa.string()),
        ("history", pa.string()),
    ]
)
ROW_COLUMNS = COLUMNS.append(pa.field("detail", pa.string()))
"""What is written of every row while it is not yet known what becomes of it."""

MEASURED = ("question", "reasoning", "answer")
"""Columns whose lengths are told."""

_LEFT_OUT = ("empty", "binary", "unknown_columns", "bad_json")
"""What makes a file of a folder none of the data, and not the whole folder an error: a licence text, or the
description of a data set."""

Report = Callable[[int, int], None]
Stopped = Callable[[], bool]


@dataclass(slots=True)
class Cleaned:
    """A batch of rows, and what is known of them beside their text."""

    table: Table
    reasons: npt.NDArray[np.uint8]
    keys: Hashes
    signatures: duplicates.Signatures
    lengths: npt.NDArray[np.int32]
    personal: Flags


@dataclass(slots=True)
class Reader:
    """Reads one data set.

    Args:
        options: what is left out.
        files: where it is, or
        hub: where else.
        report: told bytes (rows of a hub's data set) read so far and in all.
        stopped: asked between batches.

    Attributes:
        told: what each file was, once it is read.
    """

    options: Data
    files: list[sources.File]
    hub: sources.Hub | None
    report: Report
    stopped: Stopped
    told: list[Source] = field(default_factory=list)
    _row: int = 0

    def write(self, path: Path, pool: ThreadPoolExecutor) -> list[Cleaned]:
        """Every row, cleaned and judged, into one file; without their tables, the batches."""
        kept = []
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, ROW_COLUMNS) as writer:
            for batch in self._ahead(pool):
                writer.write_table(batch.table)
                batch.table = None
                kept.append(batch)
        return kept

    def _ahead(self, pool: ThreadPoolExecutor) -> Iterator[Cleaned]:
        """Batches in their order, some of them worked on at once."""
        waiting: deque[Future[Cleaned]] = deque()
        try:
            for columns, row, source in self._read():
                if self.stopped():
                    raise StoppedError
                waiting.append(pool.submit(_clean, columns, row, source, self.options))
                if len(waiting) > 4:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _read(self) -> Iterator[tuple[_Batch, int, str]]:
        """Batches of all sources with the number of their first row."""
        if self.hub is not None:
            source = Source(path=self.hub.name, format="hub", encoding="")
            yield from self._read_one(self.hub, source, 0, self.hub.size)
            return
        total, before = sum(file.size for file in self.files), 0
        problems = []
        for file in self.files:
            begun = self._row
            source = Source(path=file.name)
            try:
                file.look()
                source = msgspec.structs.replace(source, format=file.format, encoding=file.encoding)
                yield from self._read_one(file, source, before, total)
            except DrkunError as error:
                if error.kind not in _LEFT_OUT or len(self.files) == 1 or self._row > begun:
                    raise
                problems.append(error)
                self.told.append(msgspec.structs.replace(source, problem=error.kind))
            before += file.size
        if len(problems) == len(self.files):
            raise problems[0]

    def _read_one(
        self, of: sources.File | sources.Hub, source: Source, before: int, total: int
    ) -> Iterator[tuple[_Batch, int, str]]:
        shape = None
        begun = self._row
        for batch in of.batches():
            if shape is None and batch.table.column_names:
                path = str(of.path) if isinstance(of, sources.File) else of.name
                shape = shapes.recognise(path, batch.table, self.options.columns)
            yield _Batch(batch, shape), begun, source.path
            self._row += len(batch.numbers) + len(batch.malformed)
            self.report(before + batch.bytes_read, total)
        if shape is None:
            raise data_error("empty", path=source.path)
        rows = self._row - begun
        self.told.append(msgspec.structs.replace(source, rows=rows, shape=shape.name, columns=shape.columns))


@dataclass(frozen=True, slots=True)
class _Batch:
    batch: formats.Batch
    shape: shapes.Shape | None


def _clean(of: _Batch, first: int, source: str, options: Data) -> Cleaned:
    """A batch in the canonical columns, judged. Malformed rows come last, their text as the question."""
    batch, count = of.batch, len(of.batch.numbers)
    texts = {name: pa.array([], pa.string()) for name in shapes.TEXTS}
    garbled = advertising = np.zeros(count, bool)
    asked = None
    if of.shape is not None and count:
        for name, column in shapes.canonical(batch.table, of.shape).items():
            tidy = cleaning.tidied(column)
            garbled = garbled | tidy.garbled
            # A history is JSON, in which every control character is spelt out.
            texts[name] = column if name == "history" else tidy.column
            if name == "question":
                asked = tidy.whole
            if name == "answer":
                advertising = tidy.like_advertising
    verdict = cleaning.judge(texts, options, garbled, advertising)
    lost = sorted(batch.malformed)
    numbers = np.concatenate([np.asarray(batch.numbers, np.int64), np.array(lost, np.int64)]) + first
    details = [""] * len(numbers)
    for row, detail in verdict.details.items():
        details[row] = detail
    for name, column in texts.items():
        filler = [batch.malformed[row] if name == "question" else "" for row in lost]
        texts[name] = pa.concat_arrays([column, pa.array(filler, pa.string())]) if lost else column
    reasons = np.concatenate([verdict.reasons, np.full(len(lost), CODES["malformed"], np.uint8)])
    words = compared(texts)
    said = folded(words, asked if words is texts["question"] and not lost else None)
    table = pa.table(
        {
            "row": pa.array(numbers),
            "source": pa.repeat(pa.scalar(source, pa.string()), len(numbers)),
            **texts,
            "detail": pa.array(details, pa.string()),
        }
    ).select(ROW_COLUMNS.names)
    return Cleaned(
        table=table,
        reasons=reasons,
        keys=duplicates.keys(said),
        signatures=duplicates.signatures(said)
        if options.near_duplicates
        else np.full((len(numbers), duplicates.BINS), 0xFFFF, np.uint16),
        lengths=np.stack([pc.utf8_length(texts[name]).to_numpy(zero_copy_only=False) for name in MEASURED]),
        personal=np.concatenate([verdict.personal, np.zeros(len(lost), bool)]),
    )


def compared(texts: dict[str, Strings]) -> Strings:
    """What two rows are the same by: what was asked, and in a dialogue what came before."""
    history = texts["history"]
    if not pc.any(pc.greater(pc.binary_length(history), 0)).as_py():
        return texts["question"]
    return pc.binary_join_element_wise(history, texts["question"], "\n")
