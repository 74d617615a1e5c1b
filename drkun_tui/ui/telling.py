"""How the application speaks, wherever one is in it."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import App
from textual.worker import Worker

from drkun_tui.errors import DrkunError
from drkun_tui.settings import Settings
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.widgets.notice import Notice


class Telling(App[None]):
    """What the parts of the application have in common."""

    settings: Settings
    change_settings: Callable[..., None]
    """Change settings, by name, and keep them."""
    load_model: Callable[[], Worker[None]]
    """Load the model that the settings name."""

    def _consult_screen(self) -> ConsultScreen | None:
        return next((s for s in self.screen_stack if isinstance(s, ConsultScreen) and s.is_mounted), None)

    def _say(self, text: str) -> None:
        if (screen := self._consult_screen()) is not None:
            screen.query_one(Notice).say(text, "warning")

    def _fail(self, error: DrkunError) -> None:
        if (screen := self._consult_screen()) is not None:
            screen.query_one(Notice).fail(error)

    def _say_anywhere(self, text: str) -> None:
        for notice in self.screen.query(Notice):
            notice.say(text)
