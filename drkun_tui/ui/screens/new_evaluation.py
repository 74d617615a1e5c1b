"""A form for an evaluation: what answers which questions, and what that is compared with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Input, Static

from drkun_tui.errors import DrkunError
from drkun_tui.evaluation.evaluations import Evaluation
from drkun_tui.evaluation.preflight import LIMIT, check, greedy, needs_room
from drkun_tui.evaluation.protocol import Order
from drkun_tui.i18n import t
from drkun_tui.jobs.detached import is_called
from drkun_tui.library import adapters, inventory
from drkun_tui.library.plan import folders, loadable
from drkun_tui.settings import Settings
from drkun_tui.training.runs import Run, find
from drkun_tui.ui.data_paths import ExistingPath
from drkun_tui.ui.evaluation_text import asked, suite_of, when
from drkun_tui.ui.room import make_room
from drkun_tui.ui.screens.choose import Choice, Choose
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

NAMES = ("model", "adapter", "suite", "task", "limit", "length", "sequences", "against")
NUMBERS = ("limit", "length", "sequences")
TASKS: tuple[Literal["auto", "department"], ...] = ("auto", "department")


class NewEvaluationScreen(Screen[Order | None]):
    """Gives the order to begin with, None when it was left.

    Args:
        settings: with the model and the adapter that are meant.
        suite: path, or id of a training run; by default the run that made the adapter.
        like: what another one was asked, so that the two can be compared.
    """

    CSS_PATH = "../styles/evaluation.tcss"

    app: DrkunApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "enter", "keys.form_enter", id="neweval.enter", priority=True),
        Binding("ctrl+s", "start", "keys.start_evaluation", id="neweval.start", priority=True),
        Binding("down", "app.focus_next", "keys.row_down", id="neweval.next", show=False),
        Binding("up", "app.focus_previous", "keys.row_up", id="neweval.previous", show=False),
        Binding("escape", "leave", "keys.leave_evaluation_form", id="neweval.leave"),
    ]

    def __init__(self, settings: Settings, suite: str = "", like: Order | None = None) -> None:
        super().__init__()
        self._like = like
        self._settings = settings
        self._suite = suite
        self._errors: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        """A line for each field: label, value, what is to be said of it."""
        yield Header()
        with VerticalScroll(id="form", can_focus=False):
            yield Static(t("evaluation_screen.new_title"), id="form-title", markup=False)
            for name in NAMES:
                with Horizontal(classes="field"):
                    yield Static(t(f"evaluation_screen.field_{name}"), classes="label", markup=False)
                    suggester = ExistingPath(demo=False) if name == "suite" else None
                    hint = t("evaluation_screen.suite_hint") if name == "suite" else ""
                    yield Input(compact=True, id=f"field-{name}", suggester=suggester, placeholder=hint)
                    yield Static("", classes="told", id=f"told-{name}", markup=False)
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Fill in what is known; what is asked first is not."""
        self.query_one(Header).here = "models"
        adapter, like = self._settings.adapter or "", self._like
        made = next(
            (run.id for run in self.app.runs_now if adapter and run.recipe.adapter.name == adapter), ""
        )
        values = {
            "model": self._settings.model,
            "adapter": adapter,
            "suite": self._suite or made,
            "task": like.task if like else TASKS[0],
            "limit": str(like.limit if like else LIMIT),
            "length": str((like.settings if like else self._settings).sampling.max_tokens),
            "sequences": str(like.sequences if like else 0),
        }
        with self.prevent(Input.Changed):
            for name, value in values.items():
                self._input(name).value = value
        self._check()
        self._input("suite").focus()

    # Values

    def _input(self, name: str) -> Input:
        return self.query_one(f"#field-{name}", Input)

    def _value(self, name: str) -> str:
        return self._input(name).value.strip()

    def _run(self) -> Run | None:
        """The training run that is meant."""
        suite = self._value("suite")
        if not suite or Path(suite).expanduser().exists():
            return None
        return find(self.app.runs_now, suite)

    def _suite_named(self) -> str:
        """The suite as an order names it."""
        run = self._run()
        return run.id if run is not None else str(Path(self._value("suite")).expanduser().absolute())

    def _before(self) -> Evaluation | None:
        """The evaluation that is compared with."""
        wanted = self._value("against")
        return next((e for e in self.app.evaluations_now if wanted and is_called(e.id, wanted)), None)

    def _check(self) -> bool:
        """Say of each field what is wrong with it, or what it means; is nothing wrong?"""
        self._errors = {}
        notes = {name: self._note(name) for name in NAMES}
        for name in NAMES:
            wrong = self._errors.get(name, "")
            told = self.query_one(f"#told-{name}", Static)
            told.update(f"x {clean(wrong)}" if wrong else clean(notes[name]))
            told.set_class(bool(wrong), "-error")
        return not self._errors

    def _note(self, name: str) -> str:
        """What a field means; what is wrong with it is kept in `_errors`."""
        value = self._value(name)
        if name in NUMBERS and not value.isdecimal():
            self._errors[name] = t("evaluation_screen.bad_number")
        elif name == "task":
            if value in TASKS:
                return t(f"evaluation_screen.note_task_{value}")
            self._errors[name] = t("evaluation_screen.bad_task")
        elif name == "suite" and value:
            return self._about_suite(value)
        elif name == "against" and value:
            if (before := self._before()) is not None:
                return f"{asked(before)}  {when(before.updated)}"
            self._errors[name] = t("evaluation_screen.no_such")
        return t(f"evaluation_screen.note_{name}")

    def _about_suite(self, value: str) -> str:
        path = Path(value).expanduser()
        try:
            if path.is_dir():
                files = sum(1 for each in path.iterdir() if each.is_file())
                return t("evaluation_screen.folder", files=files)
            return t("evaluation_screen.file", size=size(path.stat().st_size))
        except OSError:
            pass
        if (run := self._run()) is not None:
            return t("evaluation_screen.held_out", name=one_line(run.name, 60))
        self._errors["suite"] = t("evaluation_screen.missing")
        return ""

    @on(Input.Changed)
    def _changed(self) -> None:
        self.query_one(Notice).clear()
        self._check()

    # Keys

    def action_enter(self) -> None:
        """Choose from a list where there is one, else go to the next line."""
        name = (self.focused.id or "").removeprefix("field-") if self.focused else ""
        if name in ("model", "adapter"):
            self._choose_model(adapter=name == "adapter")
        elif name == "task":
            self._choose_task()
        elif name == "suite" and not self._value("suite"):
            self._choose_run()
        elif name == "against":
            self._choose_before()
        else:
            self.focus_next()

    @work(group="dialog", exclusive=True)
    async def _choose_model(self, *, adapter: bool) -> None:
        models = await asyncio.to_thread(inventory.scan, folders(self.app.settings))
        choices = [Choice("-", (t("evaluation_screen.without"), "", ""))] if adapter else []
        chosen = self._value("model")
        for model, base in zip(models, adapters.bases(models), strict=True):
            if adapter and model.is_adapter:
                said = str(model.problems[0]) if model.problems else one_line(base.name if base else "", 40)
                possible = not model.problems and base is not None and base.name == chosen
            elif not adapter and not model.is_adapter:
                said = str(model.problems[0]) if model.problems else (model.quantization or "")
                possible = loadable(model)
            else:
                continue
            choices.append(
                Choice(model.name, (one_line(model.name, 48), size(model.size_bytes), said), possible)
            )
        if not choices:
            self.query_one(Notice).say(t("evaluation_screen.no_models"), "warning")
            return
        name = "adapter" if adapter else "model"
        current = self._value(name) or "-"
        dialog = Choose(t(f"evaluation_screen.field_{name}"), choices, current, right=frozenset({1}))
        if (taken := await self.app.push_screen_wait(dialog)) is not None:
            self._input(name).value = "" if taken == "-" else taken
            if not adapter and taken != chosen:
                # An adapter belongs to its base.
                self._input("adapter").value = ""

    @work(group="dialog", exclusive=True)
    async def _choose_task(self) -> None:
        choices = [Choice(task, (task, t(f"evaluation_screen.note_task_{task}"))) for task in TASKS]
        dialog = Choose(t("evaluation_screen.field_task"), choices, self._value("task"))
        if (taken := await self.app.push_screen_wait(dialog)) is not None:
            self._input("task").value = taken

    @work(group="dialog", exclusive=True)
    async def _choose_run(self) -> None:
        choices = [
            Choice(run.id, (one_line(run.name, 48), t(f"runs.phase_{run.phase}"), when(run.updated)))
            for run in self.app.runs_now
        ]
        if not choices:
            self.query_one(Notice).say(t("evaluation_screen.no_runs"), "warning")
            return
        taken = await self.app.push_screen_wait(Choose(t("evaluation_screen.field_suite"), choices))
        if taken is not None:
            self._input("suite").value = taken

    @work(group="dialog", exclusive=True)
    async def _choose_before(self) -> None:
        wanted = (self._suite_named(), self._value("task"), self._value("limit"))
        choices = [Choice("-", (t("evaluation_screen.without"), "", "", ""))]
        for each in self.app.evaluations_now:
            if each.result is not None:
                order = each.order
                same = (order.suite, order.task, str(order.limit)) == wanted
                told = t("evaluation_screen.same_suite" if same else "evaluation_screen.other_suite")
                row = (one_line(asked(each), 48), suite_of(each), when(each.updated), told)
                choices.append(Choice(each.id, row, same))
        if not any(choice.possible for choice in choices[1:]):
            self.query_one(Notice).say(t("evaluation_screen.nothing_to_compare"), "warning")
            return
        dialog = Choose(t("evaluation_screen.field_against"), choices, self._value("against") or "-")
        if (taken := await self.app.push_screen_wait(dialog)) is not None:
            self._input("against").value = "" if taken == "-" else taken

    def action_leave(self) -> None:
        """Begin nothing."""
        self.dismiss(None)

    @work(group="start", exclusive=True)
    async def action_start(self) -> None:
        """Look whether it can be done, and begin."""
        notice = self.query_one(Notice)
        if not self._value("suite"):
            self._errors["suite"] = ""
        elif self._check():
            settings = self._asked()
            if not await make_room(self.app, lambda held: needs_room(settings, held)):
                return
            notice.say(t("evaluation_screen.checking"))
            try:
                self.dismiss(await asyncio.to_thread(self._order))
            except DrkunError as error:
                notice.fail(error)
            return
        self._input(next(name for name in NAMES if name in self._errors)).focus()
        notice.say(t("evaluation_screen.mend"), "warning")

    def _asked(self) -> Settings:
        """What decides an answer."""
        settings = greedy(self._settings)
        return msgspec.structs.replace(
            settings,
            model=self._value("model"),
            adapter=self._value("adapter") or None,
            sampling=msgspec.structs.replace(settings.sampling, max_tokens=int(self._value("length"))),
        )

    def _order(self) -> Order:
        """What the form says.

        Raises:
            DrkunError: it cannot be done.
        """
        before = self._before()
        return check(
            self._value("suite"),
            self._asked(),
            self.app.runs_now,
            task="department" if self._value("task") == "department" else "auto",
            limit=int(self._value("limit")),
            sequences=int(self._value("sequences")),
            against=before.id if before is not None else "",
        )
