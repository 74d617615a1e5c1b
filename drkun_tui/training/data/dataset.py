"""The whole way from files to ``train.arrow``, ``held_out.arrow`` and ``dropped.arrow``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.errors import DrkunError
from drkun_tui.training.data import cleaning, duplicates, sources
from drkun_tui.training.data.sources import Reading
from drkun_tui.training.data.summary import (
    EDGES,
    Lengths,
    Source,
    StoppedError,
    Summary,
    data_error,
)
from drkun_tui.training.data.text import Hashes, Texts, folded, mix
from drkun_tui.training.recipe import Data

TRAIN, HELD_OUT, DROPPED, SUMMARY = "train.arrow", "held_out.arrow", "dropped.arrow", "summary.json"

Report = Callable[[int, int], None]


def prepare(options: Data, folder: Path, seed: int, report: Report, stopped: Callable[[], bool]) -> Summary:
    """Write a folder's data set; one that was made of the same files with the same options is taken as it is.

    Args:
        options: the recipe's.
        folder: gets the files, all of them or none; it exists.
        seed: of the split.
        report: is told the bytes read and the bytes of all files; a hub data set has 0 of them.
        stopped: is asked now and then; then `StoppedError` is raised.

    Raises:
        DrkunError: the files are no data set, or nothing of them is left.
        StoppedError: somebody asked to stop.
        OSError: the folder cannot be written.
    """
    root, files = sources.files(options)
    inputs = _inputs(options, root, files, seed)
    known = read_summary(folder)
    if known is not None and known.inputs == inputs:
        return known
    aside = folder / f".preparing-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        summary = _Preparing(options, aside, seed, report, stopped, inputs).run(root, files)
        (aside / SUMMARY).write_bytes(msgspec.json.encode(summary))
        # Its summary comes last: without it a folder is none.
        (folder / SUMMARY).unlink(missing_ok=True)
        for name in (TRAIN, HELD_OUT, DROPPED, SUMMARY):
            (aside / name).replace(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return summary


def read_summary(folder: Path) -> Summary | None:
    """What a folder's data set is; None when there is none."""
    try:
        return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError):
        return None


