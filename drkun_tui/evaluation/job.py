"""One evaluation: ``python -m drkun_tui.evaluation.job FOLDER``.

Reads ``order.json`` there, prepares the questions once, asks those that have no answer yet through an engine
process, and keeps each answer as it comes. Started again in the same folder, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drkun_tui import paths, settings
from drkun_tui.engine.client import EngineClient
from drkun_tui.errors import EXIT_DONE, EXIT_FAILED, DrkunError
from drkun_tui.evaluation.evaluations import ORDER, PREPARED, RESULT, read_kept
from drkun_tui.evaluation.faults import StopRequested, evaluation_error
from drkun_tui.evaluation.protocol import (
    Answered,
    Event,
    Failed,
    Finished,
    Loaded,
    Order,
    Overlap,
    Phase,
    Prepared,
    Result,
    Stopped,
    Values,
    decode,
    encode,
)
from drkun_tui.i18n import set_language
from drkun_tui.jobs import detached
from drkun_tui.library.kinds import retold
from drkun_tui.library.plan import Plan, plan_load
from drkun_tui.training.data.summary import Summary
from drkun_tui.training.runs import DATA, Runs

if TYPE_CHECKING:
    from drkun_tui.evaluation.overlap import Trained

STOP_POLL_S = 0.3
"""How often a wish to stop is looked for while the engine works."""


class Teller:
    """What an evaluation tells the world through.

    Args:
        folder: the evaluation's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reporter = detached.Reporter(folder)
        self._stopping = False

    def phase(self, phase: Phase, error: Values | None = None) -> None:
        """Say what it does now."""
        self._reporter.state(phase, error)

    def event(self, event: Event) -> None:
        """Say what has happened."""
        self._reporter.event(encode(event))

    def stop(self) -> None:
        """End early, as if somebody had asked."""
        self._stopping = True

    @property
    def stop_requested(self) -> bool:
        """Has somebody asked it to end early?"""
        return self._stopping or self._reporter.stop_requested

    def events(self) -> Iterator[Event]:
        """All that was told so far, in this process and those before it."""
        return detached.events(self.folder, decode)


def run(folder: Path) -> int:
    """Evaluate what the folder's order says; the exit code."""
    try:
        teller = Teller(folder)
    except detached.RunsAlreadyError:
        return detached.RUNS_ALREADY
    teller.phase("starting")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: teller.stop())
    try:
        set_language(settings.load(paths.settings_file()).language)
        order = msgspec.json.decode((folder / ORDER).read_bytes(), type=Order)
        asyncio.run(_evaluate(order, teller))
    except StopRequested:
        teller.event(Stopped())
        teller.phase("stopped")
        return EXIT_DONE
    except DrkunError as error:
        values = retold(error)
        return _fail(teller, error.kind, values)
    except OSError as error:
        traceback.print_exc()
        reason = error.strerror or str(error)
        return _fail(teller, "unwritable", {"folder": str(error.filename or folder), "reason": reason})
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return _fail(teller, "internal", {"reason": reason})
    return EXIT_DONE


def _fail(teller: Teller, kind: str, values: Values) -> int:
    try:
        teller.event(Failed(kind=kind, values=values))
    finally:
        teller.phase("failed", {"kind": kind, **values})
    return EXIT_FAILED


