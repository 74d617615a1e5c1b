"""The examples of a run as tokens, from files to what the trainer takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow.compute as pc
from datasets import Dataset

from drkun_tui.training import tokens
from drkun_tui.training.data.dataset import SUMMARY, prepare
from drkun_tui.training.data.splitting import HELD_OUT, TRAIN
from drkun_tui.training.data.summary import StoppedError, Summary
from drkun_tui.training.faults import StopRequested, TrainingError
from drkun_tui.training.protocol import Prepared, Values, Warned
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.rendering import Renderer

if TYPE_CHECKING:
    from drkun_tui.training.job import Teller


class Examples:
    """What is trained on and what is held out; a run that goes on finds both in its folder.

    Args:
        folder: where they are kept.

    Attributes:
        train: the examples to train on, ``input_ids`` and ``labels``.
        held_out: those on which the loss is looked at; None when there are none.
        sample: the one whose question is asked now and then.
        reasons: has the sample reasoning?
        prepared: what to tell of them.

    Raises:
        TrainingError: nothing of them can be trained on.
        DrkunError: the files are no data set.
        StopRequested: somebody asked to stop.
    """

    def __init__(self, recipe: Recipe, folder: Path, renderer: Renderer, teller: Teller) -> None:
        options, length = recipe.data, recipe.training.context_length

        def unheard(_done: int, _whole: int) -> None:
            """The run's phase says enough: reading takes seconds."""

        def stopped() -> bool:
            return teller.stop_requested

        # What the run has begun with it ends with, whatever has become of the files.
        summary = _found(folder)
        if summary is None:
            try:
                summary = prepare(options, folder, recipe.training.seed, unheard, stopped)
            except StoppedError as error:
                raise StopRequested from error
        made = f"{summary.fingerprint[:12]}-{options.template}-{length}"

        def read(name: str) -> tuple[Dataset, int]:
            return tokens.tokenized(folder / name, made, renderer, options.system, length, stopped)

        self.train, cut = read(TRAIN)
        self.held_out = None
        if summary.held_out:
            try:
                self.held_out = read(HELD_OUT)[0]
            except TrainingError as error:
                # Those to train on are there.
                if error.kind != "all_masked":
                    raise
                teller.event(Warned(kind="no_held_out", values=error.values))
        if cut:
            values: Values = {"rows": cut, "of": summary.train}
            teller.event(Warned(kind="some_masked", values=values))
        first = Dataset.from_file(str(folder / (HELD_OUT if self.held_out else TRAIN)))[0]
        self.sample = tokens.example(first, options.system)
        self.reasons = bool(self.sample.reasoning)
        self.prepared = Prepared(
            rows=len(self.train),
            held_out=len(self.held_out) if self.held_out else 0,
            tokens=_sum(self.train, "length"),
            trained_tokens=_sum(self.train, "trained"),
            dropped=summary.dropped,
            fingerprint=summary.fingerprint,
        )


def _found(folder: Path) -> Summary | None:
    """What the run has prepared before, if it is whole and usable: files without a summary are not."""
    try:
        told = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError):
        return None
    return told if told.usable else None


def _sum(examples: Dataset, column: str) -> int:
    return int(pc.sum(examples.data.column(column)).as_py())
