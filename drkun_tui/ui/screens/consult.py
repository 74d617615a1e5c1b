"""The consultation: ask, watch it being reasoned and answered, go back to earlier answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import OptionList, Static

from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.consult.session import RESUMABLE, Asked, Session, Unsaved, Update
from drkun_tui.engine.client import Restarting
from drkun_tui.engine.protocol import Delta, Loading, Ready
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.ui.screens.ask_text import AskText
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.table import middle_cut
from drkun_tui.ui.typeset.markdown import code_blocks
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.widgets.conversation_list import ConversationList
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.prompt import Prompt
from drkun_tui.ui.widgets.reasoning import ReasoningPane
from drkun_tui.ui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

GIB = 1024**3

PAINT_EVERY_S = 0.1
"""A reader cannot tell more paints apart, and every one takes time from the model's cores."""


class ConsultScreen(Screen[None]):
    """See the module."""

    app: DrkunApp
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (14, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "keys.stop", id="consult.stop"),
        # The same key, when there is nothing to stop.
        Binding("escape", "leave", "keys.leave", id="consult.leave", show=False),
        Binding("ctrl+r", "regenerate", "keys.regenerate", id="consult.regenerate"),
        Binding("ctrl+g", "resume", "keys.resume", id="consult.resume"),
        Binding("ctrl+b", "edit", "keys.edit", id="consult.edit", show=False),
        Binding("ctrl+t", "reasoning", "keys.reasoning", id="consult.reasoning"),
        Binding("f8", "enlarge", "keys.enlarge", id="consult.enlarge", show=False),
        # First, because a text field selects its text with this key.
        Binding(
            "f7",
            "hide_reasoning",
            "keys.hide_reasoning",
            id="consult.hide_reasoning",
            show=False,
            priority=True,
        ),
        # Some terminals open their menu with the first.
        Binding("f10,alt+t", "think", "keys.think", id="consult.think"),
        Binding("ctrl+n", "new", "keys.new", id="consult.new"),
        Binding("ctrl+l", "list", "keys.list", id="consult.list"),
        Binding("ctrl+s", "search", "keys.search", id="consult.search", show=False),
        Binding("ctrl+o", "copy_answer", "keys.copy_answer", id="consult.copy_answer", show=False),
        Binding("alt+o", "copy_code", "keys.copy_code", id="consult.copy_code", show=False),
        Binding("alt+up,ctrl+up", "choose(-1)", "keys.previous", id="consult.previous", show=False),
        Binding("alt+down,ctrl+down", "choose(1)", "keys.next", id="consult.next", show=False),
        Binding("pageup", "page(-1)", "keys.page_up", id="consult.page_up", show=False),
        Binding("pagedown", "page(1)", "keys.page_down", id="consult.page_down", show=False),
        Binding("ctrl+end", "to_end", "keys.to_end", id="consult.to_end", show=False, priority=True),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._painted = 0.0
        self._editing = False
        """The next question replaces the last turn."""
        self._speed_from: tuple[float, int] | None = None
        self._progress = ""

    def compose(self) -> ComposeResult:
        """The parts, from top to bottom."""
        yield Header()
        with Horizontal(id="body"):
            yield ConversationList(id="list")
            yield Transcript(id="transcript")
            yield ReasoningPane(id="reasoning")
        yield Notice()
        with Horizontal(id="ask"):
            yield Static(">", id="caret")
            yield Prompt(id="prompt")
        yield KeyHints()

    def on_mount(self) -> None:
        """Show what is there; the list and the model follow once the first frame is painted."""
        self.set_class(self.app.settings.conversation_list, "-list")
        self.query_one(ReasoningPane).mode = self.app.settings.reasoning
        prompt = self.query_one(Prompt)
        prompt.placeholder = t("consult.placeholder")
        prompt.focus()
        self.show_conversation()
        self.call_after_refresh(self._after_first_paint)

    def on_screen_resume(self) -> None:
        """Back from another place, where the settings may have been changed."""
        self.query_one(ReasoningPane).mode = self.app.settings.reasoning
        self.refresh_status()

    def _after_first_paint(self) -> None:
        self.refresh_list()
        self.query_one(Prompt).remember(self.app.store.recent_questions(100))

    # What is shown

    def show_conversation(self) -> None:
        """Show the session's conversation from its end."""
        self.query_one(Transcript).show(self.session.conversation)
        self.query_one(ReasoningPane).show(self.session.last)
        self.refresh_status()

    def refresh_list(self) -> None:
        """Read the list of conversations anew."""
        try:
            summaries = self.app.store.summaries()
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return
        self.query_one(ConversationList).show(summaries, self.session.conversation.id)

    def show_progress(self, progress: str) -> None:
        """What the model's loading says, "" when it is done."""
        self._progress = progress
        self.refresh_status()
        # There is something to stop, or no longer.
        self.refresh_bindings()

    def refresh_status(self) -> None:
        """Bring the top line up to date."""
        header, plan = self.query_one(Header), self.session.plan
        if plan is None:
            header.status = (self._progress,) if self._progress else ()
            return
        name = one_line(plan.name, 32)
        at_rest = "" if self.session.engine.loaded or self.session.loading else t("consult.not_loaded")
        model = f"{name} {self._progress or at_rest}".strip()
        parts = [model, t(f"profile.{plan.profile}")]
        self.query_one(Transcript).leaves_for = one_line(plan.server.host, 60) if plan.server else ""
        if coming := self.app.downloads_running:
            done = sum(download.done for download in coming)
            total = sum(download.total for download in coming)
            parts.insert(0, t("downloads.status", percent=f"{done / total:.0%}" if total else ""))
        if training := self.app.training_status:
            parts.insert(0, training)
        if (gpu := self.app.gpu_now) is not None:
            used, of_all = f"{gpu.used_bytes / GIB:.1f}", f"{gpu.total_bytes / GIB:.1f}"
            parts.append(t("consult.gpu", used=used, total=of_all, percent=gpu.percent))
        turn = self.session.turn or self.session.last
        if speed := self._speed(turn):
            parts.append(f"{speed:.0f} tok/s")
        ready = self.session.engine.ready
        if ready is not None and ready.context_length:
            parts.append(f"{_thousands(_context_used(turn))}/{_thousands(ready.context_length)}")
        if not self.app.settings.think:
            parts.insert(0, t("consult.no_think"))
        if plan.server is not None:
            # Where a question goes to is said for as long as it does: what stands last gives way last.
            parts.append(middle_cut(one_line(plan.server.host, 200), 22 if self.has_class("-narrow") else 48))
        header.status = tuple(parts)
        header.warning = t("consult.demonstration_short") if plan.model.demonstration else ""

    def _speed(self, turn: Turn | None) -> float:
        if turn is None:
            return 0.0
        if turn.state is not State.STREAMING or self._speed_from is None:
            return turn.timings.get("decode_tok_s", 0.0)
        began, tokens = self._speed_from
        elapsed = time.monotonic() - began
        return (_generated(turn) - tokens) / elapsed if elapsed > PAINT_EVERY_S else 0.0

    # One answer

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        if self._busy():
            self.query_one(Prompt).give_back(event.text)
            return
        settings = self.app.settings
        if self._editing:
            self._editing = False
            self._follow(self.session.ask_again(event.text, sampling=settings.sampling, think=settings.think))
        else:
            self._follow(
                self.session.ask(
                    event.text, sampling=settings.sampling, think=settings.think, system=settings.system
                )
            )

    def action_regenerate(self) -> None:
        """Ask the last question again."""
        if (last := self.session.last) is not None and not self._busy():
            settings = self.app.settings
            self._follow(
                self.session.ask_again(last.question, sampling=settings.sampling, think=settings.think)
            )

    def action_edit(self) -> None:
        """Take the last question back into the prompt; sending it replaces the last turn."""
        if (last := self.session.last) is not None and not self._busy():
            self._editing = True
            self.query_one(Prompt).replace_text(last.question)
            self.query_one(Notice).say(t("consult.editing"))
            self.query_one(Prompt).focus()

    def action_resume(self) -> None:
        """Carry on with an answer that was cut off."""
        last = self.session.last
        if last is not None and last.state in RESUMABLE and not self._busy():
            self._follow(self.session.resume())

    def action_stop(self) -> None:
        """Stop the answer or the model's loading; with neither under way, give up editing."""
        if self.session.turn is not None or self.session.loading:
            if self.session.loading:
                self.query_one(Notice).say(t("consult.load_stopped"))
            self.session.stop()
            return
        if self._editing:
            self._editing = False
            self.query_one(Prompt).clear()
        self.action_leave()

    def action_leave(self) -> None:
        """Back to the prompt: nothing told, nothing enlarged."""
        self.query_one(Notice).clear()
        self.remove_class("-enlarged")
        self.query_one(Prompt).focus()

    def _busy(self) -> bool:
        # The worker is there before the turn is: two questions may come in one burst.
        if not any(worker.group == "answer" and not worker.is_finished for worker in self.workers):
            return False
        self.query_one(Notice).say(t("consult.busy"), "warning")
        return True

    @work(group="answer")
    async def _follow(self, updates: AsyncIterator[Update]) -> None:
        """Show an answer as it comes."""
        self.query_one(Notice).clear()
        self._speed_from = None
        # A question may come before it is known which model answers it.
        await self.app.planned.wait()
        try:
            async for update in updates:
                self._show_update(update)
        except DrkunError as error:
            if self.is_attached:
                self._show_failure(error)
        finally:
            # The program may have been left, or shown anew, in the middle of the answer.
            if self.is_attached:
                self._show_end()

    def _show_failure(self, error: DrkunError) -> None:
        self.query_one(Notice).fail(error)
        if error.kind == "prompt_too_long" and (last := self.session.last) is not None:
            self.query_one(Prompt).give_back(last.question)

    def _show_end(self) -> None:
        self._progress = ""
        if (last := self.session.last) is not None:
            self._paint(last)
        self.refresh_list()
        self.refresh_bindings()

    def _show_update(self, update: Update) -> None:
        if isinstance(update, Asked):
            self.query_one(Transcript).turns_changed()
            self.query_one(ReasoningPane).show(update.turn)
            self.refresh_list()
            self.refresh_bindings()
        elif isinstance(update, Unsaved):
            self.query_one(Notice).fail(update.error)
        elif isinstance(update, Loading | Restarting | Ready):
            self.app.show_loading(update)
        elif (turn := self.session.turn) is not None:
            now = time.monotonic()
            if isinstance(update, Delta) and self._speed_from is None:
                self._speed_from = (now, _generated(turn))
            if not isinstance(update, Delta) or now - self._painted >= PAINT_EVERY_S:
                self._paint(turn)

    def _paint(self, turn: Turn) -> None:
        self._painted = time.monotonic()
        self.query_one(Transcript).grow(turn)
        self.query_one(ReasoningPane).grow(turn)
        self.refresh_status()

    # The panes

    def action_reasoning(self) -> None:
        """Collapse the reasoning to its title, or show it again."""
        pane = self.query_one(ReasoningPane)
        self._set_reasoning("shown" if pane.mode != "shown" else "collapsed")

    def action_hide_reasoning(self) -> None:
        """Hide the reasoning altogether, or show it again."""
        pane = self.query_one(ReasoningPane)
        self._set_reasoning("shown" if pane.mode == "hidden" else "hidden")

    def _set_reasoning(self, mode: Literal["shown", "collapsed", "hidden"]) -> None:
        self.query_one(ReasoningPane).mode = mode
        self.app.change_settings(reasoning=mode)

    def action_enlarge(self) -> None:
        """Give the reasoning the whole width, or give it back."""
        self.query_one(ReasoningPane).mode = "shown"
        self.toggle_class("-enlarged")

    @on(Transcript.Chosen)
    def _chosen(self, event: Transcript.Chosen) -> None:
        self.query_one(ReasoningPane).show(event.turn)

    def action_choose(self, step: int) -> None:
        """Show the reasoning of an earlier or later answer."""
        self.query_one(Transcript).choose(step)

    def action_page(self, direction: int) -> None:
        """Scroll the transcript, or the enlarged reasoning, by a page."""
        view = self.query_one("#reasoning-text" if self.has_class("-enlarged") else "#transcript", LineView)
        view.scroll_relative(y=direction * max(1, view.size.height - 2), animate=False)

    @on(Prompt.Paged)
    def _paged(self, event: Prompt.Paged) -> None:
        self.action_page(event.direction)

    def action_to_end(self) -> None:
        """Back to the newest line, and follow it again."""
        self.query_one(Transcript).scroll_end(animate=False)

    def action_think(self) -> None:
        """Let the model reason before it answers, or not."""
        self.app.change_settings(think=not self.app.settings.think)
        ready = self.session.engine.ready
        if ready is not None and not ready.can_toggle_thinking:
            self.query_one(Notice).say(t("consult.cannot_toggle"), "warning")
        else:
            state = "think_on" if self.app.settings.think else "think_off"
            self.query_one(Notice).say(t(f"consult.{state}"))
        self.refresh_status()

    def action_copy_answer(self) -> None:
        """Copy the chosen answer."""
        turn = self.query_one(Transcript).chosen
        self._copy(clean(turn.answer).strip() if turn else "", t("consult.copied_answer"))

    def action_copy_code(self) -> None:
        """Copy the last code block of the chosen answer."""
        turn = self.query_one(Transcript).chosen
        blocks = code_blocks(clean(turn.answer)) if turn else []
        self._copy(blocks[-1] if blocks else "", t("consult.copied_code"))

    def _copy(self, text: str, done: str) -> None:
        if text:
            self.app.copy_to_clipboard(text)
        self.query_one(Notice).say(done if text else t("consult.nothing_to_copy"))

    # Conversations

    def action_new(self) -> None:
        """Begin a new conversation."""
        if not self._busy():
            self.session.conversation = Conversation(id=0)
            self._editing = False
            self.show_conversation()
            self.refresh_list()
            self.query_one(Notice).clear()
            self.query_one(Prompt).focus()

    def action_list(self) -> None:
        """Show or fold the list of conversations; on a narrow screen it lies over the transcript."""
        if self.has_class("-narrow"):
            shown = not self.has_class("-list-over")
            self.set_class(shown, "-list-over")
        else:
            shown = not self.has_class("-list")
            self.set_class(shown, "-list")
            self.app.change_settings(conversation_list=shown)
        (self.query_one(OptionList) if shown else self.query_one(Prompt)).focus()

    def action_search(self) -> None:
        """Search in all questions and answers."""
        self.add_class("-list-over" if self.has_class("-narrow") else "-list")
        self.query_one(ConversationList).focus_search()

    @on(ConversationList.Searched)
    def _searched(self, event: ConversationList.Searched) -> None:
        if not event.query:
            self.refresh_list()
            return
        try:
            self.query_one(ConversationList).show_hits(self.app.store.search(event.query))
        except DrkunError as error:
            self.query_one(Notice).fail(error)

    @on(ConversationList.Opened)
    def _opened(self, event: ConversationList.Opened) -> None:
        if self._busy():
            return
        try:
            self.session.conversation = self.app.store.load(event.conversation_id)
        except DrkunError as error:
            self.query_one(Notice).fail(error)
            return
        self._editing = False
        self.show_conversation()
        if event.turn_id is not None:
            self.query_one(Transcript).choose_turn(event.turn_id)
        self.remove_class("-list-over")
        self.query_one(Prompt).focus()

    @on(ConversationList.RenameAsked)
    @work(exit_on_error=False)
    async def _rename(self, event: ConversationList.RenameAsked) -> None:
        try:
            old = self.app.store.load(event.conversation_id).title
            new = await self.app.push_screen_wait(AskText(t("consult.rename_question"), old))
            if new.strip() and new != old:
                self.app.store.rename(event.conversation_id, new.strip())
        except DrkunError as error:
            self.query_one(Notice).fail(error)
        self.refresh_list()

    @on(ConversationList.DeleteAsked)
    @work(exit_on_error=False)
    async def _delete(self, event: ConversationList.DeleteAsked) -> None:
        if event.conversation_id == self.session.conversation.id and self._busy():
            return
        if await self.app.push_screen_wait(Confirm(t("consult.delete_question"), t("consult.confirm_keys"))):
            try:
                self.app.store.delete_conversation(event.conversation_id)
            except DrkunError as error:
                self.query_one(Notice).fail(error)
            if event.conversation_id == self.session.conversation.id:
                self.action_new()
            self.refresh_list()

    @on(ConversationList.Left)
    def _left_list(self) -> None:
        self.remove_class("-list-over")
        self.query_one(Prompt).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer only what can be done now."""
        last, answering = self.session.last, self.session.turn is not None
        if action in ("stop", "leave"):
            return (answering or self.session.loading or self._editing) is (action == "stop")
        if action == "resume":
            return not answering and last is not None and last.state in RESUMABLE
        if action in ("regenerate", "edit"):
            return True if last is not None and not answering else None
        return True


def _generated(turn: Turn) -> int:
    return turn.usage.get("thinking_tokens", 0) + turn.usage.get("answer_tokens", 0)


def _context_used(turn: Turn | None) -> int:
    return 0 if turn is None else turn.usage.get("prompt_tokens", 0) + _generated(turn)


def _thousands(tokens: int) -> str:
    return f"{tokens / 1000:.1f}k"
