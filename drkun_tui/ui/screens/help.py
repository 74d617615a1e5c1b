"""Every key of a screen, with what it does."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen

from drkun_tui.i18n import t
from drkun_tui.ui.keys import display
from drkun_tui.ui.typeset.wrap import Line, Span
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView


class HelpScreen(ModalScreen[None]):
    """Reads the bindings as they are now, so a key that was mapped anew is shown where it is."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,f1", "app.pop_screen", "keys.close", id="help.close")]

    def __init__(self, about: Screen[Any]) -> None:
        super().__init__()
        self._about = about

    def compose(self) -> ComposeResult:
        """The table."""
        with Vertical(id="dialog", classes="-wide"):
            yield LineView(id="help")
        yield KeyHints()

    def on_mount(self) -> None:
        """Fill the table."""
        view = self.query_one(LineView)
        view.lines = self._lines()
        view.lines_changed(0, follow=False)
        view.focus()

    def _lines(self) -> list[Line]:
        keys: dict[str, tuple[str, list[str]]] = {}
        for active in self._about.active_bindings.values():
            binding = active.binding
            if binding.id:
                _, names = keys.setdefault(binding.id, (binding.description, []))
                name = display(binding.key, binding.key_display)
                if name not in names:
                    names.append(name)
        shown = [(", ".join(names), description) for description, names in keys.values()]
        width = max((cell_len(names) for names, _ in shown), default=0)
        title: Line = (Span(t("help.title"), "heading"),)
        rows = [
            (
                Span(names + " " * (width - cell_len(names) + 3), "label"),
                Span(t(description) + "   ", "strong"),
                Span(t(f"{description}_help"), "dim"),
            )
            for names, description in shown
        ]
        about = [(Span(line, "dim"),) for line in t("help.about").split("\n")]
        return [title, (), *rows, (), *about]
