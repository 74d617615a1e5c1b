"""The training runs: how they learn, side by side if wanted, and what can be done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.jobs.detached import tail
from drkun_tui.library import adapters, inventory
from drkun_tui.library.held import Held
from drkun_tui.library.model import Model
from drkun_tui.library.plan import folders
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Finished
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import Run
from drkun_tui.ui import training_text
from drkun_tui.ui.room import make_room
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.new_run import NewRunScreen
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.typeset.wrap import Line, Span, wrap
from drkun_tui.ui.widgets.chart import Chart
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.row_list import RowList

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

PAINT_EVERY_S = 0.25
"""A curve that grows by a dot need not be drawn more often."""

GPU_EVERY_S = 2.0
"""How often the GPU is asked what it does."""


class TrainingScreen(Screen[None]):
    """The runs, and beside them the highlighted one."""

    CSS_PATH = "../styles/training.tcss"

    app: DrkunApp
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new_run", "keys.new_run", id="training.new"),
        Binding("s", "stop", "keys.stop_run", id="training.stop"),
        Binding("r", "resume", "keys.resume_run", id="training.resume"),
        Binding("c", "chat", "keys.chat_with", id="training.chat"),
        Binding("e", "evaluate", "keys.evaluate", id="training.evaluate"),
        Binding("m", "mark", "keys.mark_run", id="training.mark"),
        Binding("l", "log", "keys.log", id="training.log"),
        Binding("x", "cancel", "keys.cancel_run", id="training.cancel"),
        Binding("delete,d", "remove", "keys.remove_run", id="training.remove"),
        Binding("tab", "app.focus_next", "keys.switch_run_part", id="training.switch", show=False),
        Binding("escape", "app.go('consult')", "keys.back", id="training.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[Run] = []
        self._shown: str | None = None
        """Id of the run beside the list."""
        self._history = History()
        """All that this run has told; its newest events until the rest is read."""
        self._whole = False
        """Is the rest read?"""
        self._order: list[str] = []
        """Ids of the runs as they are listed."""
        self._dirty = False
        self._marked: dict[str, tuple[str, History]] = {}
        """Letters and histories of the marked runs, by their ids."""
        self._unread: set[str] = set()
        """Those of them of which only the newest events are known."""
        self._wants_focus = True
        """Shall the list have the focus once it has a place?"""
        self._gpu_percent: int | None = None
        """Of its time in which the GPU works; None while the run beside the list is not at work on one."""
        self.paints = 0
        """How often the run was painted."""

    def compose(self) -> ComposeResult:
        """Runs; of one of them head, curves, numbers, answer."""
        yield Header()
        with Horizontal(id="body"):
            with Vertical(id="runs-part"):
                yield RowList(id="runs")
            with Vertical(id="run-part"):
                yield LineView(id="run-head")
                yield Chart(id="loss")
                yield Chart(id="rate")
                yield LineView(id="numbers")
                yield LineView(id="sample")
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Show what is known, and look again."""
        self.query_one(Header).here = "training"
        for name in ("#run-head", "#numbers"):
            self.query_one(name).can_focus = False
        self.query_one(RowList).focus()
        self.set_interval(PAINT_EVERY_S, self._paint_if_new)
        self.set_interval(GPU_EVERY_S, self._look_at_gpu)
        self.show_runs(self.app.runs_now)
        self.app.watch_runs()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """There is another width for everything."""
        self._dirty = True

    @on(RowList.LaidOut)
    def _laid_out(self) -> None:
        self._show_list()
        self._dirty = True
        if self._wants_focus:
            self._wants_focus = False
            self.query_one(RowList).focus()

    # The runs

    def show_runs(self, runs: list[Run]) -> None:
        """Show how they stand."""
        if not self.query("#runs"):
            return
        again = {run.id for run in self._runs if not run.running} & {run.id for run in runs if run.running}
        known = {run.id for run in runs}
        self._runs = runs
        self._marked = {id: marked for id, marked in self._marked.items() if id in known}
        if self._shown in again:
            # It was at its end, and goes on.
            self._shown = None
        self._show_list()
        self._dirty = True
        self.refresh_bindings()
        self._read_marked()

    @work(group="marked", exclusive=True)
    async def _read_marked(self) -> None:
        """Let the curves grow of marked runs that are at work, or not wholly read, and not shown."""
        for run in self._runs:
            marked = self._marked.get(run.id)
            if marked is None or run.id == self._shown:
                continue
            if run.id in self._unread or run.history.step != marked[1].step:
                history, _ = await self.app.runs.history(run.id)
                self._unread.discard(run.id)
                if run.id in self._marked:
                    self._marked[run.id] = (marked[0], history)
                    self._dirty = True

    def _show_list(self) -> None:
        if not self.query("#runs"):
            return
        listing = self.query_one(RowList)
        if not listing.size.width and not self.has_class("-empty"):
            # How much there is room for is not known; `LaidOut` comes.
            return
        highlighted = self.highlighted.id if self.highlighted else self._shown
        signs = {id: sign for id, (sign, _) in self._marked.items()}
        at = next((i for i, run in enumerate(self._runs) if run.id == highlighted), 0)
        lines = training_text.run_lines(self._runs, signs, max(20, listing.size.width - 1))
        if lines and self.has_class("-empty"):
            # While there was nothing to move in, the list was hidden and had lost the focus.
            self._wants_focus = True
        self.set_class(not lines, "-empty")
        self._order = [run.id for run in self._runs]
        listing.show(lines, at if lines else None)
        if not lines:
            self._show_nothing()

    def _show_nothing(self) -> None:
        self._shown = None
        head = self.query_one("#run-head", LineView)
        head.lines = [
            (Span(t("training_screen.none"), "strong"),),
            (),
            *wrap([Span(t("training_screen.none_help"), "dim")], max(20, head.size.width - 1)),
        ]
        head.lines_changed(0, follow=False)
        for chart in self.query(Chart):
            chart.show((), (), 1)
        for name in ("#numbers", "#sample"):
            view = self.query_one(name, LineView)
            view.lines = []
            view.lines_changed(0, follow=False)

    @property
    def highlighted(self) -> Run | None:
        """The highlighted run."""
        at = self.query_one(RowList).highlighted if self._runs else None
        if at is None or at >= len(self._order):
            return None
        return next((run for run in self._runs if run.id == self._order[at]), None)

    @on(RowList.Highlighted)
    def _highlighted(self) -> None:
        run = self.highlighted
        if run is not None and run.id != self._shown:
            self._turn_to(run)
        self.refresh_bindings()

    def _turn_to(self, run: Run) -> None:
        """Show a run: its newest events until all are read, never those of the run before."""
        self._shown, self._history, self._whole, self._dirty = run.id, run.history, False, True
        self._follow(run.id)
        # Of the run before perhaps not all was read.
        self._read_marked()

    @work(group="follow", exclusive=True)
    async def _follow(self, id: str) -> None:
        """Load what a run has told, then what it tells."""
        history, offset = await self.app.runs.history(id)
        self._history, self._whole, self._dirty = history, True, True
        if (marked := self._marked.get(id)) is not None:
            self._marked[id] = (marked[0], history)
            self._unread.discard(id)
        try:
            async for event, _ in self.app.runs.follow(id, offset):
                history.add(event)
                self._dirty = True
        except (DrkunError, FileNotFoundError):
            # It was removed, here or by another program; the list says so.
            pass
        self.app.watch_runs()

    # What is painted

    def _paint_if_new(self) -> None:
        if not self._dirty or self.app.screen is not self:
            return
        if self.has_class("-empty"):
            self._dirty = False
            self._show_nothing()
            return
        run = next((run for run in self._runs if run.id == self._shown), None)
        if run is None:
            return
        self._dirty = False
        self.paints += 1
        history = self._history
        width = max(20, self.query_one("#run-part").content_size.width)
        self._set("#run-head", training_text.head_lines(run, history, width))
        end = own_end = float(history.total_steps or 1)
        if self._marked:
            named = [
                (sign, other.name, marked)
                for other in self._runs
                if (found := self._marked.get(other.id))
                for sign, marked in [found]
            ]
            title, curves = training_text.compared_curves(named)
            end = max(float(marked.total_steps) for _, _, marked in named)
        else:
            title, curves = training_text.loss_curves(history)
        self.query_one("#loss", Chart).show(title, curves, end)
        self.query_one("#rate", Chart).show(*training_text.rate_curves(history), own_end)
        self._set("#numbers", training_text.number_lines(history, width, self._gpu_percent))
        sample = history.samples[-1] if history.samples else None
        self._set("#sample", training_text.sample_lines(sample, width - 1))

    @work(group="gpu", exclusive=True)
    async def _look_at_gpu(self) -> None:
        """Ask the GPU what it does, while somebody looks at a run that is at work on it."""
        # Imported late: nobody needs it for the first frame.
        from drkun_tui import hardware

        planned, use = self._history.planned, None
        works = any(run.running for run in self._runs if run.id == self._shown)
        if works and planned is not None and planned.on_gpu and self.app.screen is self:
            use = await asyncio.to_thread(hardware.gpu_use)
        percent = use.percent if use else None
        if percent != self._gpu_percent:
            self._gpu_percent, self._dirty = percent, True

    def _set(self, name: str, lines: list[Line]) -> None:
        view = self.query_one(name, LineView)
        if view.lines != lines:
            view.lines = lines
            view.lines_changed(0, follow=False)
            view.styles.height = len(lines) if name != "#sample" else None

    # What can be done

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer only what can be done with the highlighted run."""
        run = self.highlighted
        if action in ("stop", "cancel"):
            return run is not None and run.running
        if action == "resume":
            return run is not None and run.phase in ("stopped", "failed")
        if action in ("chat", "evaluate"):
            return run is not None and run.phase == "done"
        if action in ("mark", "log"):
            return run is not None
        if action == "remove":
            return run is not None and not run.running
        return True

    @work(group="dialog", exclusive=True)
    async def action_new_run(self) -> None:
        """Fill in a form, and begin a run."""
        recipe = await self.app.push_screen_wait(NewRunScreen())
        if recipe is not None and await self._make_room(recipe):
            await self._do(self._start(recipe))

    async def _start(self, recipe: Recipe) -> None:
        run = await self.app.runs.start(recipe)
        self.query_one(RowList).highlighted = None
        self._turn_to(run)
        self.show_runs([run, *self._runs])

    async def _make_room(self, recipe: Recipe) -> bool:
        """Where training needs the memory of the model that answers, ask whether it may leave; False to begin
        nothing."""

        def needed(held: Held) -> bool:
            # Imported late: nobody needs it for the first frame.
            from drkun_tui.training import preflight

            room = preflight.room(recipe, self.app.settings)
            return room.asks_for(held.gpu if room.on_gpu else held.ram)

        return await make_room(self.app, needed)

    @work(group="dialog", exclusive=True)
    async def action_stop(self) -> None:
        """Ask the run to write a checkpoint and end."""
        if (run := self.highlighted) is not None:
            await self._do(self.app.runs.request_stop(run.id))
            self.query_one(Notice).say(t("training_screen.stopping", name=one_line(run.name, 60)))

    @work(group="dialog", exclusive=True)
    async def action_cancel(self) -> None:
        """End the run at once, after asking."""
        if (run := self.highlighted) is None:
            return
        history, _ = await self.app.runs.history(run.id)
        lost = history.step - history.saved
        question = t("training_screen.cancel_question", name=one_line(run.name, 60), steps=lost)
        if await self.app.push_screen_wait(Confirm(question, t("training_screen.cancel_keys"))):
            await self._do(self.app.runs.cancel(run.id))

    @work(group="dialog", exclusive=True)
    async def action_resume(self) -> None:
        """Go on from the newest checkpoint."""
        if (run := self.highlighted) is not None and await self._make_room(run.recipe):
            await self._do(self._resume(run))

    async def _resume(self, run: Run) -> None:
        self._turn_to(await self.app.runs.resume(run.id))

    @work(group="dialog", exclusive=True)
    async def action_remove(self) -> None:
        """Forget the run, after asking; its adapter stays."""
        if (run := self.highlighted) is None:
            return
        question = t("training_screen.remove_question", name=one_line(run.name, 60))
        if await self.app.push_screen_wait(Confirm(question, t("models.remove_keys"))):
            await self._do(self.app.runs.remove(run.id))

    async def _do(self, doing: Awaitable[object]) -> None:
        """Do it, tell what went wrong, and look again."""
        try:
            await doing
        except DrkunError as error:
            self.query_one(Notice).fail(error)
        self.app.watch_runs()

    def action_mark(self) -> None:
        """Draw this run beside the other marked ones, or no longer."""
        if (run := self.highlighted) is None:
            return
        self._unread.discard(run.id)
        if self._marked.pop(run.id, None) is None:
            taken = {sign for sign, _ in self._marked.values()}
            free = [sign for sign in training_text.SIGNS if sign not in taken]
            if not free:
                self.query_one(Notice).say(t("training_screen.most_marked", most=len(taken)), "warning")
                return
            read = run.id == self._shown and self._whole
            self._marked[run.id] = (free[0], self._history if read else run.history)
            if not read:
                self._unread.add(run.id)
        self._show_list()
        self._dirty = True
        self._read_marked()

    @work(group="dialog", exclusive=True)
    async def action_log(self) -> None:
        """Read what the run's process wrote last."""
        if (run := self.highlighted) is None:
            return
        text = (await asyncio.to_thread(tail, self.app.runs.log(run.id))).decode("utf8", "replace")
        # A progress bar that was drawn over itself a hundred times is one line.
        shown = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
        await self.app.push_screen_wait(
            Reader(run.name, shown or t("training_screen.no_log"), markdown=False, end=True)
        )

    @work(group="dialog", exclusive=True)
    async def action_chat(self) -> None:
        """Consult with the adapter that the run made, and its base."""
        if self.app.session.turn is not None:
            self.query_one(Notice).say(t("consult.busy"), "warning")
            return
        if (found := await self._made()) is None:
            return
        adapter, base = found
        self.app.change_settings(model=base.name, adapter=adapter.name)
        self.app.action_go("consult")
        self.app.load_model()

    @work(group="dialog", exclusive=True)
    async def action_evaluate(self) -> None:
        """Measure the adapter that the run made, on the rows that it held out."""
        if (run := self.highlighted) is not None and (found := await self._made()) is not None:
            adapter, base = found
            self.app.evaluate(base.name, adapter.name, run.id)

    async def _made(self) -> tuple[Model, Model] | None:
        """The adapter of the highlighted run with its base; None, and it is said why, when it is gone."""
        if (run := self.highlighted) is None:
            return None
        end = (await self.app.runs.history(run.id))[0].end
        if not isinstance(end, Finished):
            return None
        found = await asyncio.to_thread(self._adapter_and_base, Path(end.folder))
        if found is None:
            self.query_one(Notice).say(t("training_screen.adapter_gone", folder=end.folder), "warning")
        return found

    def _adapter_and_base(self, folder: Path) -> tuple[Model, Model] | None:
        models = inventory.scan(folders(self.app.settings))
        for model, base in zip(models, adapters.bases(models), strict=True):
            if model.is_adapter and base is not None and model.path == folder:
                return model, base
        return None
