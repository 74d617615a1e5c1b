"""The rows of one file in batches, by its format."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as parquet

from drkun_tui.training.data import encodings
from drkun_tui.training.data.summary import data_error
from drkun_tui.training.data.text import Counts, Table

BLOCK = 4 << 20
"""Bytes of a text file that are parsed at once."""

LONGEST_ROW = 4 << 20
"""Bytes; a longer one is refused before it is read to its end. It is the block, because Arrow parses whole
rows within a block."""

ROWS_AT_ONCE = 8192
_STEP = 1 << 20
"""Characters of a JSON array that are read at once."""

_SHOWN = 500
"""Characters that are kept of a row that cannot be read."""


@dataclass(slots=True)
class Batch:
    """Some rows of a file.

    Attributes:
        table: columns of texts without nulls; what is nested stands there as JSON.
        numbers: which row of the file each is, from 0.
        malformed: rows that could not be read, by their number, with the beginning of their text.
        bytes_read: of the file, so far.
    """

    table: Table
    numbers: Sequence[int] | Counts
    malformed: dict[int, str]
    bytes_read: int


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one file.

    Attributes:
        path: where it is.
        size: bytes.
        format: ``csv``, ``tsv``, ``json``, ``jsonl`` or ``parquet``.
        encoding: of a text.
        exact: can its bytes be read as UTF-8 as they are?
        head: the beginning of a text.
    """

    path: Path
    size: int
    format: str
    encoding: str = ""
    exact: bool = False
    head: str = ""

    def batches(self) -> Iterator[Batch]:
        """The rows.

        Raises:
            OSError: the file cannot be read.
            DrkunError: ``row_too_long``, ``bad_json``, ``truncated``, ``bad_parquet`` or ``bad_csv``.
        """
        read = {"parquet": self._parquet, "json": self._array, "jsonl": self._lines}
        yield from read.get(self.format, self._delimited)()

    def _open(self) -> encodings.Utf8:
        return encodings.Utf8(self.path.open("rb"), self.encoding)

    # CSV and TSV

    def _delimited(self) -> Iterator[Batch]:
        delimiter = "\t" if self.format == "tsv" else ","
        header = csv.reader(io.StringIO(self.head, newline=""), delimiter=delimiter)
        names = distinct([name.strip() for name in next(header, [])])
        malformed: dict[int, str] = {}

        def skip(row: Any) -> str:
            malformed[row.number - first_row] = (row.text or "")[:_SHOWN]
            return "skip"

        # Arrow numbers rows from 1, and the header is not among them where its lines are skipped.
        first_row = 1 + header.line_num
        raw: Any = self._open()
        source = pa.OSFile(str(self.path)) if self.exact else pa.PythonFile(raw, mode="r")
        try:
            reader = pacsv.open_csv(
                source,
                read_options=pacsv.ReadOptions(
                    block_size=BLOCK, column_names=names, skip_rows=header.line_num, use_threads=False
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
            number = read = 0
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    break
                read = source.tell() if self.exact else raw.taken
                for begin in range(0, max(1, len(batch)), ROWS_AT_ONCE):
                    table = pa.Table.from_batches([batch.slice(begin, ROWS_AT_ONCE)])
                    numbers, number = _numbered(len(table), number, malformed)
                    passed = {row: malformed.pop(row) for row in sorted(malformed) if row < number}
                    yield Batch(table, numbers, passed, read)
            if malformed:
                yield Batch(
                    pa.table({name: pa.array([], pa.string()) for name in names}), [], malformed, read
                )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            kind = "row_too_long" if "straddl" in str(error) else "bad_csv"
            reason = str(error).splitlines()[0]
            raise data_error(kind, path=str(self.path), reason=reason, limit=LONGEST_ROW >> 20) from error
        finally:
            source.close()
            raw.close()

    # JSON

    def _lines(self) -> Iterator[Batch]:
        with self._open() as raw, io.BufferedReader(raw, 1 << 20) as file:
            number, rows, numbers, malformed = 0, [], [], {}
            seen = False
            while line := file.readline(LONGEST_ROW + 1):
                if len(line) > LONGEST_ROW:
                    raise data_error("row_too_long", path=str(self.path), limit=LONGEST_ROW >> 20)
                if not line.strip():
                    continue
                row = _object(line)
                if row is None:
                    malformed[number] = line.decode("utf8", "replace")[:_SHOWN].strip()
                else:
                    rows.append(row)
                    numbers.append(number)
                number += 1
                if len(rows) >= ROWS_AT_ONCE or len(malformed) >= ROWS_AT_ONCE:
                    if not rows and not seen:
                        break
                    seen = True
                    yield Batch(_table(rows), numbers, malformed, raw.taken)
                    rows, numbers, malformed = [], [], {}
            if not seen and not rows:
                raise data_error("bad_json", path=str(self.path), row=1)
            yield Batch(_table(rows), numbers, malformed, raw.taken)

    def _array(self) -> Iterator[Batch]:
        with self._open() as raw, io.TextIOWrapper(io.BufferedReader(raw), "utf8") as file:
            rows, numbers, malformed = [], [], {}
            for number, value in enumerate(self._elements(file)):
                if isinstance(value, dict):
                    rows.append(value)
                    numbers.append(number)
                else:
                    malformed[number] = str(value)[:_SHOWN]
                if len(rows) >= ROWS_AT_ONCE:
                    yield Batch(_table(rows), numbers, malformed, raw.taken)
                    rows, numbers, malformed = [], [], {}
            if rows or malformed:
                yield Batch(_table(rows), numbers, malformed, raw.taken)

    def _elements(self, file: io.TextIOWrapper) -> Iterator[Any]:
        """The elements of a JSON array, no more of its text in memory than the longest of them takes."""
        decode = json.JSONDecoder().raw_decode
        text = file.read(_STEP)
        place = text.index("[") + 1
        count, step, ended = 0, _STEP, False
        while True:
            while place < len(text) and text[place] in " \t\r\n,":
                place += 1
            if text.startswith("]", place):
                return
            whole = False
            try:
                value, behind = decode(text, place)
                whole = True
                # What ends with the text that was read, such as a number, may go on.
                if behind < len(text):
                    yield value
                    place, count, step = behind, count + 1, _STEP
                    continue
            except (ValueError, RecursionError) as error:
                # Only what goes on behind the text that was read may still be whole.
                cut = isinstance(error, json.JSONDecodeError) and (
                    error.msg.startswith("Unterminated string") or error.pos > len(text) - 16
                )
                if not cut or len(text) - place > LONGEST_ROW:
                    kind = "row_too_long" if cut else "bad_json"
                    raise data_error(
                        kind, path=str(self.path), row=count + 1, limit=LONGEST_ROW >> 20
                    ) from error
            if ended:
                raise data_error("truncated", path=str(self.path), row=count + whole)
            more = file.read(step)
            text, place = text[place:] + more, 0
            step, ended = step * 2, not more

    # Parquet

    def _parquet(self) -> Iterator[Batch]:
        try:
            with parquet.ParquetFile(self.path) as file:
                total, number = file.metadata.num_rows, 0
                for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                    table = as_texts(pa.Table.from_batches([batch]))
                    numbers = np.arange(number, number + len(table))
                    number += len(table)
                    yield Batch(table, numbers, {}, self.size * number // max(1, total))
        except pa.ArrowException as error:
            raise data_error("bad_parquet", path=str(self.path), reason=str(error).splitlines()[0]) from error


def distinct(names: list[str]) -> list[str]:
    """Names of columns, each once: a second ``ask`` is ``ask (2)``, and one without a name has its number."""
    made: list[str] = []
    for place, name in enumerate(names, 1):
        name = name or f"({place})"
        count, other = 1, name
        while other in made:
            count += 1
            other = f"{name} ({count})"
        made.append(other)
    return made


def _numbered(count: int, begin: int, malformed: Mapping[int, str]) -> tuple[Sequence[int] | Counts, int]:
    """The numbers of `count` rows from `begin` on that are not malformed, and the number behind them and
    behind the malformed ones that follow."""
    if not malformed:
        return np.arange(begin, begin + count), begin + count
    numbers: list[int] = []
    while len(numbers) < count:
        if begin not in malformed:
            numbers.append(begin)
        begin += 1
    while begin in malformed:
        begin += 1
    return numbers, begin


def _object(line: bytes) -> dict[str, Any] | None:
    """A line of JSONL; None where it is no JSON object. NaN is none to msgspec, and common in the wild."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _table(rows: list[dict[str, Any]]) -> Table:
    """Objects as a table of texts; its columns in the order in which they are met."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table(
        {str(_encodable(name)): _texts([row.get(name) for row in rows]) for name in names} if names else {}
    )


def as_texts(table: Table) -> Table:
    """Any Arrow table as texts without nulls; what is nested as JSON, NaN as nothing."""
    columns = []
    for column in table.columns:
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns.append(pc.fill_null(column.cast(pa.string()), ""))
        else:
            columns.append(_texts(column.to_pylist()))
    return pa.table(dict(zip(distinct(table.column_names), columns, strict=True)))


def _texts(values: list[Any]) -> Any:
    texts = [value if isinstance(value, str) else _text(value) for value in values]
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array(list(map(_encodable, texts)), pa.string())


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _encodable(text: str) -> str:
    """Without lone surrogates, which JSON can spell and no encoding can write."""
    return text.encode("utf8", "replace").decode("utf8")
