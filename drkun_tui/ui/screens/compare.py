"""The same question to several models, side by side; in a blind comparison the reader votes."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Static

from drkun_tui import hardware, paths
from drkun_tui.comparison import contestants, records, votes
from drkun_tui.comparison.contest import Contest, News, Order, order, shuffled, unlike
from drkun_tui.comparison.contestants import MOST, REMOTE, Contestant
from drkun_tui.comparison.differences import differing
from drkun_tui.comparison.records import Record
from drkun_tui.consult import safety
from drkun_tui.engine.client import Restarting
from drkun_tui.engine.protocol import Delta, Loading
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import language, t
from drkun_tui.ui import comparison_text
from drkun_tui.ui.progress import loading_text
from drkun_tui.ui.room import gains_on_gpu, make_room
from drkun_tui.ui.screens.contestants import ChooseContestants
from drkun_tui.ui.screens.reader import Reader
from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.typeset.wrap import Line, Span, wrap
from drkun_tui.ui.widgets.contest_bar import ContestBar
from drkun_tui.ui.widgets.contest_column import ComparedText, ContestColumn
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

PAINT_EVERY_S = 0.1
"""As in the consultation, for all columns together."""

SIDE_BY_SIDE = 100
"""Cells of a screen on which columns stand beside each other; on a narrower one, behind each other."""

ONE_LINE = 50
"""Cells of a column on which all figures find room on one line."""

NARROWEST = 33
"""Cells of a column beside others."""


class CompareScreen(Screen[None]):
    """See the module."""

    CSS_PATH = "../styles/compare.tcss"

    app: DrkunApp
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "keys.stop", id="compare.stop"),
        *(
            Binding(str(number), f"vote({number})", "keys.vote", id=f"compare.vote_{number}")
            for number in (*range(1, MOST + 1), 0)
        ),
        Binding("f8,alt+right", "turn(1)", "keys.next_column", id="compare.next"),
        Binding("ctrl+l", "choose", "keys.contestants", id="compare.choose"),
        Binding("ctrl+r", "again", "keys.another_seed", id="compare.again"),
        Binding("ctrl+b", "blind", "keys.blind", id="compare.blind"),
        Binding("alt+left", "turn(-1)", "keys.previous_column", id="compare.previous", show=False),
        Binding("ctrl+o", "order", "keys.order", id="compare.order", show=False),
        Binding("ctrl+s", "votes", "keys.votes", id="compare.votes", show=False),
        Binding("ctrl+t", "marks", "keys.marks", id="compare.marks", show=False),
        # First, or the text that has the focus scrolls alone.
        Binding("pageup", "page(-1)", "keys.page_up", id="compare.page_up", show=False, priority=True),
        Binding("pagedown", "page(1)", "keys.page_down", id="compare.page_down", show=False, priority=True),
        Binding("tab", "app.focus_next", "keys.switch_answers", id="compare.switch", show=False),
        # The same key, when there is nothing to stop.
        Binding("escape", "app.go('consult')", "keys.back", id="compare.back"),
    ]

    current: reactive[int] = reactive(0, init=False)
    """Index of the column that is shown where there is room for one."""

    def __init__(self) -> None:
        super().__init__()
        self._specs: list[str] = []
        self._possible: dict[str, str] | None = None
        """Everyone that can be entered, with what each is called; None while it is looked for."""
        self._entered: list[Contestant] = []
        """In the order of the columns."""
        self._contest: Contest | None = None
        """While it is under way."""
        self._record: Record | None = None
        """The comparison that is shown, once it has ended."""
        self._question = ""
        self._seed = 0
        self._order: Order | None = None
        self._in_turn = False
        self._blind = False
        self._hidden = False
        """Are the names of what is shown hidden?"""
        self._marks = True
        self._painted = 0.0

    def compose(self) -> ComposeResult:
        """What is compared, how; the columns; the question."""
        yield Header()
        yield ContestBar()
        yield Static("", id="advice", markup=False)
        yield LineView(id="intro")
        yield Horizontal(id="columns")
        yield Notice()
        with Horizontal(id="ask"):
            yield Static(">", id="caret")
            yield Prompt(id="prompt")
        yield KeyHints()

    def on_mount(self) -> None:
        """Take up the question of the conversation, and look who could take part."""
        self.query_one(Header).here = "compare"
        prompt = self.query_one(Prompt)
        prompt.placeholder = t("compare.placeholder")
        prompt.remember(self.app.store.recent_questions(100))
        if (last := self.app.session.last) is not None:
            prompt.replace_text(last.question)
        prompt.focus()
        self._show_intro()
        self._look()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """More or fewer columns find room."""
        self.call_after_refresh(self._lay_out)

    # Who takes part

    @work(group="look", exclusive=True)
    async def _look(self) -> None:
        settings = self.app.settings
        found = await asyncio.to_thread(contestants.available, settings, self.app.runs.root)
        self._possible = found
        self._specs = contestants.usual(settings, found)
        self._show_intro()

    @work(group="dialog", exclusive=True)
    async def action_choose(self) -> None:
        """Choose who takes part."""
        if self._busy() or self._possible is None:
            return
        chosen = await self.app.push_screen_wait(ChooseContestants(self._possible, self._specs))
        if chosen is not None:
            self._specs = chosen
            self.app.change_settings(contestants=chosen)
            self._clear()

    def _clear(self) -> None:
        """Back to the beginning: other contestants, nothing asked."""
        self._record, self._entered, self._question, self._hidden = None, [], "", False
        self.query_one("#advice", Static).update("")
        self.query_one("#columns").remove_children()
        self.query_one(Notice).clear()
        self._show_intro()
        self.refresh_bindings()

    def _show_intro(self) -> None:
        """Who will be asked, and what can be done."""
        if not self.is_mounted or self._entered:
            return
        self.set_class(False, "-asked")
        view = self.query_one("#intro", LineView)
        view.can_focus = False
        width = max(20, view.size.width - 1)
        lines: list[Line] = [(), (Span(t("compare.title"), "heading"),), ()]
        for number, spec in enumerate(self._specs, start=1):
            name = (self._possible or {}).get(spec, spec)
            lines.append((Span(f" {number}  ", "label"), Span(one_line(name, width - 6), "strong")))
        if self._possible is None:
            lines.append((Span(t("compare.looking"), "dim"),))
        elif len(self._specs) < 2:
            told = "compare.choose_two" if len(self._possible) > 1 else "compare.only_one"
            lines += wrap([Span(t(told), "warning")], width)
        for text in ("how", "blind_how", "safety"):
            lines += [(), *wrap([Span(t(f"compare.intro_{text}"), "dim")], width)]
        view.lines = lines
        view.lines_changed(0, follow=False)
        self._show_bar()

    # Asking

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        seed = self.app.settings.sampling.seed
        if self._busy():
            self.query_one(Prompt).give_back(event.text)
        elif len(self._specs) < 2:
            self.query_one(Prompt).give_back(event.text)
            self.query_one(Notice).say(t("compare.choose_two"), "warning")
        else:
            self._compare(event.text, random.getrandbits(31) if seed is None else seed)

    def action_again(self) -> None:
        """Ask the same question with another seed."""
        if self._question and not self._busy():
            self._compare(self._question, random.getrandbits(31))

    def _busy(self) -> bool:
        if not any(worker.group == "contest" and not worker.is_finished for worker in self.workers):
            return False
        self.query_one(Notice).say(t("consult.busy"), "warning")
        return True

    @work(group="contest")
    async def _compare(self, question: str, seed: int) -> None:
        """Ask everyone, and show what comes."""
        self.query_one(Notice).clear()
        settings, specs = self.app.settings, self._specs
        entered = gains_on_gpu(
            lambda machine: [one.plan for one in contestants.enter_all(specs, settings, machine=machine)]
        )
        if not await make_room(self.app, entered):
            self.query_one(Prompt).give_back(question)
            return
        try:
            contest = await self._prepare(question, seed)
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            self.query_one(Prompt).give_back(question)
            return
        sampling = msgspec.structs.replace(settings.sampling, seed=seed)
        answers = contest.ask(question, sampling=sampling, think=settings.think, system=settings.system)
        try:
            async for index, news in answers:
                if self.is_attached:
                    self._show_news(contest, index, news)
        finally:
            self._contest = None
            await contest.close()
        if self.is_attached:
            self._show_end(contest)

    async def _prepare(self, question: str, seed: int) -> Contest:
        """Everything that is known before the first model is loaded, shown.

        Raises:
            DrkunError: one of the contestants cannot take part.
        """
        settings = self.app.settings
        entered = await asyncio.to_thread(contestants.enter_all, self._specs, settings)
        machine = await asyncio.to_thread(hardware.read)
        self._order = order([one.plan for one in entered], machine, in_turn=self._in_turn)
        self._entered = shuffled(entered, seed, question) if self._blind else entered
        self._hidden, self._record = self._blind, None
        self._question, self._seed = question, seed
        self._contest = contest = Contest(self._entered, self._order, paths.home(), paths.machine_file())
        flags = safety.red_flags(question)
        self.query_one("#advice", Static).update(f"!! {safety.advice(flags, language())}" if flags else "")
        self.set_class(bool(flags), "-danger")
        told = [one.plan.notice for one in entered if one.plan.notice]
        told.append(unlike(one.plan for one in entered))
        if not self._order.together:
            told.append(self._order.reason)
        self.query_one(Notice).say("  ".join(filter(None, dict.fromkeys(told))))
        columns = self.query_one("#columns", Horizontal)
        await columns.remove_children()
        await columns.mount_all([ContestColumn(index) for index in range(len(entered))])
        self.set_class(True, "-asked")
        self.current = 0
        self._lay_out()
        self._columns()[0].texts[1].focus()
        self.refresh_bindings()
        return contest

    def _columns(self) -> list[ContestColumn]:
        return list(self.query(ContestColumn))

    def _show_news(self, contest: Contest, index: int, news: News) -> None:
        column = self._columns()[index]
        if column.turn is None:
            self._show_turns(contest)
        if isinstance(news, Loading):
            column.tell("" if self._hidden else loading_text(news))
        elif isinstance(news, Restarting):
            self.query_one(Notice).say(t("engine.safe_mode"))
        elif isinstance(news, DrkunError):
            column.tell("")
            # Whose it is would be told by its words.
            if not self._hidden:
                self.query_one(Notice).fail(news)
            column.grow()
        else:
            column.tell("")
            now = time.monotonic()
            if not isinstance(news, Delta):
                column.grow()
            elif now - self._painted >= PAINT_EVERY_S:
                self._painted = now
                for each in self._columns():
                    each.grow()
                self._align()

    def _align(self) -> None:
        """Let all answers begin on one line: as much room above them as the longest reasoning wants."""
        thoughts = [column.texts[0] for column in self._columns()]
        most = max(3, self.query_one("#columns").size.height // 3)
        # One that is not shown has no width, and its lines are not those that it will have.
        height = min(most, max((len(text.lines) for text in thoughts if text.size.width), default=1))
        for text in thoughts:
            text.styles.height = max(1, height)

    def _show_turns(self, contest: Contest) -> None:
        for column, turn, one in zip(self._columns(), contest.answers, self._entered, strict=True):
            column.show(turn, one.name, anonymous=self._hidden)

    def _show_end(self, contest: Contest) -> None:
        for column in self._columns():
            column.tell("")
            column.grow()
        self._align()
        turns = contest.answers
        if any(turn.answer.strip() for turn in turns):
            record = Record.of(contest, blind=self._hidden)
            try:
                records.keep(record)
                self._record = record
            except DrkunError as error:
                self.query_one(Notice).fail(error)
        if self._hidden:
            if self._record is not None and votes.can_vote(turns):
                said = [t("compare.vote_now", last=len(turns))]
                if any(turn.demonstration for turn in turns):
                    said.append(t("compare.some_demonstration"))
                self.query_one(Notice).say("  ".join(said))
            else:
                # There is nothing to choose from.
                self._reveal()
        self._mark_differences()
        self._show_bar()
        self.refresh_bindings()

    def action_stop(self) -> None:
        """Stop every answer."""
        if self._contest is not None:
            self._contest.stop()

    # Differences

    @on(ComparedText.Typeset)
    def _typeset(self) -> None:
        self._align()
        # Several texts are typeset in one go.
        if self._contest is None:
            self.call_after_refresh(self._mark_differences)

    @work(group="marks", exclusive=True)
    async def _mark_differences(self) -> None:
        """Mark what the others do not say, when all have ended."""
        columns = self._columns()
        if self._contest is not None or not columns or any(column.turn is None for column in columns):
            return
        for part in (0, 1):
            texts = [column.texts[part] for column in columns]
            words = [text.words for text in texts]
            found = await asyncio.to_thread(differing, words)
            for text, own, marks in zip(texts, words, found, strict=True):
                # It may have been typeset anew meanwhile, and then this comes again.
                if text.words == own:
                    text.mark(marks if self._marks else [False] * len(marks))

    def action_marks(self) -> None:
        """Show the differences, or the texts alone."""
        self._marks = not self._marks
        self._mark_differences()

    # Voting

    def action_blind(self) -> None:
        """Hide the names of the next comparison, or show them."""
        self._blind = not self._blind
        self.query_one(Notice).say(t("compare.blind_on" if self._blind else "compare.blind_off"))
        self._show_bar()

    def action_vote(self, number: int) -> None:
        """Say which answer is the best, 0 for all as good; then the names are shown."""
        if self._record is None or not self._hidden:
            return
        try:
            records.vote(self._record, number - 1 if number else None)
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return
        self._reveal()
        best = one_line(self._entered[number - 1].name, 60) if number else ""
        self.query_one(Notice).say(t("compare.voted", name=best) if best else t("compare.voted_equal"))

    def _reveal(self) -> None:
        self._hidden = False
        for column, one in zip(self._columns(), self._entered, strict=True):
            column.call(one.name, anonymous=False)
        self._show_bar()
        self.refresh_bindings()

    @work(group="dialog", exclusive=True)
    async def action_votes(self) -> None:
        """Who won how often."""
        try:
            pairs = await asyncio.to_thread(lambda: votes.tally(records.read()))
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return
        shown = (
            [*comparison_text.vote_lines(pairs), "", t("compare.p_help")]
            if pairs
            else [t("compare.no_votes")]
        )
        text = "\n".join(shown)
        await self.app.push_screen_wait(Reader(t("compare.votes_title"), text, markdown=False))

    # What is shown

    def _lay_out(self) -> None:
        if not self.is_mounted:
            return
        columns = self._columns()
        self.set_class(self.size.width < max(SIDE_BY_SIDE, NARROWEST * len(columns)), "-one")
        beside = 1 if self.has_class("-one") else max(1, len(columns))
        self.set_class(self.size.width // beside < ONE_LINE, "-tight")
        self.watch_current()
        self._show_intro()
        self.refresh_bindings()

    def watch_current(self) -> None:
        """Show this column, where one is shown."""
        for index, column in enumerate(self._columns()):
            column.set_class(index == self.current, "-current")
        self._show_bar()

    def action_turn(self, step: int) -> None:
        """Show the next contestant."""
        columns = self._columns()
        self.current = (self.current + step) % max(1, len(columns))
        columns[self.current].texts[1].focus()

    def action_page(self, direction: int) -> None:
        """Scroll all answers by a page."""
        for column in self._columns():
            answer = column.texts[1]
            answer.scroll_relative(y=direction * max(1, answer.size.height - 2), animate=False)

    @on(Prompt.Paged)
    def _paged(self, event: Prompt.Paged) -> None:
        self.action_page(event.direction)

    def action_order(self) -> None:
        """At once where memory allows, or one after the other in any case."""
        self._in_turn = not self._in_turn
        self.query_one(Notice).say(t("compare.in_turn" if self._in_turn else "compare.at_once"))
        self._show_bar()

    def _show_bar(self) -> None:
        bar = self.query_one(ContestBar)
        bar.question = self._question
        told = [t("compare.seed", seed=self._seed)] if self._question else []
        together = self._order.together if self._order and self._question else not self._in_turn
        told.append(t("compare.bar_together" if together else "compare.bar_in_turn"))
        if self._blind:
            told.append(t("compare.bar_blind"))
        if any(spec.partition(":")[0] == REMOTE for spec in self._specs) and self._possible:
            # Where a question goes to is said before it goes.
            told.append(f"{t('profile.remote')} {one_line(self._possible.get(REMOTE, ''), 40)}")
        bar.told = tuple(told)
        one = self.has_class("-one")
        bar.tabs = (self.current, len(self._columns())) if one else (0, 0)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        if action == "stop":
            return self._contest is not None
        if action == "vote":
            number = parameters[0]
            voting = self._record is not None and self._hidden and not isinstance(self.focused, Prompt)
            return voting and isinstance(number, int) and number <= len(self._entered)
        if action == "again":
            return bool(self._question) and self._contest is None
        if action == "turn":
            return self.has_class("-one") and bool(self._entered)
        if action == "choose":
            return self._contest is None
        return True
