"""Every key of a screen, with what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen

from drkun_tui.i18n import t
from drkun_tui.ui.keys import display
from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.typeset.wrap import Line, Span, wrap
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp


class HelpScreen(ModalScreen[None]):
    """Reads the bindings as they are now, so a key that was mapped anew is shown where it is."""

    app: DrkunApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1", "app.pop_screen", "keys.close", id="help.close")
    ]

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
        self.query_one(LineView).focus()
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        view = self.query_one(LineView)
        view.lines = self._lines()
        view.lines_changed(0, follow=False)

    def _lines(self) -> list[Line]:
        # Not the active bindings: what cannot be done just now is listed, too.
        chosen = self.app.settings.keys
        keys: dict[str, tuple[str, list[str]]] = {}
        for binding in self._bindings_of(self._about):
            place = (binding.id or "").partition(".")[0]
            _, names = keys.setdefault(binding.description, (place, []))
            for key in chosen.get(binding.id or "", binding.key).split(","):
                if (name := display(key)) not in names:
                    names.append(name)
        order = {"prompt": 0, "app": 2}
        rows = [
            (", ".join(names), t(description), t(f"{description}_help"))
            for description, (_, names) in sorted(keys.items(), key=lambda item: order.get(item[1][0], 1))
        ]
        widths = fit_columns(rows, (28, 24, 100))
        title: Line = (Span(t("help.title"), "heading"),)
        lines: list[Line] = [
            (
                Span(cell(names, widths[0]) + GAP, "label"),
                Span(cell(action, widths[1]) + GAP, "strong"),
                Span(explanation, "dim"),
            )
            for names, action, explanation in rows
        ]
        about = wrap([Span(t("help.about"), "dim")], max(20, self.query_one(LineView).size.width))
        return [title, (), *lines, (), *about]

    @staticmethod
    def _bindings_of(screen: Screen[Any]) -> Iterator[Binding]:
        """Those of the focused widget, of what it stands in, and of the application."""
        for node in (screen.focused or screen).ancestors_with_self:
            for binding in type(node).BINDINGS:
                if isinstance(binding, Binding) and binding.id:
                    yield binding
