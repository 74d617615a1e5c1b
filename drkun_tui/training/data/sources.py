"""Files, folders and hub data sets as batches of rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from drkun_tui.training.data import encodings, shapes
from drkun_tui.training.data.shapes import COLUMNS, Shape
from drkun_tui.training.data.summary import Source, data_error
from drkun_tui.training.recipe import Data

DEMO = Path(__file__).parent.parent / "demo.jsonl"
"""The dialogues that come with the program."""

SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt"}
MOST_BYTES = 16 << 20
"""Of one row; a longer one is none."""

_BATCH = 4096
_BLOCK = 4 << 20


@dataclass(slots=True)
class Reading:
    """One file as it is read.

    Attributes:
        told: what is known of it; whole when it has been read.
        malformed: rows with another number of columns, or that are no JSON.
    """

    name: str
    path: Path | None
    told: Source = field(default_factory=lambda: Source(path=""))
    malformed: int = 0


def files(options: Data) -> tuple[Path | None, list[Path]]:
    """The folder or file that the recipe names, and the files to read, in the order of their names; none for
    a hub data set.

    Raises:
        DrkunError: ``missing`` or ``no_files``.
    """
    if options.hub:
        return None, []
    root = DEMO if options.path == "demo" else Path(options.path).expanduser()
    if root.is_file():
        return root, [root]
    if not root.is_dir():
        raise data_error("missing", path=options.path)
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not found:
        raise data_error("no_files", path=options.path, suffixes=" ".join(sorted(SUFFIXES)))
    return root, found


def read(reading: Reading, options: Data) -> Iterator[pa.Table]:
    """Batches of rows with the `COLUMNS`, all strings without nulls.

    Raises:
        DrkunError: it is no data set, or it cannot be read.
    """
    try:
        if reading.path is None:
            yield from _hub(reading, options)
        else:
            yield from _file(reading, reading.path, options)
    except OSError as error:
        raise data_error("unreadable", path=reading.name, reason=error.strerror or str(error)) from error


def _file(reading: Reading, path: Path, options: Data) -> Iterator[pa.Table]:
    if path.stat().st_size == 0:
        raise data_error("empty_file", path=reading.name)
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        parquet = pyarrow.parquet.ParquetFile(path)
        names = parquet.schema_arrow.names
        shape = _known(reading, "parquet", "", names, options)
        for batch in parquet.iter_batches(_BATCH):
            yield _table(batch.to_pylist(), shape)
        return
    encoding, _ = encodings.find(path)
    with encodings.Utf8(path.open("rb"), encoding) as stream:
        first = stream.read(1 << 16).decode("utf8", "replace")
    if first.lstrip().startswith("["):
        yield from _objects(reading, "json", encoding, options, _elements(reading, path, encoding))
    elif first.lstrip().startswith("{"):
        yield from _objects(reading, "jsonl", encoding, options, _lines(reading, path, encoding))
    else:
        yield from _separated(reading, path, encoding, options, first)


def _known(reading: Reading, form: str, encoding: str, names: list[str], options: Data) -> Shape:
    shape = shapes.recognise(names, options.columns)
    reading.told = Source(
        path=reading.name, format=form, encoding=encoding, shape=shape.name, columns=shape.columns
    )
    return shape


# Tables of text


def _separated(reading: Reading, path: Path, encoding: str, options: Data, first: str) -> Iterator[pa.Table]:
    delimiter = "\t" if "\t" in first.partition("\n")[0] else ","
    names = next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
    if len(names) < 2:
        raise data_error("one_column", path=reading.name, column=names[0][:80] if names else "")
    shape = _known(reading, "tsv" if delimiter == "\t" else "csv", encoding, names, options)

    def skip(_row: Any) -> str:
        reading.malformed += 1
        return "skip"

    try:
        with encodings.Utf8(path.open("rb"), encoding) as stream:
            rows = pyarrow.csv.open_csv(
                pa.PythonFile(stream, "r"),
                read_options=pyarrow.csv.ReadOptions(
                    block_size=_BLOCK, column_names=names, skip_rows_after_names=1
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                # Whatever a column holds, here it is text.
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.string() for name in names},
                    include_columns=list(dict.fromkeys(shape.columns.values())),
                ),
            )
            for batch in rows:
                yield _columns(batch, shape)
    except pa.ArrowInvalid as error:
        kind = "long_row" if "straddl" in str(error) else "no_table"
        reason = str(error).splitlines()[0][:200]
        raise data_error(kind, path=reading.name, most=_BLOCK >> 20, reason=reason) from error


def _columns(batch: pa.RecordBatch, shape: Shape) -> pa.Table:
    """As `shapes.canonical`, a column at a time; rows that need a closer look go through it."""
    given = {role: pc.utf8_trim_whitespace(batch[name]) for role, name in shape.columns.items()}
    nothing = pa.array([""] * len(batch), pa.string())
    told = {name: given.get(name, nothing) for name in COLUMNS}
    extra = given.get("title"), given.get("input")
    for more, comes_first in ((extra[0], True), (extra[1], False)):
        if more is not None:
            first, second = (more, told["question"]) if comes_first else (told["question"], more)
            told["question"] = _joined(first, second)
    # Reasoning in the answer begins with a tag or a heading.
    tagged = pc.starts_with(told["answer"], "<") if "reasoning" not in given else None
    if tagged is not None:
        tagged = pc.or_(tagged, pc.starts_with(told["answer"], "#"))
    if tagged is not None and pc.any(tagged).as_py():
        table = pa.table(told)
        return _table(table.to_pylist(), Shape("columns", {name: name for name in COLUMNS}))
    return pa.table(told)


def _joined(first: Any, second: Any) -> Any:
    """As `shapes.joined`, for whole columns."""
    empty = pc.is_in(pc.utf8_lower(second), pa.array(sorted(shapes.NOTHING)))
    both = pc.binary_join_element_wise(first, second, "\n")
    within = pa.array(
        [a in b or b in a for a, b in zip(first.to_pylist(), second.to_pylist(), strict=True)], pa.bool_()
    )
    longer = pc.greater_equal(pc.utf8_length(second), pc.utf8_length(first))
    return pc.if_else(
        pc.and_(empty, pc.greater(pc.utf8_length(first), 0)),
        first,
        pc.if_else(within, pc.if_else(longer, second, first), both),
    )


# JSON


def _objects(
    reading: Reading, form: str, encoding: str, options: Data, rows: Iterator[Any]
) -> Iterator[pa.Table]:
    shape: Shape | None = None
    batch: list[dict[str, Any]] = []
    for row in rows:
        if not isinstance(row, dict):
            reading.malformed += 1
            continue
        if shape is None:
            shape = _known(reading, form, encoding, list(map(str, row)), options)
        batch.append(row)
        if len(batch) == _BATCH:
            yield _table(batch, shape)
            batch = []
    if shape is None:
        raise data_error("no_rows_in", path=reading.name)
    yield _table(batch, shape)


def _lines(reading: Reading, path: Path, encoding: str) -> Iterator[Any]:
    with encodings.Utf8(path.open("rb"), encoding) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        while line := lines.readline(MOST_BYTES):
            if not line.endswith(b"\n") and len(line) == MOST_BYTES:
                raise data_error("long_row", path=reading.name, most=MOST_BYTES >> 20)
            if not line.strip():
                continue
            try:
                yield msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError):
                reading.malformed += 1


def _elements(reading: Reading, path: Path, encoding: str) -> Iterator[Any]:
    """Of a JSON array, one after the other, so that it never stands in memory whole."""
    decoder = json.JSONDecoder()
    held, at = "", 0
    with (
        encodings.Utf8(path.open("rb"), encoding) as stream,
        io.TextIOWrapper(io.BufferedReader(stream), "utf8") as text,
    ):
        ended = began = False
        while True:
            while at < len(held) and (held[at].isspace() or held[at] in (",[" if not began else ",")):
                began, at = began or held[at] == "[", at + 1
            if at < len(held) and held[at] == "]":
                return
            try:
                if at == len(held):
                    raise ValueError
                element, end = decoder.raw_decode(held, at)
                # A number may go on behind what has been read.
                if end == len(held) and not ended:
                    raise ValueError
            except (ValueError, RecursionError) as error:
                if ended:
                    raise data_error("cut_short", path=reading.name) from error
                if len(held) - at > MOST_BYTES:
                    raise data_error("long_row", path=reading.name, most=MOST_BYTES >> 20) from error
                chunk = text.read(max(1 << 20, len(held) - at))
                held, at, ended = held[at:] + chunk, 0, not chunk
                continue
            yield element
            at = end


def _table(rows: list[dict[str, Any]], shape: Shape) -> pa.Table:
    made = [shapes.canonical(row, shape) for row in rows]
    return pa.table({name: pa.array([_text(row[name]) for row in made], pa.string()) for name in COLUMNS})


def _text(text: str) -> str:
    # Lone surrogates come out of JSON's escapes, and are no text.
    return text.encode("utf8", "replace").decode("utf8")


# Hubs


def _hub(reading: Reading, options: Data) -> Iterator[pa.Table]:
    import datasets

    try:
        found = datasets.load_dataset(options.hub, options.config or None, split=options.split)
    except Exception as error:
        # Whatever the hub's library and its many parts raise, to the user it is one thing.
        reason = str(error).splitlines()[0][:200]
        raise data_error("no_hub_data", name=options.hub, reason=reason) from error
    shape = _known(reading, "hub", "", list(found.column_names), options)
    for batch in found.iter(_BATCH):
        names = list(batch)
        rows = zip(*(batch[name] for name in names), strict=True)
        yield _table([dict(zip(names, row, strict=True)) for row in rows], shape)
