"""Evaluations, which go on behind every screen and after the program."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from textual import work

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.ui.telling import Telling

if TYPE_CHECKING:
    from drkun_tui.evaluation.evaluations import Evaluation, Evaluations
    from drkun_tui.evaluation.protocol import Order

WATCH_S = 1.0
"""How often they are looked at while one is at work."""


class EvaluationWatch(Telling):
    """The part of the application that knows how evaluations stand, and begins them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.evaluations_now: list[Evaluation] = []
        """As they stood when they were last looked at, the newest first."""
        self._evaluations_known = False

    @cached_property
    def evaluations(self) -> Evaluations:
        """All evaluations of this data folder, those of earlier programs too."""
        # Imported late: the first frame does not wait for it.
        from drkun_tui.evaluation.evaluations import Evaluations

        return Evaluations()

    @work(group="evaluations", exclusive=True)
    async def watch_evaluations(self) -> None:
        """Show how far they are, as long as one is at work."""
        while True:
            before = {each.id: each.phase for each in self.evaluations_now}
            self.evaluations_now = await self.evaluations.all()
            if self._evaluations_known:
                for each in self.evaluations_now:
                    if not each.running and before.get(each.id, "starting") != each.phase:
                        self._evaluation_ended(each)
            # What has ended before the program began is no news.
            self._evaluations_known = True
            for screen in self.screen_stack:
                if (show := getattr(screen, "show_evaluations", None)) and screen.is_mounted:
                    show()
            if not any(each.running for each in self.evaluations_now):
                return
            await asyncio.sleep(WATCH_S)

    def _evaluation_ended(self, evaluation: Evaluation) -> None:
        from drkun_tui.ui.evaluation_text import asked

        if evaluation.error is not None:
            self._say_anywhere(f"{evaluation.error.message}  {evaluation.error.hint}")
        else:
            self._say_anywhere(t(f"evaluation_screen.told_{evaluation.phase}", name=asked(evaluation)))

    def show_evaluations(self, id: str = "") -> None:
        """Go where they are listed, with one of them highlighted."""
        from drkun_tui.ui.screens.evaluations import EvaluationsScreen

        if not isinstance(self.screen, EvaluationsScreen):
            self.push_screen(EvaluationsScreen(id))
        elif id:
            self.screen.highlight(id)

    @work(group="evaluate", exclusive=True)
    async def evaluate(
        self, model: str, adapter: str = "", suite: str = "", like: Order | None = None
    ) -> None:
        """Ask in a form what is to be measured, begin, and show it.

        Args:
            model: name of what answers.
            adapter: its name; "" for none.
            suite: path, or id of a training run; "" where it is not known yet.
            like: filled in is what this one was asked.
        """
        from drkun_tui.ui.screens.new_evaluation import NewEvaluationScreen

        profile = "auto" if self.settings.profile == "remote" else self.settings.profile
        settings = msgspec.structs.replace(
            self.settings, model=model, adapter=adapter or None, profile=profile
        )
        order = await self.push_screen_wait(NewEvaluationScreen(settings, suite, like))
        if order is None:
            return
        try:
            begun = await self.evaluations.start(order)
        except DrkunError as error:
            self._say_anywhere(f"{error.message}  {error.hint}")
            return
        self.evaluations_now = [begun, *self.evaluations_now]
        self.show_evaluations(begun.id)
        self.watch_evaluations()
