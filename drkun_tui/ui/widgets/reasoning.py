"""The model's reasoning, in a pane of its own."""

from __future__ import annotations

import time

from rich.text import Text
from textual.app import ComposeResult, RenderResult
from textual.containers import Vertical
from textual.reactive import reactive, var
from textual.widget import Widget

from drkun_tui.consult.conversation import State, Turn
from drkun_tui.i18n import t
from drkun_tui.ui.typeset.sanitise import clean
from drkun_tui.ui.typeset.wrap import Span, Wrapper
from drkun_tui.ui.widgets.line_view import LineView


class ReasoningTitle(Widget):
    """One line: is it thinking, for how long, how many tokens."""

    text: reactive[str] = reactive("")
    figures: reactive[str] = reactive("")

    def render(self) -> RenderResult:
        """The line."""
        line = Text(self.text, style="bold", no_wrap=True, overflow="ellipsis")
        line.append("  " + self.figures, style="not bold")
        return line


class ReasoningPane(Vertical):
    """Shows one turn's reasoning; live while it is the one that streams.

    It can be ``-collapsed`` to its title, or ``-hidden``; the screen enlarges it.
    """

    mode: var[str] = var("shown")

    def compose(self) -> ComposeResult:
        """Title and text."""
        yield ReasoningTitle()
        yield ReasoningText(id="reasoning-text")

    def watch_mode(self, mode: str) -> None:
        """``shown``, ``collapsed`` or ``hidden``."""
        self.set_class(mode == "collapsed", "-collapsed")
        self.set_class(mode == "hidden", "-hidden")

    def show(self, turn: Turn | None) -> None:
        """Show another turn's reasoning."""
        self._turn = turn
        self._began: float | None = None
        self.query_one(ReasoningText).show(turn)
        self.refresh_title()

    def grow(self, turn: Turn) -> None:
        """More has come of the turn that is shown."""
        if turn is self._turn:
            if self._began is None and turn.state is State.STREAMING:
                self._began = time.monotonic()
            self.query_one(ReasoningText).grow()
            self.refresh_title()

    def refresh_title(self) -> None:
        """Bring the figures up to date."""
        title, turn = self.query_one(ReasoningTitle), self._turn
        thinking = turn is not None and turn.state is State.STREAMING and not turn.answer
        title.text = t("consult.thinking" if thinking else "consult.reasoning")
        title.set_class(thinking, "-live")
        title.figures = self._figures(turn, thinking)

    def _figures(self, turn: Turn | None, thinking: bool) -> str:
        if turn is None:
            return ""
        seconds = turn.timings.get("thinking_s")
        if seconds is None and self._began is not None:
            if thinking:
                self._elapsed = time.monotonic() - self._began
            seconds = self._elapsed
        tokens = turn.usage.get("thinking_tokens", 0)
        parts = [f"{seconds:.1f} s"] if seconds and tokens else []
        return "  ".join([*parts, f"{tokens} tok"]) if tokens else ""

    _turn: Turn | None = None
    _elapsed: float = 0.0


class ReasoningText(LineView):
    """The reasoning as plain text: it is a draft, not a document."""

    _turn: Turn | None = None

    def show(self, turn: Turn | None) -> None:
        """Start over with `turn`."""
        self._turn = turn
        self._taken = 0
        self._wrapper = Wrapper(max(1, self.size.width))
        self.lines = []
        self.grow(follow=True)

    def grow(self, *, follow: bool | None = None) -> None:
        """Show what has been added to the turn's reasoning."""
        turn = self._turn
        if turn is None or not turn.reasoning:
            empty = t("consult.no_turn" if turn is None else "consult.no_reasoning")
            waiting = turn is not None and turn.state is State.STREAMING
            wrapper = Wrapper(max(1, self.size.width))
            wrapper.append("" if waiting else empty)
            self.lines = [tuple(Span(span.text, "dim") for span in line) for line in wrapper.lines]
            self.lines_changed(0, follow=follow)
            return
        first = self._wrapper.append(clean(turn.reasoning[self._taken :])) if self._taken else 0
        if not self._taken:
            self._wrapper.append(clean(turn.reasoning))
        self._taken = len(turn.reasoning)
        self.lines = self._wrapper.lines
        self.lines_changed(first, follow=follow)

    def on_resize(self) -> None:
        """Break the lines anew."""
        self.show(self._turn)
