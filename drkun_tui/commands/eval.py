"""``drkun eval``: questions of a suite, answered, measured, and compared with an earlier evaluation."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from drkun_tui.commands.choice import chosen
from drkun_tui.commands.following import StatusLine, on_interrupt
from drkun_tui.errors import EXIT_DONE, EXIT_INTERRUPTED, DrkunError
from drkun_tui.evaluation import card
from drkun_tui.evaluation.evaluations import Evaluation, Evaluations
from drkun_tui.evaluation.faults import error_of, evaluation_error
from drkun_tui.evaluation.protocol import (
    Answered,
    Difference,
    Event,
    Failed,
    Figure,
    Loaded,
    Order,
    Prepared,
    Result,
    Stopped,
    written,
)
from drkun_tui.i18n import t
from drkun_tui.library import inventory
from drkun_tui.library.plan import folders, plan_load
from drkun_tui.settings import Settings
from drkun_tui.training.runs import Run, Runs, find
from drkun_tui.ui.progress import duration
from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.typeset.sanitise import clean, one_line

BAR = 24
"""Cells of a bar of the chart, which are of ASCII: terminals disagree on the width of block characters."""

PACKAGES = ("numpy", "pyarrow", "sacrebleu", "rouge_score", "rjieba")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, go on with an evaluation, or show what one has found."""
    settings = chosen(arguments)
    evaluations = Evaluations()
    if sum(map(bool, (arguments.suite, arguments.resume, arguments.show, arguments.list))) != 1:
        raise evaluation_error("bad_usage")
    if arguments.list:
        _list(asyncio.run(evaluations.all()), as_json=arguments.json)
        return EXIT_DONE
    try:
        return asyncio.run(_run(arguments, settings, evaluations))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(arguments: argparse.Namespace, settings: Settings, evaluations: Evaluations) -> int:
    # Looked for first: nobody waits an hour to hear that it is not there.
    before = await evaluations.get(arguments.against) if arguments.against else None
    if before is not None and before.result is None:
        raise evaluation_error("no_result", id=before.id)
    if arguments.show:
        found = await evaluations.get(arguments.show)
    else:
        if arguments.resume:
            found = await evaluations.resume(arguments.resume)
        else:
            found = await evaluations.start(_order(arguments, settings, await Runs().all()))
        print(t("evaluation.begun", id=found.id), file=sys.stderr)
        if arguments.detach:
            if arguments.json:
                print(msgspec.json.encode({"id": found.id}).decode())
            return EXIT_DONE
        await _follow(evaluations, found, before, quiet=arguments.json)
        found = await evaluations.get(found.id)
    result = found.result
    if result is None:
        raise found.error or evaluation_error("no_result", id=found.id)
    differences: Sequence[Difference] = ()
    if before is not None:
        comparison = importlib.import_module("drkun_tui.evaluation.comparison")
        differences = comparison.compare(evaluations, before, found)
    if arguments.card:
        place = _write_card(found, result, before.result if before else None, differences)
        print(t("evaluation.card_written", file=str(place)), file=sys.stderr)
    if arguments.json:
        told = msgspec.to_builtins(result)
        told["differences"] = msgspec.to_builtins(tuple(differences)) if before else None
        print(json.dumps(told, ensure_ascii=False))
    else:
        _print(result, before.result if before else None, differences)
    return EXIT_DONE