async def _evaluate(order: Order, teller: Teller) -> None:
    """Do everything, and give up at once when somebody asks for it."""
    work = asyncio.ensure_future(_work(order, teller))
    try:
        while not work.done():
            if teller.stop_requested:
                raise StopRequested
            await asyncio.wait([work], timeout=STOP_POLL_S)
        work.result()
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def _work(order: Order, teller: Teller) -> None:
    # Imported late: the evaluation is seen to have started before the imports.
    try:
        from drkun_tui.evaluation import suite, text_metrics
        from drkun_tui.evaluation.asking import Asking, spread
        from drkun_tui.evaluation.tally import Tally
    except ImportError as error:
        raise evaluation_error("packages_missing", reason=str(error)) from error

    folder = teller.folder
    plan = plan_load(order.settings)
    subject = _subject(plan)
    prepared = read_kept(folder / PREPARED, Prepared)
    if prepared is None or not (folder / suite.QUESTIONS).exists():
        teller.phase("preparing")
        source, name = _source(order)
        told = (plan.adapter or plan.model).provenance
        fingerprint = told.data_fingerprint if told else ""
        trained = _trained(fingerprint)
        prepared = suite.prepare(order, source, name, folder, trained, lambda: teller.stop_requested)
        unknown = Overlap(rows=0) if plan.adapter or fingerprint else None
        prepared = msgspec.structs.replace(prepared, subject=subject, overlap=prepared.overlap or unknown)
        detached.write_whole(folder / PREPARED, msgspec.json.encode(prepared))
    elif prepared.subject != subject:
        raise evaluation_error("model_changed", model=plan.model.name)
    _comparable(order, prepared, teller.folder)
    teller.event(prepared)

    done = bytearray(prepared.questions)
    tally = Tally()
    for event in teller.events():
        if isinstance(event, Loaded):
            tally.add(event)
        elif isinstance(event, Answered) and not done[event.place]:
            done[event.place] = 1
            tally.add(event)
    engine = EngineClient(folder / "engine.log", paths.machine_file())
    try:
        if not all(done):
            teller.phase("loading")
            async for _ in engine.load(spread(plan, order)):
                pass
            loaded = _loaded(plan, engine)
            teller.event(loaded)
            tally.add(loaded)
            teller.phase("answering")
            waiting = ((place, item) for place, item in enumerate(suite.items(folder)) if not done[place])
            async for answered in Asking(engine, plan, order).answers(waiting):
                teller.event(answered)
                tally.add(answered)
    finally:
        await engine.close()
    teller.phase("measuring")
    result = Result(
        id=folder.name,
        suite=prepared.suite,
        fingerprint=prepared.fingerprint,
        model=plan.model.name,
        adapter=plan.adapter.name if plan.adapter else None,
        engine=plan.load.engine,
        questions=tally.questions,
        answered=tally.answered,
        failed=dict(sorted(tally.failed.items())),
        unscored=dict(sorted(tally.unscored.items())),
        dropped=prepared.dropped,
        overlap=prepared.overlap,
        figures=tally.figures(),
        tokens=tally.tokens,
        seconds=tally.seconds,
        sampling=msgspec.to_builtins(order.settings.sampling),
        think=plan.thinks(order.settings.think),
        demonstration=plan.model.demonstration,
        signature=text_metrics.signature(),
    )
    detached.write_whole(folder / RESULT, msgspec.json.format(msgspec.json.encode(result), indent=1))
    teller.event(Finished())
    teller.phase("done")


def _loaded(plan: Plan, engine: EngineClient) -> Loaded:
    ready = engine.ready
    assert ready is not None  # noqa: S101  # `load` has ended
    return Loaded(
        model=plan.model.name,
        adapter=plan.adapter.name if plan.adapter else None,
        engine=ready.engine,
        context_length=ready.context_length,
        at=time.time(),
    )


def _comparable(order: Order, prepared: Prepared, folder: Path) -> None:
    """Nothing is asked where the comparison that is wanted cannot be made.

    Raises:
        DrkunError: ``other_questions``.
    """
    before = read_kept(folder.parent / order.against / RESULT, Result) if order.against else None
    if before is not None and before.fingerprint != prepared.fingerprint:
        raise evaluation_error("other_questions", before=before.id, after=folder.name)


def _source(order: Order) -> tuple[Path, str]:
    """Where the suite is, and what it is called."""
    from drkun_tui.training.data.splitting import HELD_OUT

    if not order.is_run:
        path = Path(order.suite).expanduser()
        return path, path.name
    held_out = Runs().root / order.suite / DATA / HELD_OUT
    if not held_out.exists():
        raise evaluation_error("no_held_out", run=order.suite)
    return held_out, f"held-out {order.suite}"


def _subject(plan: Plan) -> str:
    """By the files that decide an answer: a folder's own time changes with its card."""
    files = list(plan.model.files)
    if plan.adapter is not None:
        settings = plan.adapter.path / "adapter_config.json"
        files += [*plan.adapter.files, *([settings] if settings.exists() else [])]
    known = ((file, file.stat()) for file in files)
    return " ".join(f"{file}:{status.st_size}:{status.st_mtime_ns}" for file, status in known)


def _trained(fingerprint: str) -> Trained | None:
    """The data of this fingerprint, where the run that was trained on them is still on this machine."""
    if not fingerprint:
        return None
    from drkun_tui.evaluation.overlap import Trained
    from drkun_tui.training.data.dataset import SUMMARY
    from drkun_tui.training.data.splitting import TRAIN

    for folder in detached.folders(Runs().root):
        summary = read_kept(folder / DATA / SUMMARY, Summary)
        if summary is not None and summary.fingerprint == fingerprint:
            return Trained(folder / DATA / TRAIN)
    return None


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
