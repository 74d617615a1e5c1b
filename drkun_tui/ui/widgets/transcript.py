"""The questions and answers of one conversation."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual.reactive import var

from drkun_tui.consult import safety
from drkun_tui.consult.answering import origin
from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.i18n import language, t
from drkun_tui.ui.typeset.blocks import BlockStream
from drkun_tui.ui.typeset.markdown import render_block
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, Wrapper, wrap
from drkun_tui.ui.widgets.line_view import LineView

GUTTER = 4
"""Cells at the left that hold the labels of question and answer."""

FIRST_SHOWN = 30
"""Turns typeset when a conversation is opened, and each time its beginning is reached."""

LIVE_MARKDOWN = 600
"""Characters of an unfinished block up to which it is typeset as Markdown at every flush; a longer one
is shown as plain text until it ends, so that a flush costs the same however long it gets."""

BLANK: Line = ()
BETWEEN: list[Line] = [BLANK, BLANK]
"""Between two turns."""


class Transcript(LineView):
    """Shows turns, lets one answer be chosen, follows the newest while the reader is at the end."""

    @dataclass
    class Chosen(Message):
        """Another answer's reasoning should be shown."""

        turn: Turn

    lines: list[Line]
    leaves_for: var[str] = var("", init=False)
    """The host that questions are sent to, where another machine answers."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._turns: list[Turn] = []
        self._typeset: list[TurnLines] = []
        """Of the last turns only, up to the newest."""
        self._chosen: int | None = None
        self._width = 0
        self._proposal = ""

    def watch_leaves_for(self) -> None:
        """Say it where nothing has been asked yet, too."""
        if not self._turns:
            self._lay_out(follow=False)

    def propose(self, text: str) -> None:
        """Say this, too, where nothing has been asked yet; "" takes it back."""
        if text != self._proposal:
            self._proposal = text
            if not self._turns:
                self._lay_out(follow=False)

    def show(self, conversation: Conversation) -> None:
        """Show a conversation from its end."""
        self._turns = conversation.turns
        self._chosen = None
        self._typeset_last(FIRST_SHOWN)

    def turns_changed(self) -> None:
        """Turns were added or replaced."""
        self._chosen = None
        self._typeset_last(max(FIRST_SHOWN, len(self._typeset) + 1))

    def grow(self, turn: Turn) -> None:
        """More of the newest answer has come, or it has ended."""
        if not self._typeset or self._typeset[-1].turn is not turn:
            return
        newest = self._typeset[-1]
        start = len(self.lines) - len(newest.lines)
        first = newest.grow()
        del self.lines[start + first :]
        self.lines += newest.lines[first:]
        self.lines_changed(start + first)

    @property
    def chosen(self) -> Turn | None:
        """The turn whose reasoning is asked for: the chosen one, else the newest."""
        if self._chosen is not None and self._chosen < len(self._turns):
            return self._turns[self._chosen]
        return self._turns[-1] if self._turns else None

    def choose_turn(self, turn_id: int) -> None:
        """Choose the answer of this turn, if it is here."""
        for index, turn in enumerate(self._turns):
            if turn.id == turn_id:
                now = len(self._turns) - 1 if self._chosen is None else self._chosen
                self.choose(index - now)

    def choose(self, step: int) -> None:
        """Choose the answer `step` places after the chosen one."""
        if not self._turns:
            return
        last = len(self._turns) - 1
        now = last if self._chosen is None else self._chosen
        wanted = min(last, max(0, now + step))
        self._chosen = None if wanted == last else wanted
        shown_from = len(self._turns) - len(self._typeset)
        if wanted < shown_from:
            self._typeset_last(len(self._turns) - wanted, follow=False)
        else:
            self._lay_out(follow=False)
        # Forced, because a conversation that has just been opened has no scrollbar yet.
        self.scroll_to(y=max(0, self._top_of(wanted) - 1), animate=False, force=True)
        self.post_message(self.Chosen(self._turns[wanted]))

    # Typesetting

    def _typeset_last(self, count: int, *, follow: bool = True) -> None:
        width = self._width or 80
        have = {id(typeset.turn): typeset for typeset in self._typeset if typeset.width == width}
        self._typeset = [have.get(id(turn)) or TurnLines(turn, width) for turn in self._turns[-count:]]
        self._lay_out(follow=follow)

    def _lay_out(self, *, follow: bool) -> None:
        hidden = len(self._turns) - len(self._typeset)
        lines: list[Line] = [] if self._turns else self._welcome()
        if hidden:
            lines += [(Span(t("consult.earlier", count=hidden), "dim"),), BLANK]
        for index, typeset in enumerate(self._typeset, start=hidden):
            typeset.chosen = index == self._chosen
            lines += (BETWEEN if index > hidden else []) + typeset.lines
        self.lines = lines
        self.lines_changed(0, follow=follow)

    def _welcome(self) -> list[Line]:
        """What to do when nothing has been asked yet."""
        # One cell less, as for turns: there may be a scrollbar.
        width = max(1, (self._width or 80) - GUTTER - 1)
        margin = Span(" " * GUTTER)
        lines: list[Line] = [BLANK]
        said = [
            (t("welcome.title"), "heading"),
            (t("welcome.how") if not self.leaves_for else t("remote.welcome", host=self.leaves_for), ""),
            (t("welcome.example"), "quote"),
            (t("welcome.safety"), "dim"),
            (self._proposal, "strong"),
        ]
        for text, style in said:
            if text:
                lines += [*((margin, *line) for line in wrap([Span(text, style)], width)), BLANK]
        return lines

    def _top_of(self, index: int) -> int:
        hidden = len(self._turns) - len(self._typeset)
        before = self._typeset[: max(0, index - hidden)]
        return (2 if hidden else 0) + sum(len(typeset.lines) + len(BETWEEN) for typeset in before)

    def retypeset(self) -> None:
        """The width changed."""
        self._typeset_last(len(self._typeset), follow=self.following)

    def on_resize(self) -> None:
        """Break the lines anew when the width changed."""
        if self.size.width != self._width:
            self._width = self.size.width
            self.retypeset()
        elif self.following:
            self.lines_changed(len(self.lines), follow=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Reaching the beginning brings earlier turns."""
        super().watch_scroll_y(old_value, new_value)
        if new_value <= 0 < old_value and len(self._typeset) < len(self._turns):
            # Later, because an animation that is at its last step cannot be ended once more.
            self.call_later(self._show_earlier)

    def _show_earlier(self) -> None:
        """Typeset some more turns above those that are there, which stay where they are."""
        if self.scroll_offset.y <= 0:
            height = len(self.lines)
            self._typeset_last(len(self._typeset) + FIRST_SHOWN, follow=False)
            self.scroll_to(y=len(self.lines) - height, animate=False, immediate=True)

    def on_click(self, event: events.Click) -> None:
        """A click on an answer chooses it."""
        row = self.scroll_offset.y + event.y
        hidden = len(self._turns) - len(self._typeset)
        for index in range(len(self._turns) - 1, hidden - 1, -1):
            if self._top_of(index) <= row:
                self._chosen = None if index == len(self._turns) - 1 else index
                self._lay_out(follow=False)
                self.post_message(self.Chosen(self._turns[index]))
                return


