"""A prepared data set looked at: its examples as the model is trained on them, and the rows left out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.client import error_of
from drkun_tui.training import tokens
from drkun_tui.training.checking.protocol import Row, Segment, Shown, Tokens
from drkun_tui.training.data.splitting import DROPPED, FLAGGED, HELD_OUT, TRAIN
from drkun_tui.training.data.summary import EDGES, FLAGS, StoppedError
from drkun_tui.training.rendering import IGNORED, Renderer, Tokenizer

AT_ONCE = 256
"""Examples that are tokenized between two looks at whether to stop."""


def renderer(tokenizer: Tokenizer, template: str) -> Renderer:
    """A renderer, whose faults are told as every other.

    Raises:
        DrkunError: the template is broken.
    """
    try:
        return Renderer(tokenizer, template)
    except EngineError as error:
        raise error_of(error.kind, **error.values) from error


def measure(
    folder: Path,
    model: str,
    rendering: Renderer,
    system: str,
    context_length: int,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Tokens:
    """Tokenize every example of a folder that `drkun_tui.training.data.dataset.check` has filled.

    Args:
        folder: with the prepared data.
        model: whose tokens they are.
        rendering: the model's.
        system: of the examples that bring none.
        context_length: most tokens of one.
        report: told examples so far and in all.
        stopped: asked now and then.

    Raises:
        StoppedError: `stopped` said so.
        DrkunError: the template refuses an example.
    """
    count = _count(folder)
    every = max(1, count // tokens.PROVED)
    lengths, trained = array("l"), array("l")
    lost_row = 0
    try:
        for rows in _batches(folder):
            if stopped():
                raise StoppedError
            examples = [tokens.example(row, system) for row in rows]
            for row, example, (ids, labels) in zip(rows, examples, rendering.tokenize(examples), strict=True):
                if len(lengths) % every == 0 and not (lost_row or rendering.keeps_everything(example, ids)):
                    lost_row = int(row["row"]) + 1
                lengths.append(len(ids))
                trained.append(sum(label != IGNORED for label in labels[:context_length]))
            report(len(lengths), count)
    except EngineError as error:
        raise error_of(error.kind, **error.values) from error
    of, kept = np.array(lengths, np.int64), np.array(trained, np.int64)
    median, p95 = np.percentile(of, (50, 95), method="lower") if count else (0, 0)
    return Tokens(
        model=model,
        examples=count,
        total=int(of.sum()),
        trained=int(kept.sum()),
        median=int(median),
        p95=int(p95),
        max=int(of.max(initial=0)),
        context_length=context_length,
        longer=int((of > context_length).sum()),
        masked=int((kept == 0).sum()),
        lost_row=lost_row,
        histogram=tuple(map(int, np.bincount(np.searchsorted(EDGES, of), minlength=len(EDGES) + 1))),
    )


def examples(
    folder: Path, rendering: Renderer, system: str, context_length: int, limit: int, offset: int = 0
) -> list[Shown]:
    """The examples from `offset` on, decoded from the tokens that are trained on."""
    shown: list[Shown] = []
    for rows in _batches(folder):
        wanted = rows[offset : offset + limit - len(shown)]
        offset = max(0, offset - len(rows))
        tokenized = rendering.tokenize([tokens.example(row, system) for row in wanted])
        shown += [
            _shown(row, ids, labels, rendering, context_length)
            for row, (ids, labels) in zip(wanted, tokenized, strict=True)
        ]
        if len(shown) >= limit:
            break
    return shown


def _shown(
    row: dict[str, Any], ids: list[int], labels: list[int], rendering: Renderer, context_length: int
) -> Shown:
    kept = slice(context_length)
    segments = tuple(Segment(*each) for each in rendering.segments(ids[kept], labels[kept]))
    return Shown(
        row=row["row"],
        source=row["source"],
        tokens=len(ids),
        trained=sum(segment.tokens for segment in segments if segment.trained),
        cut=max(0, len(ids) - context_length),
        segments=segments,
    )


def preview(folder: Path, limit: int) -> list[dict[str, Any]]:
    """The first rows that are trained on, as they are in the file."""
    return next(_batches(folder), [])[:limit]


def rows(folder: Path, reason: str, limit: int, offset: int = 0) -> list[Row]:
    """The rows from `offset` on that were left out, or are flagged, for a reason."""
    found: list[Row] = []
    for batch in _stream(folder / (FLAGGED if reason in FLAGS else DROPPED)):
        of = batch.filter(pc.equal(batch["reason"], reason))
        wanted = of.slice(min(offset, len(of)), limit - len(found))
        offset = max(0, offset - len(of))
        found += [msgspec.convert(row, Row) for row in wanted.to_pylist()]
        if len(found) >= limit:
            break
    return found


def _stream(path: Path) -> Iterator[Any]:
    with pa.OSFile(str(path), "rb") as file:
        yield from pa.ipc.open_stream(file)


def _batches(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The examples, those to train on first."""
    for name in (TRAIN, HELD_OUT):
        for batch in _stream(folder / name):
            for begin in range(0, len(batch), AT_ONCE):
                yield batch.slice(begin, AT_ONCE).to_pylist()


def _count(folder: Path) -> int:
    return sum(len(batch) for name in (TRAIN, HELD_OUT) for batch in _stream(folder / name))
