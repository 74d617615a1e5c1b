"""All rows once they are read: without duplicates, split, and each in the file where it belongs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from drkun_tui.training.data import duplicates
from drkun_tui.training.data.cleaning import CODES, Flags
from drkun_tui.training.data.reading import COLUMNS, MEASURED, Cleaned, Stopped, compared
from drkun_tui.training.data.summary import EDGES, REASONS, Lengths, Split, StoppedError
from drkun_tui.training.data.text import Counts, Hashes, Table, Texts, folded, mix
from drkun_tui.training.recipe import Data

TRAIN, HELD_OUT, DROPPED, FLAGGED = "train.arrow", "held_out.arrow", "dropped.arrow", "flagged.arrow"
"""Arrow IPC streams: the rows to train on, the ones held out, the ones left out with their reason; and once
more those that are kept and ought to be looked at."""

EXPLAINED_COLUMNS = COLUMNS.append(pa.field("reason", pa.string())).append(pa.field("detail", pa.string()))
"""Of `DROPPED` and `FLAGGED`."""


class Rows:
    """All rows of a data set.

    Args:
        path: the file that they were written to.
        batches: what is known of them.
        options: what is left out, and how they are split.
        seed: of the split.
        stopped: asked now and then; then `StoppedError` is raised.
    """

    def __init__(
        self, path: Path, batches: list[Cleaned], options: Data, seed: int, stopped: Stopped
    ) -> None:
        self._path, self._options, self._seed, self._stopped = path, options, seed, stopped
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
        self._personal: Flags = _joined([batch.personal for batch in batches], np.bool_)
        self._same_as = np.full(len(self._reasons), -1, np.int64)

    def split(self, folder: Path) -> Split:
        """Write the four files into a folder; what they hold."""
        options, reasons = self._options, self._reasons
        self._drop("duplicate", duplicates.repeated)
        if options.near_duplicates:
            self._drop_near()
        usable = np.flatnonzero(reasons == 0)
        # What is left out needs no second look.
        self._personal &= reasons == 0
        dropped = {reason: int((reasons == code).sum()) for reason, code in CODES.items()}
        drawn, held_out = self._draw(usable)
        to = np.full(len(reasons), _DROPPED, np.uint8)
        to[usable] = _UNUSED
        to[drawn] = _TRAIN
        to[held_out] = _HELD_OUT
        self._write(to, folder)
        flagged = int(self._personal.sum())
        return Split(
            rows=len(reasons),
            usable=len(usable),
            train=len(drawn) - len(held_out),
            held_out=len(held_out),
            unused=len(usable) - len(drawn),
            dropped={reason: count for reason, count in dropped.items() if count},
            flagged={"personal": flagged} if flagged else {},
            lengths={name: _lengths(self._lengths[n][usable]) for n, name in enumerate(MEASURED)},
        )

    def _drop(self, reason: str, find: Callable[[Hashes], duplicates.Pairs]) -> None:
        usable = np.flatnonzero(self._reasons == 0)
        again, first = find(self._keys[usable])
        self._reasons[usable[again]] = CODES[reason]
        self._same_as[usable[again]] = usable[first]

    def _drop_near(self) -> None:
        usable = np.flatnonzero(self._reasons == 0)
        with pa.memory_map(str(self._path)) as file:
            batches = list(pa.ipc.open_stream(file))
            begins = np.cumsum([0, *map(len, batches)])

            def texts_of(some: Counts) -> Texts:
                if self._stopped():
                    raise StoppedError
                rows, places = np.unique(usable[some], return_inverse=True)
                # Arrow would put whole columns together to take a few rows of them.
                parts = np.split(rows, np.searchsorted(rows, begins[1:-1]))
                taken = [
                    batch.select(["history", "question"]).take(pa.array(part - begin))
                    for batch, part, begin in zip(batches, parts, begins[:-1], strict=True)
                    if len(part)
                ]
                table = pa.Table.from_batches(taken).combine_chunks().take(pa.array(places))
                columns = {name: table[name].combine_chunks() for name in table.column_names}
                return folded(compared(columns))

            again, first = duplicates.near(self._signatures[usable], texts_of)
        self._reasons[usable[again]] = CODES["near_duplicate"]
        self._same_as[usable[again]] = usable[first]

    def _draw(self, usable: Counts) -> tuple[Counts, Counts]:
        """Rows that are used, and of these the ones that are held out. Both are drawn by a hash of what was
        asked: a row that is added somewhere moves no other one into the held-out part."""
        options = self._options
        seed = mix(np.array([self._seed], np.uint64))[0]
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

    def _write(self, to: npt.NDArray[np.uint8], folder: Path) -> None:
        """Each row to its file, in the order of the source."""
        with contextlib.ExitStack() as stack:

            def opened(name: str, schema: Any) -> Any:
                file = stack.enter_context(pa.OSFile(str(folder / name), "wb"))
                return stack.enter_context(pa.ipc.new_stream(file, schema))

            kept = {kind: opened(name, COLUMNS) for kind, name in ((_TRAIN, TRAIN), (_HELD_OUT, HELD_OUT))}
            dropped, flagged = (opened(name, EXPLAINED_COLUMNS) for name in (DROPPED, FLAGGED))
            source = stack.enter_context(pa.OSFile(str(self._path), "rb"))
            numbers = np.zeros(0, np.int64)
            begin = 0
            for batch in pa.ipc.open_stream(source):
                if self._stopped():
                    raise StoppedError
                numbers = np.concatenate([numbers, batch["row"].to_numpy()])
                part = slice(begin, begin + len(batch))
                begin += len(batch)
                table = pa.Table.from_batches([batch])
                for kind, writer in kept.items():
                    writer.write_table(table.filter(pa.array(to[part] == kind)).drop_columns(["detail"]))
                out = to[part] == _DROPPED
                rows = np.flatnonzero(out) + part.start
                dropped.write_table(self._explained(table.filter(pa.array(out)), rows, numbers))
                personal = table.filter(pa.array(self._personal[part]))
                flagged.write_table(
                    _with(personal, ["personal"] * len(personal), personal["detail"].to_pylist())
                )

    def _explained(self, table: Table, rows: Counts, numbers: Counts) -> Table:
        """With the reason of each row, and of a duplicate the number of the row that it repeats."""
        reasons = [REASONS[code - 1] for code in self._reasons[rows]]
        same_as = self._same_as[rows]
        details = table["detail"].to_pylist()
        for place in np.flatnonzero(same_as >= 0):
            details[place] = str(numbers[same_as[place]])
        return _with(table, reasons, details)


def _with(table: Table, reasons: list[str], details: list[str]) -> Table:
    return (
        table.drop_columns(["detail"])
        .append_column("reason", pa.array(reasons, pa.string()))
        .append_column("detail", pa.array(details, pa.string()))
    )


_DROPPED, _UNUSED, _TRAIN, _HELD_OUT = range(4)


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
