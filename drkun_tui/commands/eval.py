"""``drkun eval``: questions of a suite, answered, measured, and compared with an earlier evaluation."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from drkun_tui.commands.asking import agreed, can_ask
from drkun_tui.commands.choice import chosen
from drkun_tui.commands.following import StatusLine, on_interrupt
from drkun_tui.errors import EXIT_DONE, EXIT_INTERRUPTED, DrkunError
from drkun_tui.evaluation import card
from drkun_tui.evaluation.evaluations import Evaluation, Evaluations
from drkun_tui.evaluation.faults import error_of, evaluation_error
from drkun_tui.evaluation.preflight import check, greedy
from drkun_tui.evaluation.progress import Progress
from drkun_tui.evaluation.protocol import (
    Answered,
    Difference,
    Event,
    Failed,
    Order,
    Prepared,
    Result,
    Stopped,
)
from drkun_tui.i18n import t
from drkun_tui.settings import Settings
from drkun_tui.training.runs import Run, Runs
from drkun_tui.ui import evaluation_text
from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.typeset.sanitise import one_line


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, go on with an evaluation, show what one has found, or forget it."""
    settings = chosen(arguments)
    if settings.profile == "remote" and arguments.profile is None:
        # Who chats with a server evaluates what is on this machine, as on the screen.
        arguments.profile = "auto"
        settings = chosen(arguments)
    evaluations = Evaluations()
    asked = (arguments.suite, arguments.resume, arguments.show, arguments.remove, arguments.list)
    if sum(map(bool, asked)) != 1:
        raise evaluation_error("bad_usage")
    if arguments.list:
        _list(asyncio.run(evaluations.all()), as_json=arguments.json)
        return EXIT_DONE
    if arguments.remove:
        return _remove(arguments, evaluations)
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
            against = before.id if before is not None else ""
            found = await evaluations.start(_order(arguments, settings, await Runs().all(), against))
        print(t("evaluation.begun", id=found.id), file=sys.stderr)
        if arguments.detach:
            if arguments.json:
                print(msgspec.json.encode({"id": found.id}).decode())
            return EXIT_DONE
        await _follow(evaluations, found, quiet=arguments.json)
        found = await evaluations.get(found.id)
    result = found.result
    if result is None:
        raise found.error or evaluation_error("no_result", id=found.id)
    differences: Sequence[Difference] = ()
    if before is not None:
        line = StatusLine(quiet=arguments.json)
        line.show(t("evaluation_screen.comparing"))
        try:
            differences = await evaluations.compare(before.id, found.id)
        finally:
            line.clear()
    if arguments.card:
        place = card.add(found.order.settings, result, before.result if before else None, differences)
        print(t("evaluation.card_written", file=str(place)), file=sys.stderr)
    if arguments.json:
        told = msgspec.to_builtins(result)
        told["differences"] = msgspec.to_builtins(tuple(differences)) if before else None
        print(json.dumps(told, ensure_ascii=False))
    else:
        _print(result, before.result if before else None, differences)
    return EXIT_DONE


def _remove(arguments: argparse.Namespace, evaluations: Evaluations) -> int:
    """Forget one, after a question.

    Raises:
        DrkunError: there is none, it runs, or there is nobody to ask (``remove_unconfirmed``).
    """
    found = asyncio.run(evaluations.get(arguments.remove))
    if not arguments.yes and not can_ask():
        raise evaluation_error("remove_unconfirmed", id=found.id)
    name = evaluation_text.asked(found)
    removed = arguments.yes or agreed(t("evaluation.remove_question", id=found.id, name=name))
    if removed:
        asyncio.run(evaluations.remove(found.id))
    if arguments.json:
        print(json.dumps({"id": found.id, "removed": removed}))
    else:
        print(t("evaluation.removed" if removed else "evaluation.kept", id=found.id))
    return EXIT_DONE


def _order(arguments: argparse.Namespace, settings: Settings, runs: list[Run], against: str) -> Order:
    """What is evaluated. Answers are greedy where the command line says nothing else."""
    return check(
        arguments.suite,
        greedy(settings, temperature=arguments.temperature is None, seed=arguments.seed is None),
        runs,
        task=arguments.task,
        limit=arguments.limit,
        sequences=arguments.sequences,
        against=against,
    )


async def _follow(evaluations: Evaluations, evaluation: Evaluation, *, quiet: bool) -> None:
    """Show progress until it ends.

    Raises:
        DrkunError: it failed, or was stopped.
    """
    stopping = on_interrupt()
    shown = _Shown(quiet=quiet)
    last: Event | None = None

    async def stop() -> None:
        await stopping.wait()
        await evaluations.request_stop(evaluation.id)

    asking = asyncio.ensure_future(stop())
    try:
        async for event, _ in evaluations.follow(evaluation.id):
            shown.add(event)
            # What an earlier process told of its end no longer counts when another goes on.
            last = event
    finally:
        asking.cancel()
        shown.end()
    if isinstance(last, Failed):
        raise error_of(last.kind, last.values)
    if isinstance(last, Stopped):
        hint = t("evaluation.stopped_hint", id=evaluation.id)
        raise DrkunError("stopped", t("evaluation.stopped"), hint, EXIT_INTERRUPTED)


class _Shown:
    """One line that is written anew: how many of how many, how fast, how much longer.

    Args:
        quiet: a program reads standard output.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._line = StatusLine(quiet=quiet)
        self._progress = Progress()

    def add(self, event: Event) -> None:
        """Show what is new."""
        if isinstance(event, Prepared) and self._progress.prepared is None:
            values = {"questions": event.questions, "rows": event.rows, "suite": event.suite}
            self._line.keep(t("evaluation.prepared", **values))
            if event.dropped:
                self._line.keep(t("evaluation.dropped", reasons=evaluation_text.reasons(event.dropped)))
        self._progress.add(event)
        if isinstance(event, Answered):
            self._line.show(evaluation_text.progress_text(self._progress))

    def end(self) -> None:
        """Leave a clean line."""
        self._line.clear()


def _print(result: Result, before: Result | None, differences: Sequence[Difference]) -> None:
    """Table, chart, and what the figures should be read with."""
    print(one_line(evaluation_text.title(result), 200))
    parts = [evaluation_text.figure_lines(result, before, differences), evaluation_text.bar_lines(result)]
    for lines in filter(None, parts):
        print()
        for line in lines:
            print("".join(span.text for span in line))
    print()
    for remark in evaluation_text.remarks(result, before):
        print(remark)
    print(evaluation_text.took(result), t("evaluation.again", id=result.id))


def _list(found: list[Evaluation], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"evaluations": [_as_dict(each) for each in found]}, ensure_ascii=False))
    elif not found:
        print(t("evaluation.none"))
    else:
        rows = [[t(f"evaluation.{name}") for name in ("id", "suite", "model", "phase", "when")]]
        rows += map(_row, found)
        widths = fit_columns(rows, [evaluation_text.WIDEST] * len(rows[0]))
        for row in rows:
            print(GAP.join(map(cell, row, widths)).rstrip())


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
