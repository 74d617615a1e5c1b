"""Which questions of a suite stand in the data that a model was fine-tuned on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from drkun_tui.evaluation.protocol import Seen
from drkun_tui.training.data import duplicates
from drkun_tui.training.data.text import Counts, Texts, folded

AT_ONCE = 8192


class Trained:
    """The questions that a model was fine-tuned on.

    Args:
        rows: its run's ``train.arrow``.

    Raises:
        OSError: it cannot be read.
        pa.ArrowInvalid: it is damaged.
    """

    def __init__(self, rows: Path) -> None:
        # Mapped, not read: what is compared is taken out by and by.
        self._questions = pa.ipc.open_stream(pa.memory_map(str(rows))).read_all()["question"]
        kept = [(duplicates.keys(texts), duplicates.signatures(texts)) for texts in _parts(self._questions)]
        self._keys = np.concatenate([keys for keys, _ in kept]) if kept else np.zeros(0, np.uint64)
        self._signatures = (
            np.concatenate([signatures for _, signatures in kept])
            if kept
            else np.zeros((0, duplicates.BINS), np.uint16)
        )

    def __len__(self) -> int:
        return len(self._keys)

    def seen(self, questions: Sequence[str]) -> list[Seen]:
        """Of each question, does it stand among them in the same words, or in almost the same?

        Of the latter some may be missed: of trained questions that share a band of the signature, the first
        and the last one are compared.
        """
        ours = pa.array(questions, pa.string())
        texts = folded(ours)
        same = np.isin(duplicates.keys(texts), self._keys)
        every = np.concatenate([self._signatures, duplicates.signatures(texts)])
        before = len(self)

        def texts_of(some: Counts) -> Texts:
            """Of rows of both; each is asked for in its order."""
            of_trained = self._questions.take(pa.array(some[some < before])).to_pylist()
            of_ours = [questions[row - before] for row in some[some >= before]]
            merged = np.empty(len(some), object)
            merged[some < before], merged[some >= before] = of_trained, of_ours
            return folded(pa.array(merged.tolist(), pa.string()))

        later, _ = duplicates.near(every, texts_of, before)
        near = np.zeros(len(questions), bool)
        near[later[later >= before] - before] = True
        return ["same" if s else "near" if n else "" for s, n in zip(same, near, strict=True)]


def _parts(questions: pa.ChunkedArray) -> Iterator[Texts]:
    for begin in range(0, len(questions), AT_ONCE):
        part = questions.slice(begin, AT_ONCE)
        yield folded(pa.array(part.to_pylist(), pa.string()))
