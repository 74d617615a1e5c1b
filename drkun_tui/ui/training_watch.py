"""Training runs, which go on behind every screen and after the program."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textual import work

from drkun_tui.i18n import t
from drkun_tui.ui.telling import Telling
from drkun_tui.ui.typeset.sanitise import one_line

if TYPE_CHECKING:
    from drkun_tui.training.runs import Run, Runs

WATCH_S = 1.0
"""How often the runs are looked at while one is at work."""


class TrainingWatch(Telling):
    """The part of the application that knows how the training runs stand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.runs_now: list[Run] = []
        """As they stood when they were last looked at, the newest first."""
        self._runs_known = False

    @cached_property
    def runs(self) -> Runs:
        """All runs of this data folder, those of earlier programs too."""
        # Imported late: the first frame does not wait for it.
        from drkun_tui.training.runs import Runs

        return Runs()

    @work(group="runs", exclusive=True)
    async def watch_runs(self) -> None:
        """Show how far the runs are, as long as one is at work."""
        while True:
            before = {run.id: run.phase for run in self.runs_now}
            self.runs_now = await self.runs.all()
            if self._runs_known:
                for run in self.runs_now:
                    if not run.running and before.get(run.id, run.phase) != run.phase:
                        self._run_ended(run)
            # What has ended before the program began is no news.
            self._runs_known = True
            if (consult := self._consult_screen()) is not None:
                consult.refresh_status()
            for screen in self.screen_stack:
                if (show := getattr(screen, "show_runs", None)) and screen.is_mounted:
                    show(self.runs_now)
            if not any(run.running for run in self.runs_now):
                return
            await asyncio.sleep(WATCH_S)

    def _run_ended(self, run: Run) -> None:
        if run.error is not None:
            self._say_anywhere(f"{run.error.message}  {run.error.hint}")
        else:
            self._say_anywhere(t(f"training_screen.told_{run.phase}", name=one_line(run.name, 60)))

    @property
    def training_status(self) -> str:
        """How far the newest run at work is, in a few cells; "" when none is."""
        for run in self.runs_now:
            if run.running:
                done, total = run.history.step, run.history.total_steps
                percent = f"{done / total:.0%}" if total else t(f"runs.phase_{run.phase}")
                return t("training_screen.status", percent=percent)
        return ""
