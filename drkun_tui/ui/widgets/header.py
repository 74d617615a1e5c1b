"""The top line: where one is on the left, what answers and how fast on the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import RenderResult
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from drkun_tui.i18n import t

PLACES = ("consult", "models", "training", "compare", "settings")
"""Screens with a key of their own, in the order shown."""


class Header(Widget):
    """One line; the status gives way from its left when there is little room."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "header--brand",
        "header--place",
        "header--here",
        "header--status",
        "header--warning",
    }

    @dataclass
    class Went(Message):
        """A place was clicked."""

        place: str

    here: reactive[str] = reactive("consult")
    status: reactive[tuple[str, ...]] = reactive(())
    """Parts of the status, least important first."""
    warning: reactive[str] = reactive("")
    """Said before the status, e.g. that the model is a demonstration."""

    def render(self) -> RenderResult:
        """The line."""
        width = self.size.width
        line = Text(no_wrap=True, overflow="crop")
        line.append(" Dr. Kun ", self.get_component_rich_style("header--brand"))
        for place in PLACES:
            style = "header--here" if place == self.here else "header--place"
            name = f" {t(f'place.{place}')} "
            if line.cell_len + cell_len(name) < width - 24:
                look = self.get_component_rich_style(style, partial=True)
                line.append(name, look + Style(meta={"place": place}))
        parts = [*self.status]
        warning = f"{self.warning}   " if self.warning else ""
        room = width - line.cell_len - 2
        while parts and cell_len("   ".join(parts)) + cell_len(warning) > room:
            if warning and len(parts) <= 2:
                warning = ""
            else:
                parts.pop(0)
        status = "   ".join(parts)
        line.append(" " * max(1, room + 1 - cell_len(status) - cell_len(warning)))
        line.append(warning, self.get_component_rich_style("header--warning", partial=True))
        line.append(status, self.get_component_rich_style("header--status", partial=True))
        return line

    def on_click(self, event: events.Click) -> None:
        """Go to the place that was clicked."""
        if place := event.style.meta.get("place"):
            self.post_message(self.Went(place))