def outcome(turn: Turn, *, answered: bool) -> list[Span]:
    """How an answer ended, where it was not well.

    Args:
        answered: there is something to read.
    """
    said = []
    if turn.thinking_truncated and turn.state is State.LENGTH:
        said.append(Span(t("consult.thinking_truncated"), "warning"))
    elif turn.state is not State.DONE:
        said.append(Span(t(f"consult.state_{turn.state}"), "warning"))
    elif not answered:
        said.append(Span(t("consult.empty_answer"), "warning"))
    if turn.error:
        said.append(Span(clean(turn.error), "danger"))
    return said


class TurnLines:
    """The lines of one turn at one width; they grow while its answer streams."""

    def __init__(self, turn: Turn, width: int) -> None:
        self.turn = turn
        self.width = width
        self._inner = max(1, width - GUTTER - 1)
        self.lines: list[Line] = []
        self._begin()
        self.grow()

    @property
    def chosen(self) -> bool:
        """Is this the answer whose reasoning is shown?"""
        return self._chosen

    @chosen.setter
    def chosen(self, chosen: bool) -> None:
        self._chosen = chosen
        self._label_answer()

    def grow(self) -> int:
        """Typeset what is new in the answer; return the index of the first line that changed."""
        answer = self.turn.answer
        # What is above the answer may change, too: whether turns were left out is known a moment later.
        if len(answer) < self._taken or self.turn.dropped_turns != self._dropped:
            self._begin()
            return self._grow_from(answer, 0)
        return self._grow_from(answer, self._sealed)

    def _begin(self) -> None:
        turn = self.turn
        self.lines = []
        self._dropped = turn.dropped_turns
        if turn.dropped_turns:
            self.lines += self._note(t("consult.dropped", count=turn.dropped_turns), "warning")
            self.lines.append(BLANK)
        question_at = len(self.lines)
        self.lines += self._indent(wrap([Span(clean(turn.question), "strong")], self._inner))
        self._label(question_at, t("consult.question"), "dim")
        self.lines.append(BLANK)
        if turn.red_flags:
            advice = "!! " + safety.advice(turn.red_flags, language())
            self.lines += [*self._indent(wrap([Span(advice, "danger")], self._inner)), BLANK]
        self._answer_at = self._sealed = len(self.lines)
        self._taken = 0
        self._chosen = False
        self._blocks = BlockStream()
        self._plain: Wrapper | None = None
        self._plain_taken = 0

    def _grow_from(self, answer: str, first: int) -> int:
        new = answer[self._taken :]
        self._taken = len(answer)
        del self.lines[self._sealed :]
        for block in self._blocks.append(clean(new)) if new else ():
            self.lines += self._indent(render_block(block, self._inner))
            self._plain = None
        self._sealed = len(self.lines)
        if self.turn.state is State.STREAMING:
            self.lines += self._indent(self._tail())
        else:
            self.lines += self._indent(render_block(self._blocks.tail, self._inner))
            while len(self.lines) > self._answer_at and not self.lines[-1]:
                self.lines.pop()
            self.lines += self._ending()
        if len(self.lines) == self._answer_at:
            self.lines.append(BLANK)
        self._label_answer()
        return first

    def _tail(self) -> list[Line]:
        tail = self._blocks.tail
        if len(tail) <= LIVE_MARKDOWN:
            return render_block(tail, self._inner)
        if self._plain is None:
            self._plain, self._plain_taken = Wrapper(self._inner), 0
        self._plain.append(tail[self._plain_taken :])
        self._plain_taken = len(tail)
        return self._plain.lines

    def _ending(self) -> list[Line]:
        """Below an answer: how it ended, that a model wrote it, which one, and how fast."""
        turn = self.turn
        lines: list[Line] = []
        has_answer = len(self.lines) > self._answer_at
        if has_answer:
            lines.append(BLANK)
        for note in outcome(turn, answered=has_answer):
            lines += self._note(note.text, note.style)
        lines += self._indent(wrap(self._origin(), self._inner))
        return lines

    def _origin(self) -> list[Span]:
        turn = self.turn
        said = origin(turn)
        parts = [one_line(turn.model + (f" + {turn.adapter}" if turn.adapter else ""), 40)]
        if turn.profile:
            parts.append(t(f"profile.{turn.profile}"))
        if speed := turn.timings.get("decode_tok_s"):
            parts.append(f"{speed:.0f} tok/s")
        details = ""
        for part in parts:
            # One line: what does not fit is in the top line or the reasoning's title.
            if part and cell_len(said + details + part) + 3 <= self._inner:
                details += f"   {part}"
        return [Span(said, "warning" if turn.demonstration else "dim"), Span(details, "dim")]

    def _note(self, text: str, style: str) -> list[Line]:
        return self._indent(wrap([Span(text, style)], self._inner))

    @staticmethod
    def _indent(lines: list[Line]) -> list[Line]:
        margin = Span(" " * GUTTER, "")
        return [(margin, *line) if line else BLANK for line in lines]

    def _label_answer(self) -> None:
        mark = " >" if self._chosen else ""
        self._label(self._answer_at, t("consult.answer") + mark, "label")

    def _label(self, index: int, text: str, style: str) -> None:
        label = Span(text + " " * (GUTTER - cell_len(text)), style)
        self.lines[index] = (label, *self.lines[index][1:])