def _order(arguments: argparse.Namespace, settings: Settings, runs: list[Run]) -> Order:
    """What is evaluated. Answers are greedy where the command line says nothing else.

    Raises:
        DrkunError: there is no such suite, model or adapter, or a package is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise evaluation_error("packages_missing", reason=", ".join(missing))
    sampling = settings.sampling
    if arguments.temperature is None:
        sampling = msgspec.structs.replace(sampling, temperature=0.0)
    if arguments.seed is None:
        sampling = msgspec.structs.replace(sampling, seed=0)
    settings = msgspec.structs.replace(settings, sampling=sampling)
    plan_load(settings)
    path = Path(arguments.suite).expanduser()
    run = None if path.exists() else find(runs, arguments.suite)
    if run is None and not path.exists():
        raise evaluation_error("no_suite", suite=arguments.suite)
    return Order(
        suite=run.id if run is not None else str(path.absolute()),
        is_run=run is not None,
        task=arguments.task,
        limit=arguments.limit,
        sequences=arguments.sequences,
        settings=settings,
    )


async def _follow(
    evaluations: Evaluations, evaluation: Evaluation, before: Evaluation | None, *, quiet: bool
) -> None:
    """Show progress until it ends.

    Args:
        before: what it will be compared with; it is stopped where its questions are others.

    Raises:
        DrkunError: it failed, or was stopped.
    """
    stopping = on_interrupt()
    progress = _Progress(quiet=quiet)
    last: Event | None = None

    async def stop() -> None:
        await stopping.wait()
        await evaluations.request_stop(evaluation.id)

    asking = asyncio.ensure_future(stop())
    try:
        async for event, _ in evaluations.follow(evaluation.id):
            progress.add(event)
            if isinstance(event, Prepared) and before and not _asked_the_same(before, event):
                await evaluations.stop(evaluation.id)
                raise evaluation_error("other_questions", before=before.id, after=evaluation.id)
            # What an earlier process told of its end no longer counts when another goes on.
            last = event
    finally:
        asking.cancel()
        progress.end()
    if isinstance(last, Failed):
        raise error_of(last.kind, last.values)
    if isinstance(last, Stopped):
        hint = t("evaluation.stopped_hint", id=evaluation.id)
        raise DrkunError("stopped", t("evaluation.stopped"), hint, EXIT_INTERRUPTED)


def _asked_the_same(before: Evaluation, prepared: Prepared) -> bool:
    return before.result is not None and before.result.fingerprint == prepared.fingerprint


class _Progress:
    """One line that is written anew: how many of how many, how fast, how much longer.

    Args:
        quiet: a program reads standard output.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._line = StatusLine(quiet=quiet)
        self._total = self._done = self._before = 0
        self._began = 0.0

    def add(self, event: Event) -> None:
        """Show what is new."""
        if isinstance(event, Prepared):
            if not self._total:
                self._told(event)
            self._total = event.questions
        elif isinstance(event, Loaded):
            self._began, self._before = event.at, self._done
        elif isinstance(event, Answered):
            self._done += 1
            self._show(event.at)

    def _told(self, prepared: Prepared) -> None:
        values = {"questions": prepared.questions, "rows": prepared.rows, "suite": prepared.suite}
        self._line.keep(t("evaluation.prepared", **values))
        if prepared.dropped:
            self._line.keep(t("evaluation.dropped", reasons=_reasons(prepared.dropped)))

    def _show(self, at: float) -> None:
        new = self._done - self._before
        rate = new / (at - self._began) if at > self._began else 0.0
        left = duration((self._total - self._done) / rate) if rate else ""
        told = {"done": self._done, "total": self._total, "rate": f"{rate:.1f}", "left": left}
        self._line.show(t("evaluation.progress", **told))

    def end(self) -> None:
        """Leave a clean line."""
        self._line.clear()


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{t(f'evaluation.reason_{reason}')} {count}" for reason, count in dropped.items())


# What was found


def _print(result: Result, before: Result | None, differences: Sequence[Difference]) -> None:
    """Table, chart, and what the figures should be read with."""
    print(one_line(t("evaluation.of", **_names(result)), 200))
    print()
    _table(_figures(result, before, differences), left=(0, 5))
    if bars := [_bar(figure) for figure in result.figures if figure.is_share]:
        print()
        _table(bars, left=(0, 1))
    print()
    for line in _remarks(result, before):
        print(clean(line))


def _names(result: Result) -> dict[str, str | int]:
    model = f"{result.model} + {result.adapter}" if result.adapter else result.model
    return {"suite": result.suite, "model": model, "questions": result.questions}


def _figures(result: Result, before: Result | None, differences: Sequence[Difference]) -> list[list[str]]:
    shown = {difference.name: difference for difference in differences}
    head = ["metric", *(["before", "after"] if before else ["value"]), "interval", "count"]
    rows = [[t(f"evaluation.{name}") for name in (*head, *(["difference"] if before else []))]]
    for figure in result.figures:
        name = figure.name
        row = [t(f"evaluation.metric_{name}")]
        if before:
            old = before.figure(name)
            row.append(written(name, old.value) if old else "")
        between = f"{written(name, figure.low)} – {written(name, figure.high)}"
        row += [written(name, figure.value), between, str(figure.count)]
        if before:
            row.append(_difference(shown[name]) if name in shown else "")
        rows.append(row)
    return rows


