"""The training process: ``python -m drkun_tui.training.job RUN_FOLDER``.

It prepares the data, trains, and tells everything in the run's folder. However it is ended, the run can go
on from its newest whole checkpoint, or has clearly failed.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE, EXIT_FAILED, DrkunError
from drkun_tui.i18n import set_language
from drkun_tui.jobs import detached
from drkun_tui.library.kinds import retold
from drkun_tui.training import ranks
from drkun_tui.training import recipe as recipes
from drkun_tui.training.faults import StopRequested, TrainingError
from drkun_tui.training.protocol import Event, Failed, Phase, Stopped, Values, encode
from drkun_tui.training.runs import JOB, RECIPE


class Teller:
    """What the trainer tells the world through. In a run over several GPUs only the first process does.

    Args:
        reporter: the run's; None is silent.
        listener: is told each event, too.
    """

    def __init__(
        self, reporter: detached.Reporter | None, listener: Callable[[Event], None] | None = None
    ) -> None:
        self._reporter = reporter
        self._listener = listener
        self._stopping = False

    def phase(self, phase: Phase, error: Values | None = None) -> None:
        """Say what the run does now."""
        if self._reporter is not None:
            self._reporter.state(phase, error)

    def event(self, event: Event) -> None:
        """Say what has happened."""
        if self._reporter is not None:
            self._reporter.event(encode(event))
            if self._listener is not None:
                self._listener(event)

    def stop(self) -> None:
        """End early, as if somebody had asked."""
        self._stopping = True

    @property
    def stop_requested(self) -> bool:
        """Has somebody asked the run to end early?"""
        return self._stopping or (self._reporter is not None and self._reporter.stop_requested)


def run(folder: Path, listener: Callable[[Event], None] | None = None) -> int:
    """Train what the folder's recipe says; the exit code.

    Args:
        folder: the run's, with a ``recipe.toml``.
        listener: is told each event as it happens.
    """
    # Threads that spin while they wait for each other take the cores from whoever answers beside a training,
    # and from each other where there are more of them than cores. OpenMP reads it when PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if ranks.rank():
        ranks.end_with_the_first()
    try:
        teller = Teller(None if ranks.rank() else detached.Reporter(folder), listener)
    except detached.RunsAlreadyError:
        return detached.RUNS_ALREADY
    teller.phase("starting")

    def died(code: int) -> None:
        # The first process waits for the dead one, inside a library, and would do so forever.
        _fail(teller, "rank_died", {"code": code})
        os._exit(EXIT_FAILED)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: teller.stop())
    try:
        chosen = settings.load(paths.settings_file())
        set_language(chosen.language)
        recipe = recipes.load(folder / RECIPE)
        # Imported late: the run is seen to have started before seconds of imports.
        from drkun_tui.training.sft import train

        with ranks.others(JOB, folder, ranks.wanted(recipe), died):
            train(recipe, chosen, folder, teller)
    except StopRequested:
        teller.event(Stopped(step=0))
        teller.phase("stopped")
        return EXIT_DONE
    except TrainingError as error:
        return _fail(teller, error.kind, error.values)
    except DrkunError as error:
        return _fail(teller, error.kind, retold(error))
    except Exception as error:
        traceback.print_exc()
        if _is_full(error):
            return _fail(teller, "unwritable", {"folder": str(folder), "reason": os.strerror(errno.ENOSPC)})
        if isinstance(error, OSError) and error.filename:
            return _fail(
                teller, "unwritable", {"folder": str(error.filename), "reason": error.strerror or str(error)}
            )
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return _fail(teller, "internal", {"reason": reason})
    return EXIT_DONE


def _is_full(error: Exception) -> bool:
    """Did the disk run out of room? Writers in other languages only say so in words."""
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)


def _fail(teller: Teller, kind: str, values: Values) -> int:
    try:
        teller.event(Failed(kind=kind, values=values))
    finally:
        teller.phase("failed", {"kind": kind, **values})
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
