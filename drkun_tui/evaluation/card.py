"""What an evaluation has found, as a section of an adapter's card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from drkun_tui.evaluation.faults import evaluation_error
from drkun_tui.evaluation.protocol import Difference, Result, written
from drkun_tui.jobs.detached import write_whole
from drkun_tui.library import inventory, provenance
from drkun_tui.library.plan import folders
from drkun_tui.settings import Settings

CARD = "README.md"
HEADING = "## Evaluation"

_NAMES = {
    "loss": "response loss",
    "perplexity": "response perplexity",
    "bleu4": "BLEU-4, characters",
    "rouge1": "ROUGE-1, words",
    "rouge2": "ROUGE-2, words",
    "rougeL": "ROUGE-L, words",
    "accuracy": "multiple choice, exactly right",
    "department": "department, right",
    "parsed": "a choice can be read",
    "ends": "ends by itself",
    "closes": "closes its reasoning",
    "repeats": "repeats itself",
    "advised": "emergency advice where there are signs of one",
}


def section(result: Result, before: Result | None = None, differences: Sequence[Difference] = ()) -> str:
    """Markdown: a table of the figures, beside those of the model before where there are some.

    Args:
        before: an evaluation of the same questions.
        differences: between the two.
    """
    shown = {difference.name: difference for difference in differences}
    head = ["", *([before.adapter or before.model] if before else []), result.adapter or result.model]
    head += ["95 % interval", "questions", *(["difference"] if before else [])]
    rows = []
    for figure in result.figures:
        name = figure.name
        cells = [_NAMES[name]]
        if before:
            old = before.figure(name)
            cells.append(written(name, old.value) if old else "")
        cells += [
            written(name, figure.value),
            f"{written(name, figure.low)} to {written(name, figure.high)}",
            str(figure.count),
        ]
        if before:
            cells.append(("shown" if shown[name].shown else "none shown") if name in shown else "")
        rows.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
    told = f"{result.questions} questions of {result.suite}, temperature {result.sampling['temperature']:g}."
    if result.overlap is not None and result.overlap.rows:
        told += (
            f" Of these, {result.overlap.same} stand among the {result.overlap.rows} training examples "
            f"in the same words and {result.overlap.near} in almost the same."
        )
    if before:
        told += " Differences by McNemar's exact test or the paired bootstrap, at 95 %."
    return f"### {result.suite}\n\n{table}\n\n{told}\n\n{result.signature}.\n"


def add(
    settings: Settings, result: Result, before: Result | None = None, differences: Sequence[Difference] = ()
) -> Path:
    """Put what an evaluation has found into the card of its adapter; the card.

    Args:
        settings: with which it was evaluated.

    Raises:
        DrkunError: ``no_card``, ``unwritable``, or there is no such adapter any more.
    """
    if not settings.adapter:
        raise evaluation_error("no_card", folder=result.model)
    adapter = inventory.find(settings.adapter, folders(settings))
    try:
        write(adapter.path, section(result, before, differences))
    except OSError as error:
        reason = error.strerror or str(error)
        raise evaluation_error("unwritable", folder=str(adapter.path), reason=reason) from error
    return adapter.path / CARD


def write(adapter: Path, text: str) -> None:
    """Put a section into the card of an adapter, in the place of an earlier one on the same suite.

    Raises:
        DrkunError: ``no_card``, the adapter was not trained by this program.
        OSError: it cannot be written.
    """
    path = adapter / CARD
    try:
        trained = provenance.read(adapter) is not None
        card = path.read_text("utf8")
    except (OSError, ValueError):
        trained = False
    if not trained:
        raise evaluation_error("no_card", folder=adapter.name)
    before, _, behind = card.partition(f"\n{HEADING}\n")
    # Other sections below are people's own.
    old, *after = re.split(r"(?m)^(?=##? )", behind, maxsplit=1)
    name = text.splitlines()[0]
    kept = [part for part in re.split(r"(?m)^(?=### )", old.strip()) if part.strip()]
    kept = [part.strip() for part in kept if part.splitlines()[0] != name]
    whole = "\n\n".join([before.strip(), HEADING, *kept, text.strip(), *(part.strip() for part in after)])
    write_whole(path, f"{whole}\n".encode())
