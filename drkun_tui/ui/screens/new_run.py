"""A form for a new training run; the whole recipe behind it as text."""

from __future__ import annotations

import asyncio
import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tomli_w
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Input, Static

from drkun_tui import hardware
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import language, t
from drkun_tui.library import inventory
from drkun_tui.library.model import Kind
from drkun_tui.library.plan import folders
from drkun_tui.training import recipe as recipes
from drkun_tui.training.checking.protocol import Check
from drkun_tui.training.recipe import BadRecipeError, Recipe
from drkun_tui.ui import data_text
from drkun_tui.ui.data_paths import DEMO, ExistingPath, about_data, is_hub
from drkun_tui.ui.progress import duration
from drkun_tui.ui.screens.choose import Choice, Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.pages import Pages
from drkun_tui.ui.screens.recipe_editor import RecipeEditor
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.widgets.data_result import DataResult
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

LENGTH = ("steps", "epochs")
"""Fields of which one says when a run ends."""


@dataclass(frozen=True, slots=True)
class Field:
    """One line of the form: where its value stands in the recipe, and whether it is text."""

    name: str
    section: str
    key: str
    text: bool = False


FIELDS = (
    Field("base", "base", "model", text=True),
    Field("data", "data", "path", text=True),
    Field("name", "adapter", "name", text=True),
    Field("steps", "training", "max_steps"),
    Field("epochs", "training", "epochs"),
    Field("batch", "training", "batch_size"),
    Field("accumulation", "training", "gradient_accumulation"),
    Field("rate", "training", "learning_rate"),
    Field("rank", "adapter", "rank"),
    Field("context", "training", "context_length"),
)
CHOSEN = ("preset", "base")
"""Enter opens a list for these."""

NAMES = ("preset", *(field.name for field in FIELDS))


