"""From the rows on disk to the tokens on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drkun_tui.training.faults import StopRequested, TrainingError
from drkun_tui.training.rendering import IGNORED, Example, Renderer

if TYPE_CHECKING:
    from datasets import Dataset

PROVED = 256
"""Examples of which it is proved, before the first step, that nothing of them is lost in the rendering."""

_COLUMNS = ("question", "answer", "reasoning", "system", "history")


def example(row: dict[str, Any], system: str = "") -> Example:
    """A row of the prepared data as an example.

    Args:
        system: of those that bring none.
    """
    told = {name: row[name] or "" for name in _COLUMNS}
    return Example(**{**told, "system": told["system"] or system})


def tokenized(
    rows: Path,
    made: str,
    renderer: Renderer,
    system: str,
    context_length: int,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Dataset, int]:
    """The examples of an Arrow file as ``input_ids`` and ``labels``, with how many tokens they have
    (``length``) and how many of them are in the response (``trained``), kept in a file beside it.

    Longer ones are left out, and counted: cut, they would teach answers that never end.

    Args:
        rows: as `drkun_tui.training.data` writes them.
        made: tells apart what is made of the same rows in different ways.
        system: of the examples that bring none.
        context_length: most tokens of one.
        stopped: is asked now and then; then `StopRequested` is raised.

    Returns:
        The examples, and how many were left out.

    Raises:
        TrainingError: ``reasoning_lost`` or ``all_masked``.
        EngineError: the template refuses a row.
    """
    from datasets import Dataset

    given = Dataset.from_file(str(rows))
    _prove(given, renderer, system)

    def tokens(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if stopped():
            raise StopRequested
        names = [name for name in _COLUMNS if name in batch]
        columns = zip(*(batch[name] for name in names), strict=True)
        examples = [example(dict(zip(names, values, strict=True)), system) for values in columns]
        told: dict[str, list[Any]] = {"input_ids": [], "labels": [], "length": [], "trained": []}
        for ids, labels in renderer.tokenize(examples):
            trained = len(labels) - labels.count(IGNORED)
            if len(ids) <= context_length:
                for name, value in zip(told, (ids, labels, len(ids), trained), strict=True):
                    told[name].append(value)
        return told

    found = given.map(
        tokens,
        batched=True,
        batch_size=256,
        remove_columns=given.column_names,
        cache_file_name=str(rows.with_suffix(f".{made}.tokens")),
        new_fingerprint=f"{rows.stem}-{made}",
    )
    if len(given) and not len(found):
        prompts = [labels.count(IGNORED) for _, labels in renderer.tokenize([example(given[0], system)])]
        raise TrainingError(
            "all_masked", rows=len(given), context_length=context_length, prompt=max(prompts, default=0)
        )
    return found, len(given) - len(found)


def _prove(given: Dataset, renderer: Renderer, system: str) -> None:
    """Compare the decoded tokens of some examples, spread over all of them, with the rows."""
    every = max(1, len(given) // PROVED)
    for number in range(0, len(given), every):
        row = given[number]
        shown = example(row, system)
        ((ids, _),) = renderer.tokenize([shown])
        if not renderer.keeps_everything(shown, ids):
            raise TrainingError("reasoning_lost", row=int(row["row"]) + 1)
