"""The whole recipe of a run as text."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import TextArea

from drkun_tui.errors import DrkunError
from drkun_tui.training import recipe as recipes
from drkun_tui.training.recipe import Recipe
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice


class RecipeEditor(ModalScreen[Recipe | None]):
    """The whole recipe as TOML; gives it when it is right, None when it was left.

    Args:
        text: to begin with.
    """

    CSS_PATH = "../styles/training.tcss"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "keep", "keys.keep_recipe", id="recipe.keep", priority=True),
        Binding("escape", "leave", "keys.leave_recipe", id="recipe.leave", priority=True),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text, and what is wrong with it."""
        with Vertical(id="dialog", classes="-wide"):
            yield TextArea(self._text, show_line_numbers=True, soft_wrap=False, id="recipe")
            yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Write at once."""
        self.query_one(TextArea).focus()

    @on(TextArea.Changed)
    def _changed(self) -> None:
        self._parsed()

    def _parsed(self) -> Recipe | None:
        try:
            recipe = recipes.parse(self.query_one(TextArea).text)
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return None
        self.query_one(Notice).clear()
        return recipe

    def action_keep(self) -> None:
        """Take it over, if it is right."""
        if (recipe := self._parsed()) is not None:
            self.dismiss(recipe)

    def action_leave(self) -> None:
        """Change nothing."""
        self.dismiss(None)