class NewRunScreen(Screen[Recipe | None]):
    """Gives the recipe to begin with, None when it was left."""

    CSS_PATH = "../styles/training.tcss"

    app: DrkunApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "enter", "keys.form_enter", id="newrun.enter", priority=True),
        Binding("ctrl+s", "start", "keys.start_run", id="newrun.start", priority=True),
        Binding("ctrl+e", "edit", "keys.edit_recipe", id="newrun.edit", priority=True),
        Binding("ctrl+t", "examples", "keys.show_examples", id="newrun.examples", priority=True),
        Binding("ctrl+r", "rows", "keys.show_rows", id="newrun.rows", priority=True),
        Binding("down", "app.focus_next", "keys.row_down", id="newrun.next", show=False),
        Binding("up", "app.focus_previous", "keys.row_up", id="newrun.previous", show=False),
        Binding("escape", "leave", "keys.leave_form", id="newrun.leave"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._presets = recipes.presets()
        machine = hardware.read()
        first = "qwen3-4b-medical" if machine.gpus else "starter-cpu"
        self._recipe = self._presets.get(first) or next(iter(self._presets.values()))
        self._preset = next(name for name, recipe in self._presets.items() if recipe is self._recipe)
        self._errors: dict[str, str] = {}
        self._fetched = ""
        """The hub's data set that somebody has said to fetch."""

    def compose(self) -> ComposeResult:
        """A line for each field: label, value, what is to be said of it."""
        yield Header()
        with VerticalScroll(id="form", can_focus=False):
            yield Static(t("training_screen.new_title"), id="form-title", markup=False)
            for name in NAMES:
                with Horizontal(classes="field"):
                    yield Static(t(f"training_screen.field_{name}"), classes="label", markup=False)
                    suggester = ExistingPath() if name == "data" else None
                    yield Input(compact=True, id=f"field-{name}", suggester=suggester)
                    yield Static("", classes="told", id=f"told-{name}", markup=False)
                if name == "data":
                    yield DataResult(id="data-result")
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Fill it with the preset that suits this machine."""
        self.query_one(Header).here = "training"
        self._fill()
        self.query_one("#field-preset").focus()

    # Values

    def _fill(self) -> None:
        """Show what the recipe holds."""
        values = tomllib.loads(recipes.dump(self._recipe))
        with self.prevent(Input.Changed):
            self._input("preset").value = self._preset
            for field in FIELDS:
                value = values[field.section][field.key]
                if field.name == "data":
                    value = value or values["data"]["hub"]
                self._input(field.name).value = _shown(value)
        self._check()

    def _input(self, name: str) -> Input:
        return self.query_one(f"#field-{name}", Input)

    def _values(self) -> dict[str, Any]:
        """The recipe with what the form says laid over it."""
        values = tomllib.loads(recipes.dump(self._recipe))
        values["preset"] = self._preset
        for field in FIELDS:
            self._put(values, field)
        return values

    def _put(self, values: dict[str, Any], field: Field) -> None:
        text = self._input(field.name).value.strip()
        value: Any = text if field.text else _number(text)
        if field.name == "data":
            data = values["data"]
            if is_hub(text) and text == data.get("hub"):
                return
            # What the preset says of its own data set is not so of another one.
            for key in ("config", "split"):
                data.pop(key, None)
            data |= {"path": "" if is_hub(text) else text, "hub": text if is_hub(text) else ""}
            return
        values[field.section][field.key] = value

    def _check(self) -> Recipe | None:
        """Say of each field what is wrong with it; the recipe, when nothing is."""
        self._errors = {}
        for field in FIELDS:
            values = tomllib.loads(recipes.dump(self._recipe))
            self._put(values, field)
            if field.name in LENGTH:
                # One of them is wanted, so neither can be judged alone.
                for other in FIELDS:
                    if other.name in LENGTH:
                        self._put(values, other)
            try:
                recipes.parse(tomli_w.dumps(values))
            except BadRecipeError as error:
                self._errors[field.name] = error.reason
        self._look_at_data()
        about, usable = about_data(self._input("data").value.strip())
        if not usable:
            self._errors.setdefault("data", about)
        for name in NAMES:
            told = self.query_one(f"#told-{name}", Static)
            wrong = self._errors.get(name, "")
            told.update(f"x {clean(wrong)}" if wrong else self._note(name))
            told.set_class(bool(wrong), "-error")
        if self._errors:
            return None
        try:
            return recipes.parse(tomli_w.dumps(self._values()))
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return None

    def _note(self, name: str) -> str:
        text = self._input(name).value.strip()
        if name == "preset":
            return one_line(recipes.note(self._recipe), 80)
        if name == "data":
            return t("training_screen.data_hub_enter") if self._may_fetch() else about_data(text)[0]
        if name == "name" and not text:
            return t("training_screen.note_name")
        if name == "rate" or not text:
            return t(f"training_screen.note_{name}")
        if name == "accumulation":
            return t("training_screen.note_sequences", count=_product(text, self._input("batch").value))
        return t(f"training_screen.note_{name}")

    @on(Input.Changed)
    def _changed(self) -> None:
        self.query_one(Notice).clear()
        self._check()

    # Data

    def _look_at_data(self) -> None:
        """Have the data checked that the form names; a hub's only once somebody has said to fetch them."""
        try:
            recipe = recipes.parse(tomli_w.dumps(self._values()))
        except DrkunError:
            # The fields say what is wrong.
            return
        data, wanted = recipe.data, None
        there = data.path == DEMO or (data.path and Path(data.path).expanduser().exists())
        if recipe.base.model and (there or (data.hub and data.hub == self._fetched)):
            training = recipe.training
            wanted = Check(
                data=data,
                model=recipe.base.model,
                context_length=training.context_length,
                seed=training.seed,
                language=language(),
            )
        self.query_one(DataResult).look(wanted)

    def _may_fetch(self) -> bool:
        name = self._input("data").value.strip()
        return is_hub(name) and name != self._fetched

    @on(DataResult.News)
    def _news(self) -> None:
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer to look only at what there is."""
        result = self.query_one(DataResult)
        if action == "examples":
            return result.can_show
        if action == "rows":
            return result.summary is not None and bool(result.summary.dropped or result.summary.flagged)
        return True

    @work(group="dialog", exclusive=True)
    async def action_examples(self) -> None:
        """Show the examples as the model would be trained on them."""
        result = self.query_one(DataResult)
        if result.check is not None and result.summary is not None:
            count = result.summary.train + result.summary.held_out
            title = f"{t('training_screen.examples')}  {t('data.legend', sign=data_text.TRAINED.strip())}"
            await self.app.push_screen_wait(
                Pages(title, count, result.check.examples, data_text.example_lines)
            )

    @work(group="dialog", exclusive=True)
    async def action_rows(self) -> None:
        """Show the rows that are left out, or ought to be looked at, by their reason."""
        result = self.query_one(DataResult)
        if result.check is None or result.summary is None:
            return
        check, found = result.check, result.summary.dropped | result.summary.flagged
        choices = [Choice(name, (data_text.reason(name), f"{count:,}")) for name, count in found.items()]
        dialog = Choose(t("training_screen.rows_title"), choices, right=frozenset({1}))
        while (reason := await self.app.push_screen_wait(dialog)) is not None:
            read = functools.partial(check.rows, reason)
            title = data_text.reason(reason)
            await self.app.push_screen_wait(Pages(title, found[reason], read, data_text.row_lines))
            dialog = Choose(t("training_screen.rows_title"), choices, reason, right=frozenset({1}))

    # Keys

    def action_enter(self) -> None:
        """Choose from a list where there is one, else go to the next line; fetch a hub's data set."""
        name = (self.focused.id or "").removeprefix("field-") if self.focused else ""
        if name == "preset":
            self._choose_preset()
        elif name == "base":
            self._choose_base()
        else:
            if name == "data" and self._may_fetch():
                self._fetched = self._input("data").value.strip()
                self._check()
            self.focus_next()

    @work(group="dialog", exclusive=True)
    async def _choose_preset(self) -> None:
        choices = [
            Choice(name, (name, one_line(recipes.note(recipe), 80))) for name, recipe in self._presets.items()
        ]
        dialog = Choose(t("training_screen.field_preset"), choices, self._preset)
        if (chosen := await self.app.push_screen_wait(dialog)) is not None:
            self._preset, self._recipe = chosen, self._presets[chosen]
            self._fill()

    @work(group="dialog", exclusive=True)
    async def _choose_base(self) -> None:
        # Imported late: nobody else needs it.
        from drkun_tui.ui import base_rows

        machine = hardware.read()
        models = await asyncio.to_thread(inventory.scan, folders(self.app.settings))
        choices = [
            Choice(model.name, base_rows.cells(model, self._recipe, machine), not model.problems)
            for model in models
            if model.kind is Kind.BASE or model.demonstration
        ]
        if not choices:
            self.query_one(Notice).say(t("training_screen.no_bases"), "warning")
            return
        dialog = Choose(
            t("training_screen.field_base"), choices, self._input("base").value, right=frozenset({1})
        )
        if (chosen := await self.app.push_screen_wait(dialog)) is not None:
            self._input("base").value = chosen

    @work(group="dialog", exclusive=True)
    async def action_edit(self) -> None:
        """Open the whole recipe as text."""
        text = tomli_w.dumps(self._values())
        edited = await self.app.push_screen_wait(RecipeEditor(text))
        if edited is not None:
            self._recipe = edited
            self._preset = edited.preset or self._preset
            self._fill()

    def action_leave(self) -> None:
        """Begin nothing."""
        self.dismiss(None)

    @work(group="start", exclusive=True)
    async def action_start(self) -> None:
        """Look whether it can be done, tell what it takes, and begin."""
        notice = self.query_one(Notice)
        if (recipe := self._check()) is None:
            first = next((name for name in NAMES if name in self._errors), "")
            if first:
                self._input(first).focus()
                notice.say(t("training_screen.mend"), "warning")
            return
        # Imported late: nobody else needs it.
        from drkun_tui.training import pace, preflight

        notice.say(t("training_screen.checking"))
        try:
            found = await asyncio.to_thread(preflight.check, recipe, self.app.settings)
            shape, tokens = found.base.shape, self.query_one(DataResult).tokens
            lasts = await asyncio.to_thread(pace.expected, found.recipe, shape, tokens) if shape else None
        except DrkunError as error:
            notice.fail(error)
            return
        notice.clear()
        need, free = size(found.memory_bytes), size(found.available_bytes)
        needs = [
            t("training_screen.needs_memory", need=need, free=free),
            t("training_screen.needs_disk", need=size(found.disk_bytes)),
        ]
        if lasts is not None:
            label = "measured" if lasts.measured else "estimated"
            needs.append(t(f"training_screen.needs_time_{label}", time=duration(lasts.seconds)))
        name = one_line(found.recipe.adapter.name, 60)
        lines = [t("training_screen.start_question", name=name), *needs, *(f"! {w}" for w in found.warnings)]
        question = Confirm("\n".join(clean(line) for line in lines), t("training_screen.start_keys"))
        if await self.app.push_screen_wait(question):
            self.dismiss(found.recipe)


def _shown(value: Any) -> str:
    """A value as one types it; nothing for the one of steps and epochs that does not count."""
    if isinstance(value, str):
        return value
    if not value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(text: str) -> Any:
    """What a recipe would hold, had one typed this there; what is no number stays text and is refused."""
    if not text:
        return 0
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _product(one: str, other: str) -> str:
    numbers = (_number(one), _number(other))
    return str(numbers[0] * numbers[1]) if all(isinstance(n, int) for n in numbers) else "?"
