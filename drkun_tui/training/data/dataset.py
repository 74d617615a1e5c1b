"""From files to a data set on disk: read, cleaned, without duplicates, split."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.training.data import cleaning, duplicates, shapes, sources
from drkun_tui.training.data.cleaning import CODES
from drkun_tui.training.data.summary import (
    EDGES,
    REASONS,
    Lengths,
    Source,
    StoppedError,
    Summary,
    data_error,
)
from drkun_tui.training.data.text import Counts, Hashes, Strings, Table, Texts, folded, mix
from drkun_tui.training.recipe import Data

TRAIN, HELD_OUT, DROPPED, SUMMARY = "train.arrow", "held_out.arrow", "dropped.arrow", "summary.json"

DEMO = Path(__file__).parent.parent / "demo.jsonl"
"""The data set that ``path = "demo"`` is."""

COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("source", pa.string()),
        *((name, pa.string()) for name in ("system", "question", "reasoning", "answer")),
        ("department", pa.string()),
        ("history", pa.string()),
    ]
)
DROPPED_COLUMNS = COLUMNS.append(pa.field("reason", pa.string())).append(pa.field("detail", pa.string()))

_VERSION = 1
"""Of what is made from the same files; another one makes what lies on disk again."""

_MEASURED = ("question", "reasoning", "answer")
_ROWS, _UNFINISHED = "rows.arrow", ".unfinished"
_LEFT_OUT = ("empty", "binary", "unknown_columns", "bad_json")
"""What makes a file of a folder none of the data, and not the whole folder an error: a licence text, or the
description of a data set."""

Report = Callable[[int, int], None]
Stopped = Callable[[], bool]


def prepare(options: Data, folder: Path, seed: int, report: Report, stopped: Stopped) -> Summary:
    """`check`, and there must be something to train on.

    Raises:
        StoppedError: `stopped` said so.
        DrkunError: as `check`, and ``no_rows``.
    """
    summary = check(options, folder, seed, report, stopped)
    if not summary.usable:
        told = [f"{t(f'data.reason_{reason}')} {count}" for reason, count in summary.dropped.items()]
        raise data_error("no_rows", rows=summary.rows, dropped=", ".join(told) or "0")
    return summary


def check(options: Data, folder: Path, seed: int, report: Report, stopped: Stopped) -> Summary:
    """Write ``train.arrow``, ``held_out.arrow``, ``dropped.arrow`` (Arrow IPC streams with `COLUMNS`) and
    ``summary.json`` into a folder, or nothing. What lies there already from the same files, options and seed
    is taken as it is.

    Args:
        options: where the data are and what is left out.
        folder: made where it is not there.
        seed: of the split.
        report: told bytes (rows of a hub's data set) read so far and in all.
        stopped: asked between batches.

    Raises:
        StoppedError: `stopped` said so.
        DrkunError: a kind of the catalogue's section ``data``.
    """
    work = _Work(options, seed, report, stopped)
    inputs = work.inputs()
    with contextlib.suppress(OSError, msgspec.DecodeError):
        done = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
        if done.inputs == inputs and all((folder / name).exists() for name in (TRAIN, HELD_OUT, DROPPED)):
            return done
    aside = folder / _UNFINISHED
    try:
        # What a killed process left behind; no two prepare one folder.
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        summary = work.run(aside, inputs)
        (aside / SUMMARY).write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
        # The summary goes first and comes last: files without one count for nothing.
        (folder / SUMMARY).unlink(missing_ok=True)
        for name in (TRAIN, HELD_OUT, DROPPED, SUMMARY):
            (aside / name).replace(folder / name)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return summary


def _unwritable(folder: Path, error: OSError) -> DrkunError:
    return data_error("unwritable", folder=str(folder), reason=error.strerror or str(error))


@dataclass(slots=True)
class _Cleaned:
    """A batch of rows, and what is known of them beside their text."""

    table: Table
    reasons: npt.NDArray[np.uint8]
    keys: Hashes
    signatures: duplicates.Signatures
    lengths: npt.NDArray[np.int32]
    personal: int


@dataclass(slots=True)
class _Work:
    """One preparation."""

    options: Data
    seed: int
    report: Report
    stopped: Stopped
    files: list[sources.File] = field(default_factory=list)
    hub: sources.Hub | None = None
    told: list[Source] = field(default_factory=list)
    _row: int = 0

    def inputs(self) -> str:
        """What the result depends on, as far as can be told without reading."""
        if self.options.hub:
            self.hub = sources.Hub(self.options.hub, self.options.config, self.options.split)
            there: list[Any] = [self.hub.fingerprint]
        else:
            path = DEMO if self.options.path == "demo" else Path(self.options.path).expanduser()
            self.files = sources.files(path)
            there = [(str(file.path.absolute()), file.size, file.modified) for file in self.files]
        return self._digest(there)

    def _digest(self, what: Any) -> str:
        parts = (_VERSION, what, msgspec.to_builtins(self.options), self.seed)
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()

    def run(self, aside: Path, inputs: str) -> Summary:
        """All of it, into an empty folder."""
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(max(1, min(workers, 4))) as pool:
            digests = [(file.name, pool.submit(_digest_of, file.path)) for file in self.files]
            cleaned = self._write_rows(aside / _ROWS, pool)
            content = [(name, digest.result()) for name, digest in digests]
        return _Rows(self, aside, cleaned).split(inputs, self._digest(content or inputs))

    def _write_rows(self, path: Path, pool: ThreadPoolExecutor) -> list[_Cleaned]:
        """Every row, cleaned and judged, into one file; without their tables, the batches."""
        kept = []
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _ROW_COLUMNS) as writer:
            for batch in self._ahead(pool):
                writer.write_table(batch.table)
                batch.table = None
                kept.append(batch)
        return kept

    def _ahead(self, pool: ThreadPoolExecutor) -> Iterator[_Cleaned]:
        """Batches in their order, some of them worked on at once."""
        waiting: deque[Future[_Cleaned]] = deque()
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
    batch: sources.Batch
    shape: shapes.Shape | None


_ROW_COLUMNS = COLUMNS.append(pa.field("detail", pa.string()))


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise sources.unreadable(path, error) from error


def _clean(of: _Batch, first: int, source: str, options: Data) -> _Cleaned:
    """A batch in the canonical columns, judged. Malformed rows come last, their text as the question."""
    batch, count = of.batch, len(of.batch.numbers)
    texts = {name: pa.array([], pa.string()) for name in shapes.TEXTS}
    garbled = np.zeros(count, bool)
    if of.shape is not None and count:
        for name, column in shapes.canonical(batch.table, of.shape).items():
            # A history is JSON, in which every control character is spelt out.
            texts[name], wrong = (column, garbled) if name == "history" else cleaning.tidied(column)
            garbled = garbled | wrong
    verdict = cleaning.judge(texts, options, garbled)
    lost = sorted(batch.malformed)
    numbers = np.array([*batch.numbers, *lost], np.int64) + first
    details = [verdict.details.get(row, "") for row in range(count)] + [""] * len(lost)
    for name, column in texts.items():
        filler = [batch.malformed[row] if name == "question" else "" for row in lost]
        texts[name] = pa.concat_arrays([column, pa.array(filler, pa.string())]) if lost else column
    reasons = np.concatenate([verdict.reasons, np.full(len(lost), CODES["malformed"], np.uint8)])
    compared = folded(_compared(texts))
    table = pa.table(
        {
            "row": pa.array(numbers),
            "source": pa.array([source] * len(numbers), pa.string()),
            **texts,
            "detail": pa.array(details, pa.string()),
        }
    ).select(_ROW_COLUMNS.names)
    none = np.full((len(numbers), duplicates.BINS), 0xFFFF, np.uint16)
    return _Cleaned(
        table=table,
        reasons=reasons,
        keys=duplicates.keys(compared),
        signatures=duplicates.signatures(compared) if options.near_duplicates else none,
        lengths=np.stack([pc.utf8_length(texts[name]).to_numpy(zero_copy_only=False) for name in _MEASURED]),
        personal=int(verdict.personal.sum()),
    )


def _compared(texts: dict[str, Strings]) -> Strings:
    """What two rows are the same by: what was asked, and in a dialogue what came before."""
    history = texts["history"]
    if not pc.any(pc.greater(pc.binary_length(history), 0)).as_py():
        return texts["question"]
    return pc.binary_join_element_wise(history, texts["question"], "\n")


class _Rows:
    """All rows once they are read: duplicates, split, and the files.

    Args:
        work: whose they are.
        aside: the folder with the rows.
        batches: what is known of them.
    """

    def __init__(self, work: _Work, aside: Path, batches: list[_Cleaned]) -> None:
        self._work, self._aside = work, aside
        self._reasons = _joined([batch.reasons for batch in batches], np.uint8)
        self._keys = _joined([batch.keys for batch in batches], np.uint64)
        self._lengths = (
            np.concatenate([b.lengths for b in batches], axis=1) if batches else np.zeros((3, 0), int)
        )
        self._signatures = (
            np.concatenate([b.signatures for b in batches])
            if batches
            else np.zeros((0, duplicates.BINS), np.uint16)
        )
        self._personal = sum(batch.personal for batch in batches)
        self._same_as = np.full(len(self._reasons), -1, np.int64)

    def split(self, inputs: str, fingerprint: str) -> Summary:
        """Write the three files; what they hold."""
        options, reasons = self._work.options, self._reasons
        self._drop("duplicate", duplicates.repeated)
        if options.near_duplicates:
            self._drop_near()
        usable = np.flatnonzero(reasons == 0)
        dropped = {reason: int((reasons == code).sum()) for reason, code in CODES.items()}
        dropped = {reason: count for reason, count in dropped.items() if count}
        drawn, held_out = self._draw(usable)
        to = np.full(len(reasons), _DROPPED, np.uint8)
        to[usable] = _UNUSED
        to[drawn] = _TRAIN
        to[held_out] = _HELD_OUT
        self._write(to)
        return Summary(
            rows=len(reasons),
            usable=len(usable),
            train=len(drawn) - len(held_out),
            held_out=len(held_out),
            unused=len(usable) - len(drawn),
            dropped=dropped,
            flagged={"personal": self._personal} if self._personal else {},
            files=tuple(self._work.told),
            lengths={name: _lengths(self._lengths[n][usable]) for n, name in enumerate(_MEASURED)},
            fingerprint=fingerprint,
            inputs=inputs,
        )

    def _drop(self, reason: str, find: Callable[[Hashes], duplicates.Pairs]) -> None:
        usable = np.flatnonzero(self._reasons == 0)
        again, first = find(self._keys[usable])
        self._reasons[usable[again]] = CODES[reason]
        self._same_as[usable[again]] = usable[first]

    def _drop_near(self) -> None:
        usable = np.flatnonzero(self._reasons == 0)
        with pa.memory_map(str(self._aside / _ROWS)) as file:
            every = pa.ipc.open_stream(file).read_all()

            def texts_of(some: Counts) -> Texts:
                if self._work.stopped():
                    raise StoppedError
                table = every.select(["history", "question"]).take(usable[some])
                columns = {name: table[name].combine_chunks() for name in table.column_names}
                return folded(_compared(columns))

            again, first = duplicates.near(self._signatures[usable], texts_of)
        self._reasons[usable[again]] = CODES["near_duplicate"]
        self._same_as[usable[again]] = usable[first]

    def _draw(self, usable: Counts) -> tuple[Counts, Counts]:
        """Rows that are used, and of these the ones that are held out. Both are drawn by a hash of what was
        asked: a row that is added somewhere moves no other one into the held-out part."""
        options = self._work.options
        seed = mix(np.array([self._work.seed], np.uint64))[0]
        drawn = mix(self._keys[usable] ^ seed)
        if options.rows and options.rows < len(usable):
            order = np.argsort(mix(drawn), kind="stable")[: options.rows]
            usable, drawn = usable[order], drawn[order]
        below = drawn < np.uint64(min(int(options.held_out * 2**64), 2**64 - 1))
        candidates = np.flatnonzero(below)
        first = candidates[np.argsort(drawn[candidates], kind="stable")][: options.held_out_most]
        # Somebody must be left to train on.
        held_out = usable[first[: max(0, len(usable) - 1)]]
        return usable, held_out

    def _write(self, to: npt.NDArray[np.uint8]) -> None:
        """Each row to its file, in the order of the source."""
        with contextlib.ExitStack() as stack:
            writers = {}
            for kind, (name, schema) in _FILES.items():
                file = stack.enter_context(pa.OSFile(str(self._aside / name), "wb"))
                writers[kind] = stack.enter_context(pa.ipc.new_stream(file, schema))
            source = stack.enter_context(pa.OSFile(str(self._aside / _ROWS), "rb"))
            numbers = np.zeros(0, np.int64)
            begin = 0
            for batch in pa.ipc.open_stream(source):
                if self._work.stopped():
                    raise StoppedError
                numbers = np.concatenate([numbers, batch["row"].to_numpy()])
                part = slice(begin, begin + len(batch))
                begin += len(batch)
                table = pa.Table.from_batches([batch])
                for kind, writer in writers.items():
                    chosen = table.filter(pa.array(to[part] == kind))
                    if kind == _DROPPED:
                        chosen = self._explained(
                            chosen, np.flatnonzero(to[part] == kind) + part.start, numbers
                        )
                    else:
                        chosen = chosen.drop_columns(["detail"])
                    writer.write_table(chosen)

    def _explained(self, table: Table, rows: Counts, numbers: Counts) -> Table:
        """With the reason of each row, and of a duplicate the number of the row that it repeats."""
        reasons = [REASONS[code - 1] for code in self._reasons[rows]]
        same_as = self._same_as[rows]
        details = table["detail"].to_pylist()
        for place in np.flatnonzero(same_as >= 0):
            details[place] = str(numbers[same_as[place]])
        return (
            table.drop_columns(["detail"])
            .append_column("reason", pa.array(reasons, pa.string()))
            .append_column("detail", pa.array(details, pa.string()))
        )


_DROPPED, _UNUSED, _TRAIN, _HELD_OUT = range(4)
_FILES = {_TRAIN: (TRAIN, COLUMNS), _HELD_OUT: (HELD_OUT, COLUMNS), _DROPPED: (DROPPED, DROPPED_COLUMNS)}


def _joined(parts: list[npt.NDArray[Any]], kind: type) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _lengths(of: npt.NDArray[Any]) -> Lengths:
    if not len(of):
        return Lengths(median=0, p90=0, p99=0, most=0, histogram=(0,) * (len(EDGES) + 1))
    median, p90, p99 = np.percentile(of, (50, 90, 99), method="lower")
    bars = np.bincount(np.searchsorted(EDGES, of), minlength=len(EDGES) + 1)
    return Lengths(
        median=int(median), p90=int(p90), p99=int(p99), most=int(of.max()), histogram=tuple(map(int, bars))
    )
