"""One of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.widgets.key_hints import KeyHints


@dataclass(frozen=True, slots=True)
class Choice:
    """One line to choose.

    Attributes:
        id: what choosing it gives.
        cells: its columns, each on one line and fit for a screen.
        possible: False greys it out; its cells say why.
    """

    id: str
    cells: tuple[str, ...]
    possible: bool = True


class Choose(ModalScreen[str | None]):
    """Gives the chosen line's id, None when it was left.

    Args:
        title: what is to be chosen.
        choices: as many cells in each.
        current: id of the one that holds now, which is marked and highlighted.
        right: columns that are right-aligned.
        hint: below the list, one or two lines.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        # First, or the list takes the key and the bottom line does not show it.
        Binding("enter", "choose", "keys.choose", id="choose.choose", priority=True),
        Binding("escape", "leave", "keys.close", id="choose.leave"),
    ]

    def __init__(
        self,
        title: str,
        choices: Sequence[Choice],
        current: str = "",
        *,
        right: frozenset[int] = frozenset(),
        hint: str = "",
    ) -> None:
        super().__init__()
        self._title, self._choices, self._current = title, choices, current
        self._right, self._hint = right, hint

    def compose(self) -> ComposeResult:
        """Title, lines, hint."""
        with Vertical(id="dialog", classes="-list"):
            yield Static(self._title, markup=False, id="dialog-title")
            yield OptionList(*self._options(), compact=True, id="choices")
            if self._hint:
                yield Static(self._hint, markup=False, id="dialog-hint")
        yield KeyHints()

    def on_mount(self) -> None:
        """Stand on what holds now, or on the first that is possible."""
        listing = self.query_one(OptionList)
        possible = [i for i, choice in enumerate(self._choices) if choice.possible]
        current = [i for i in possible if self._choices[i].id == self._current]
        listing.highlighted = next(iter([*current, *possible]), None)
        listing.focus()

    def _options(self) -> list[Option]:
        rows = [choice.cells for choice in self._choices]
        widths = fit_columns(rows, [48] * len(rows[0])) if rows else []
        options = []
        for choice in self._choices:
            mark = "* " if choice.id == self._current else "  "
            cells = (
                cell(text, width, right=column in self._right)
                for column, (text, width) in enumerate(zip(choice.cells, widths, strict=True))
            )
            line = Text(mark + GAP.join(cells).rstrip(), no_wrap=True, overflow="ellipsis")
            options.append(Option(line, id=choice.id, disabled=not choice.possible))
        return options

    def action_choose(self) -> None:
        """Take the highlighted one."""
        self.query_one(OptionList).action_select()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(event.option_id)

    def action_leave(self) -> None:
        """Choose nothing."""
        self.dismiss(None)
