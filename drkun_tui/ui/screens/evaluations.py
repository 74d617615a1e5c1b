"""The evaluations: how far they are, what they have found, and what two of them say of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen

from drkun_tui.errors import DrkunError
from drkun_tui.evaluation import card
from drkun_tui.evaluation.evaluations import Evaluation
from drkun_tui.evaluation.preflight import needs_room
from drkun_tui.evaluation.progress import Progress
from drkun_tui.evaluation.protocol import Difference
from drkun_tui.i18n import t
from drkun_tui.jobs.detached import tail
from drkun_tui.ui import evaluation_text
from drkun_tui.ui.room import make_room
from drkun_tui.ui.screens.choose import Choice, Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, wrap
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.row_list import RowList

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

PAINT_EVERY_S = 0.25
"""How often what is new is painted; answers come faster on a GPU."""


class EvaluationsScreen(Screen[None]):
    """The list, and below it the highlighted one.

    Args:
        id: of the evaluation that is highlighted first; by default the newest.
    """

    CSS_PATH = "../styles/evaluation.tcss"

    app: DrkunApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "keys.new_evaluation", id="evaluations.new"),
        Binding("s", "stop", "keys.stop_evaluation", id="evaluations.stop"),
        Binding("r", "resume", "keys.resume_evaluation", id="evaluations.resume"),
        Binding("c", "compare", "keys.compare_evaluations", id="evaluations.compare"),
        Binding("w", "card", "keys.evaluation_card", id="evaluations.card"),
        Binding("l", "log", "keys.log", id="evaluations.log", show=False),
        Binding("delete,d", "remove", "keys.remove_evaluation", id="evaluations.remove"),
        Binding("tab", "app.focus_next", "keys.switch_evaluation_part", id="evaluations.switch", show=False),
        Binding("escape", "app.pop_screen", "keys.back", id="evaluations.back"),
    ]

    def __init__(self, id: str = "") -> None:
        super().__init__()
        self._shown = id
        """Id of the evaluation below the list."""
        self._wants_focus = True
        """Shall the list have the focus once it has a place?"""
        self._order: list[str] = []
        """Ids as they are listed."""
        self._progress = Progress()
        """Of the one that is shown."""
        self._read_last = self._reading = ""
        """Ids of the one whose events were read last, and while they are."""
        self._dirty = False
        self._against: dict[str, str] = {}
        """Ids of what people chose to compare with, by the ids of what is compared; "" for nothing."""
        self._found: dict[tuple[str, str], tuple[Difference, ...] | DrkunError] = {}
        """What comparisons have found, by the ids of before and after."""
        self._comparing = ("", "")

    def compose(self) -> ComposeResult:
        """The list over the highlighted one."""
        yield Header()
        with Vertical(id="body"):
            yield LineView(id="columns")
            yield RowList(id="evaluations")
            yield LineView(id="evaluation")
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Show what is known, and look again."""
        self.query_one(Header).here = "models"
        self.query_one("#columns").can_focus = False
        self.query_one(RowList).focus()
        self.set_interval(PAINT_EVERY_S, self._paint_if_new)
        self.show_evaluations()
        self.app.watch_evaluations()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """There is another width for everything."""
        self._dirty = True

    @on(RowList.LaidOut)
    def _laid_out(self) -> None:
        self.show_evaluations()
        if self._wants_focus:
            self._wants_focus = False
            self.query_one(RowList).focus()

    # The list

    def show_evaluations(self) -> None:
        """Show how they stand."""
        if not self.query("#evaluations"):
            return
        listing = self.query_one(RowList)
        if not listing.size.width and not self.has_class("-empty"):
            # How much there is room for is not known; `LaidOut` comes.
            return
        known = self.app.evaluations_now
        if known and self.has_class("-empty"):
            # While there was nothing to move in, the list was hidden and had lost the focus.
            self._wants_focus = True
        self.set_class(not known, "-empty")
        compared = self._before(self.highlighted)
        width = max(40, listing.size.width - 1)
        lines = evaluation_text.list_lines(known, compared.id if compared else "", width)
        columns = self.query_one("#columns", LineView)
        columns.lines = lines[:1]
        columns.lines_changed(0, follow=False)
        self._order = [each.id for each in known]
        at = self._order.index(self._shown) if self._shown in self._order else 0
        listing.show(lines[1:], at if known else None)
        self._dirty = True
        self.refresh_bindings()

    def highlight(self, id: str) -> None:
        """Go to one of them."""
        self._shown = ""
        self.show_evaluations()
        if id in self._order:
            self.query_one(RowList).highlighted = self._order.index(id)

    @property
    def highlighted(self) -> Evaluation | None:
        """The highlighted evaluation."""
        at = self.query_one(RowList).highlighted
        if at is None or at >= len(self._order):
            return None
        return next((each for each in self.app.evaluations_now if each.id == self._order[at]), None)

    @on(RowList.Highlighted)
    def _highlighted(self) -> None:
        found = self.highlighted
        if found is not None and found.id != self._read_last:
            self._shown = found.id
            self.query_one("#evaluation", LineView).scroll_home(animate=False)
            self._follow(found)
            # Another one may be compared with it.
            self.call_after_refresh(self.show_evaluations)
        elif found is not None and found.running and found.id != self._reading:
            # It was at its end, and goes on.
            self._follow(found)
        self._dirty = True
        self.refresh_bindings()

    def _follow(self, evaluation: Evaluation) -> None:
        self._read_last = self._reading = evaluation.id
        self._progress = Progress(prepared=evaluation.prepared)
        self._read(evaluation)

    @work(group="follow", exclusive=True)
    async def _read(self, evaluation: Evaluation) -> None:
        """Read how far it is, then what it tells; what is through has its result."""
        if evaluation.result is not None:
            self._reading = ""
            return
        progress, offset = await self.app.evaluations.progress(evaluation.id)
        self._progress, self._dirty = progress, True
        try:
            async for event, _ in self.app.evaluations.follow(evaluation.id, offset):
                progress.add(event)
                self._dirty = True
        except (DrkunError, FileNotFoundError):
            # It was removed, here or by another program; the list says so.
            pass
        self._reading = ""
        self.app.watch_evaluations()

    # What two say of each other

    def _before(self, evaluation: Evaluation | None) -> Evaluation | None:
        """The one that an evaluation is compared with, once both are through."""
        if evaluation is None or evaluation.result is None:
            return None
        wanted = self._against.get(evaluation.id, evaluation.order.against)
        known = self.app.evaluations_now
        return next((each for each in known if each.id == wanted and each.result is not None), None)

    def _comparable(self, evaluation: Evaluation) -> list[Evaluation]:
        """Others that asked the same questions."""
        return [
            each
            for each in self.app.evaluations_now
            if each.id != evaluation.id
            and each.result is not None
            and evaluation.result is not None
            and each.result.fingerprint == evaluation.result.fingerprint
        ]

    @work(group="compare", exclusive=True)
    async def _compare(self, before: str, after: str) -> None:
        try:
            self._found[before, after] = await self.app.evaluations.compare(before, after)
        except DrkunError as error:
            self._found[before, after] = error
        self._comparing = ("", "")
        self._dirty = True

    # What is painted

    def _paint_if_new(self) -> None:
        if not self._dirty or self.app.screen is not self:
            return
        self._dirty = False
        view = self.query_one("#evaluation", LineView)
        lines = self._lines(max(40, view.size.width - 1))
        if view.lines != lines:
            view.lines = lines
            view.lines_changed(0, follow=False)

    def _lines(self, width: int) -> list[Line]:
        evaluation = self.highlighted
        if evaluation is None:
            told = wrap([Span(t("evaluation_screen.none_help"), "dim")], width)
            return [(Span(t("evaluation_screen.none"), "strong"),), (), *told]
        lines = evaluation_text.state_lines(evaluation, self._progress, width)
        if (result := evaluation.result) is None:
            return lines
        before = self._before(evaluation)
        found: tuple[Difference, ...] | DrkunError | None = ()
        if before is not None:
            model = evaluation_text.asked(before)
            said = t("evaluation_screen.compared", model=model, when=evaluation_text.when(before.updated))
            found = self._found.get((before.id, evaluation.id))
            if found is None and self._comparing != (before.id, evaluation.id):
                self._comparing = before.id, evaluation.id
                self._compare(before.id, evaluation.id)
            lines += wrap([Span(f"{said}  ", "dim"), _verdict(found)], width)
        differences = found if isinstance(found, tuple) else ()
        old = before.result if before is not None else None
        lines += [(), *evaluation_text.figure_lines(result, old, differences, width)]
        if bars := evaluation_text.bar_lines(result, old):
            lines += [(), *bars]
        lines.append(())
        for remark in [*evaluation_text.remarks(result, old), evaluation_text.took(result)]:
            lines += wrap([Span(remark, "dim")], width)
        return lines

    # What can be done

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer only what can be done with the highlighted one."""
        found = self.highlighted if self.query("#evaluations") else None
        if action == "stop":
            return found is not None and found.running
        if action == "resume":
            return found is not None and found.phase in ("stopped", "failed")
        if action == "remove":
            return found is not None and not found.running
        if action == "compare":
            return found is not None and bool(self._comparable(found))
        if action == "card":
            return found is not None and found.result is not None and bool(found.order.settings.adapter)
        if action == "log":
            return found is not None
        return True

    def action_new(self) -> None:
        """Fill in a form, and begin one."""
        if (found := self.highlighted) is None:
            self.app.evaluate(self.app.settings.model, self.app.settings.adapter or "")
            return
        order = found.order
        self.app.evaluate(order.settings.model, order.settings.adapter or "", order.suite, order)

    @work(group="dialog", exclusive=True)
    async def action_stop(self) -> None:
        """Ask it to end; what was answered is kept."""
        if (found := self.highlighted) is not None:
            await self._do(self.app.evaluations.request_stop(found.id))
            self.query_one(Notice).say(t("evaluation_screen.stopping"))

    @work(group="dialog", exclusive=True)
    async def action_resume(self) -> None:
        """Go on with what is not answered yet."""
        if (found := self.highlighted) is None:
            return
        settings = found.order.settings
        if await make_room(self.app, lambda held: needs_room(settings, held)):
            await self._do(self.app.evaluations.resume(found.id))

    @work(group="dialog", exclusive=True)
    async def action_compare(self) -> None:
        """Choose what it is compared with."""
        if (found := self.highlighted) is None:
            return
        others = self._comparable(found)
        before = self._before(found)
        rows = [
            (
                one_line(evaluation_text.asked(each), 60),
                evaluation_text.suite_of(each),
                evaluation_text.when(each.updated),
            )
            for each in others
        ]
        choices = [Choice("-", (t("evaluation_screen.without"), "", ""))]
        choices += [Choice(each.id, row) for each, row in zip(others, rows, strict=True)]
        dialog = Choose(t("evaluation_screen.field_against"), choices, before.id if before else "-")
        if (taken := await self.app.push_screen_wait(dialog)) is not None:
            self._against[found.id] = "" if taken == "-" else taken
            self.show_evaluations()

    @work(group="dialog", exclusive=True)
    async def action_card(self) -> None:
        """Write the result, and the comparison that is shown, into the adapter's card."""
        if (found := self.highlighted) is None or found.result is None:
            return
        before = self._before(found)
        differences = self._found.get((before.id, found.id)) if before is not None else ()
        if not isinstance(differences, tuple):
            self.query_one(Notice).say(t("evaluation_screen.comparing"), "warning")
            return
        old = before.result if before is not None else None
        notice = self.query_one(Notice)
        try:
            settings = found.order.settings
            place = await asyncio.to_thread(card.add, settings, found.result, old, differences)
        except DrkunError as error:
            notice.fail(error)
        else:
            notice.say(t("evaluation.card_written", file=str(place)))

    @work(group="dialog", exclusive=True)
    async def action_log(self) -> None:
        """Read what its process wrote last."""
        if (found := self.highlighted) is not None:
            text = await asyncio.to_thread(tail, self.app.evaluations.log(found.id))
            shown = text.decode("utf8", "replace") or t("evaluation_screen.no_log")
            title = t("evaluation_screen.log_title", id=found.id)
            await self.app.push_screen_wait(Reader(title, shown, markdown=False, end=True))

    @work(group="dialog", exclusive=True)
    async def action_remove(self) -> None:
        """Forget it, after asking."""
        if (found := self.highlighted) is None:
            return
        question = t("evaluation_screen.remove_question", name=evaluation_text.asked(found))
        if await self.app.push_screen_wait(Confirm(question, t("models.remove_keys"))):
            await self._do(self.app.evaluations.remove(found.id))

    async def _do(self, doing: Awaitable[object]) -> None:
        """Do it, tell what went wrong, and look again."""
        try:
            await doing
        except DrkunError as error:
            self.query_one(Notice).fail(error)
        self.app.watch_evaluations()


def _verdict(found: tuple[Difference, ...] | DrkunError | None) -> Span:
    """What a comparison says in one sentence."""
    if found is None:
        return Span(t("evaluation_screen.comparing"), "dim")
    if isinstance(found, DrkunError):
        return Span(clean(f"x {found.message}  {found.hint}"), "danger")
    shown = sum(each.shown for each in found)
    if not shown:
        return Span(t("evaluation_screen.nothing_shown"), "strong")
    return Span(t("evaluation_screen.some_shown", shown=shown, figures=len(found)), "strong")