def read_rows(path: Path) -> pa.Table:
    """The rows of one of the files, memory-mapped."""
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _inputs(options: Data, root: Path | None, files: list[Path], seed: int) -> str:
    told: list[Any] = [msgspec.to_builtins(options), seed, str(root)]
    for path in files:
        state = path.stat()
        told.append([str(path), state.st_size, state.st_mtime_ns])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class _Preparing:
    """One preparation: a pass over the files, then one over what they left."""

    def __init__(
        self,
        options: Data,
        folder: Path,
        seed: int,
        report: Report,
        stopped: Callable[[], bool],
        inputs: str,
    ) -> None:
        self._options, self._folder, self._seed = options, folder, seed
        self._report, self._stopped, self._inputs = report, stopped, inputs
        self._content = hashlib.sha256(json.dumps([msgspec.to_builtins(options), seed]).encode())
        self._rows = self._malformed = self._personal = 0
        self._dropped: Counter[str] = Counter()
        self._told: list[Source] = []
        self._keys: list[Hashes] = []
        self._signatures: list[duplicates.Signatures] = []
        self._reasons: list[Any] = []

    def run(self, root: Path | None, files: list[Path]) -> Summary:
        """All of it."""
        every = self._folder / "every.arrow"
        self._read(root, files, every)
        rows = read_rows(every)
        reasons = pa.chunked_array(self._reasons, pa.string()).combine_chunks()
        reasons = self._without_duplicates(rows, reasons)
        for name, count in cleaning.counted(reasons).items():
            self._dropped[name] = count
        usable = np.flatnonzero(pc.is_null(reasons).to_numpy(zero_copy_only=False))
        if not len(usable):
            told = ", ".join(f"{name} {count}" for name, count in self._dropped.items())
            raise data_error("no_rows", dropped=told or "0")
        train, held_out = self._split(usable)
        self._write(TRAIN, rows, train)
        self._write(HELD_OUT, rows, held_out)
        lost = np.flatnonzero(pc.is_valid(reasons).to_numpy(zero_copy_only=False))
        self._write(DROPPED, rows.append_column("reason", reasons), lost)
        every.unlink()
        if self._malformed:
            self._dropped["malformed"] = self._malformed
        return Summary(
            rows=self._rows + self._malformed,
            usable=len(usable),
            train=len(train),
            held_out=len(held_out),
            unused=len(usable) - len(train) - len(held_out),
            dropped=dict(self._dropped.most_common()),
            flagged={"personal": self._personal} if self._personal else {},
            files=tuple(self._told),
            lengths={name: _lengths(rows[name], usable) for name in ("question", "reasoning", "answer")},
            fingerprint=self._content.hexdigest(),
            inputs=self._inputs,
        )

    def _read(self, root: Path | None, files: list[Path], every: Path) -> None:
        whole, begun = sum(path.stat().st_size for path in files), 0
        readings = [
            Reading(path.relative_to(root).as_posix() if path != root else path.name, path)
            for path in files
            if root is not None
        ] or [Reading(self._options.hub, None)]
        writer = None
        try:
            for reading in readings:
                before = self._rows
                try:
                    for batch in sources.read(reading, self._options):
                        if self._stopped():
                            raise StoppedError
                        table = self._take(batch, reading.name)
                        writer = writer or pa.ipc.new_stream(str(every), table.schema)
                        writer.write_table(table)
                        self._report(begun, whole)
                except DrkunError as error:
                    # One bad file of a folder is told, and the others are read.
                    if len(readings) == 1:
                        raise
                    reading.told = msgspec.structs.replace(
                        reading.told, path=reading.name, problem=error.kind
                    )
                begun += reading.path.stat().st_size if reading.path else 0
                self._malformed += reading.malformed
                self._told.append(msgspec.structs.replace(reading.told, rows=self._rows - before))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            problems = ", ".join(f"{told.path}: {told.problem}" for told in self._told[:5])
            raise data_error("no_rows", dropped=problems or "0")

    def _take(self, batch: pa.Table, source: str) -> pa.Table:
        """Clean a batch, remember what its questions look like, and number its rows."""
        table = cleaning.cleaned(batch)
        reasons = cleaning.reasons(table, self._options)
        self._reasons.append(reasons)
        self._personal += cleaning.personal(table.filter(pc.is_null(reasons)))
        questions = folded(table["question"].combine_chunks())
        self._keys.append(duplicates.keys(questions))
        if self._options.near_duplicates:
            self._signatures.append(duplicates.signatures(questions))
        for name in table.column_names:
            for chunk in table[name].chunks:
                self._content.update(pc.binary_join(pa.array([chunk.to_pylist()]), "\0")[0].as_buffer())
        count = len(table)
        numbers = pa.array(np.arange(self._rows, self._rows + count, dtype=np.int64))
        self._rows += count
        table = table.add_column(0, "row", numbers)
        return table.add_column(1, "source", pa.array([source] * count, pa.string()))

    def _without_duplicates(self, rows: pa.Table, reasons: Any) -> Any:
        """The reasons, with those of rows whose question stands in an earlier row that stays."""
        self._key = np.concatenate(self._keys)
        stays = np.flatnonzero(pc.is_null(reasons).to_numpy(zero_copy_only=False))
        names = np.full(len(reasons), None, object)
        again, _ = duplicates.repeated(self._key[stays])
        names[stays[again]] = "duplicate"
        stays = np.delete(stays, again)
        if self._options.near_duplicates:
            questions = rows["question"]

            def texts_of(numbers: Any) -> Texts:
                return folded(questions.take(pa.array(stays[numbers])).combine_chunks())

            again, _ = duplicates.near(np.concatenate(self._signatures)[stays], texts_of)
            names[stays[again]] = "near_duplicate"
        return pc.coalesce(reasons, pa.array(names, pa.string()))

    def _split(self, usable: Any) -> tuple[Any, Any]:
        """Rows to train on and rows to hold out, each in order: by the question's words and the seed, so that
        where a row stands, and what other rows there are, says nothing."""
        scores = mix(self._key[usable] ^ mix(np.array([self._seed], np.uint64)))
        order = np.argsort(scores, kind="stable")
        options = self._options
        limit = np.uint64(int(options.held_out * 2.0**64)) if options.held_out else np.uint64(0)
        count = min(int((scores < limit).sum()), options.held_out_most)
        if options.held_out and options.held_out_most and not count and len(usable) > 9:
            count = 1
        held_out, train = order[:count], order[count:]
        if options.rows:
            train = train[: options.rows]
        return np.sort(usable[train]), np.sort(usable[held_out])

    def _write(self, name: str, rows: pa.Table, numbers: Any) -> None:
        with pa.ipc.new_stream(str(self._folder / name), rows.schema) as writer:
            for begin in range(0, len(numbers), 8192):
                if self._stopped():
                    raise StoppedError
                writer.write_table(rows.take(pa.array(numbers[begin : begin + 8192])))


def _lengths(column: Any, numbers: Any) -> Lengths:
    lengths = pc.utf8_length(column).to_numpy()[numbers]
    bars = np.histogram(lengths, [0, *(edge + 1 for edge in EDGES), max(int(lengths.max()), EDGES[-1]) + 2])[
        0
    ]
    return Lengths(
        median=int(np.percentile(lengths, 50)),
        p90=int(np.percentile(lengths, 90)),
        p99=int(np.percentile(lengths, 99)),
        most=int(lengths.max()),
        histogram=tuple(int(bar) for bar in bars),
    )