def _difference(difference: Difference) -> str:
    if difference.p is not None:
        p = t("evaluation.p_small") if difference.p < 0.001 else f"p = {difference.p:.3f}"
    else:
        low, high = (written(difference.name, bound) for bound in (difference.low, difference.high))
        p = f"{low} – {high}"
    return t("evaluation.shown" if difference.shown else "evaluation.none_shown", p=p)


def _bar(figure: Figure) -> list[str]:
    """A share as a bar, with its interval between brackets."""
    cells = ["=" if place < round(figure.value * BAR) else "." for place in range(BAR)]
    cells.insert(round(figure.high * BAR), "]")
    cells.insert(round(figure.low * BAR), "[")
    return [t(f"evaluation.metric_{figure.name}"), "".join(cells), written(figure.name, figure.value)]


def _table(rows: list[list[str]], left: Sequence[int]) -> None:
    widths = fit_columns(rows, [48] * len(rows[0]))
    for row in rows:
        cells = [
            cell(text, width, right=column not in left)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(GAP.join(cells).rstrip())


def _remarks(result: Result, before: Result | None) -> list[str]:
    lines = []
    if result.overlap is not None:
        told = result.overlap
        values = {"same": told.same, "near": told.near, "rows": told.rows, "questions": result.questions}
        lines.append(t("evaluation.overlap" if told.rows else "evaluation.overlap_unknown", **values))
    if result.failed:
        kinds = ", ".join(f"{kind} {count}" for kind, count in result.failed.items())
        lines.append(t("evaluation.failed", kinds=kinds))
    if result.dropped:
        lines.append(t("evaluation.dropped", reasons=_reasons(result.dropped)))
    if before is not None:
        lines.append(t("evaluation.how_compared"))
    if result.demonstration:
        lines.append(t("evaluation.demonstration"))
    rate = result.questions / result.seconds if result.seconds else 0.0
    lines.append(t("evaluation.took", time=duration(result.seconds), rate=f"{rate:.1f}", id=result.id))
    return lines


def _write_card(
    evaluation: Evaluation, result: Result, before: Result | None, differences: Sequence[Difference]
) -> Path:
    settings = evaluation.order.settings
    if not settings.adapter:
        raise evaluation_error("no_card", folder=result.model)
    adapter = inventory.find(settings.adapter, folders(settings))
    try:
        card.write(adapter.path, card.section(result, before, differences))
    except OSError as error:
        raise evaluation_error(
            "unwritable", folder=str(adapter.path), reason=error.strerror or str(error)
        ) from error
    return adapter.path / card.CARD


def _list(found: list[Evaluation], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"evaluations": [_as_dict(each) for each in found]}, ensure_ascii=False))
    elif not found:
        print(t("evaluation.none"))
    else:
        head = [t(f"evaluation.{name}") for name in ("id", "suite", "model", "phase", "when")]
        _table([head, *map(_row, found)], left=range(5))


def _row(evaluation: Evaluation) -> list[str]:
    settings = evaluation.order.settings
    updated = time.localtime(evaluation.updated)
    return [
        evaluation.id,
        one_line(Path(evaluation.order.suite).name, 40),
        one_line(settings.adapter or settings.model, 40),
        t(f"evaluation.phase_{evaluation.phase}"),
        time.strftime("%Y-%m-%d %H:%M", updated) if evaluation.updated else "",
    ]


def _as_dict(evaluation: Evaluation) -> dict[str, Any]:
    settings = evaluation.order.settings
    return {
        "id": evaluation.id,
        "suite": Path(evaluation.order.suite).name,
        "model": settings.model,
        "adapter": settings.adapter,
        "phase": evaluation.phase,
        "questions": evaluation.prepared.questions if evaluation.prepared else None,
        "updated": evaluation.updated,
        "error": evaluation.error.as_dict() if evaluation.error else None,
    }
