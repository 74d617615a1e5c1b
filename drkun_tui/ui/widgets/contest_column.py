"""One contestant of a comparison: its name, its figures, its reasoning and its answer below each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult, RenderResult
from textual.containers import Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from drkun_tui.comparison.differences import tokens
from drkun_tui.consult.answering import origin
from drkun_tui.consult.conversation import State, Turn
from drkun_tui.ui.comparison_text import figures
from drkun_tui.ui.table import GAP, middle_cut
from drkun_tui.ui.typeset.blocks import blocks
from drkun_tui.ui.typeset.markdown import render_block
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, Wrapper, wrap
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.transcript import outcome

DIFFERS = "differs"


class ContestColumn(Vertical):
    """See the module."""

    def __init__(self, index: int) -> None:
        super().__init__(classes="contestant")
        self._index = index
        self._anonymous = False
        self.turn: Turn | None = None

    def compose(self) -> ComposeResult:
        """Name and figures, reasoning, answer."""
        yield ColumnHead()
        yield ComparedText(markdown=False, classes="thoughts")
        yield ComparedText(markdown=True, classes="answer")

    @property
    def texts(self) -> tuple[ComparedText, ComparedText]:
        """Reasoning and answer."""
        thoughts, answer = self.query(ComparedText)
        return thoughts, answer

    def show(self, turn: Turn, name: str, *, anonymous: bool) -> None:
        """Show an answer from its beginning.

        Args:
            anonymous: tell nothing by which the contestant could be known.
        """
        self.turn = turn
        head = self.query_one(ColumnHead)
        head.number, head.progress = self._index + 1, ""
        for text in self.texts:
            text.restart()
        self.call(name, anonymous=anonymous)

    def call(self, name: str, *, anonymous: bool) -> None:
        """Show another name, or none, and the figures that go with it."""
        self._anonymous = anonymous
        self.query_one(ColumnHead).contestant = "" if anonymous else name
        self.grow()

    def grow(self) -> None:
        """More has come, or the answer has ended."""
        if (turn := self.turn) is None:
            return
        head = self.query_one(ColumnHead)
        head.figures = tuple(figures(turn, anonymous=self._anonymous))
        thoughts, answer = self.texts
        ended = turn.state is not State.STREAMING
        thoughts.grow(turn.reasoning, ended=ended)
        answer.grow(turn.answer, ended=ended, below=self._ending(turn) if ended else [])

    def tell(self, loading: str) -> None:
        """How far the model's loading is, "" when it is done."""
        self.query_one(ColumnHead).progress = loading

    def _ending(self, turn: Turn) -> list[Span]:
        """How it ended, and unless that would give it away, of what kind the model is that wrote it."""
        said = outcome(turn, answered=bool(turn.answer.strip()))
        if not self._anonymous:
            said.append(Span(origin(turn), "warning" if turn.demonstration else "dim"))
        return said


class ColumnHead(Widget):
    """The contestant's number and name, below them how much it wrote and how fast."""

    number: reactive[int] = reactive(1)
    contestant: reactive[str] = reactive("")
    progress: reactive[str] = reactive("")
    figures: reactive[tuple[str, ...]] = reactive(())

    def render(self) -> RenderResult:
        """The name, and as many lines of figures as there is room for."""
        width = max(1, self.size.width)
        head = Text(no_wrap=True, overflow="crop")
        head.append(f" {self.number} ", "reverse bold")
        head.append(" " + middle_cut(one_line(self.contestant, 200), width - 5), "bold")
        lines = [self.progress]
        for part in () if self.progress else self.figures:
            longer = f"{lines[-1]}{GAP}{part}" if lines[-1] else part
            if cell_len(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
        return head.append("\n" + "\n".join(lines))


class ComparedText(LineView):
    """A text that grows as plain text, is typeset when it has ended, and in which words can be marked.

    Args:
        markdown: typeset it as Markdown in the end.
    """

    class Typeset(Message):
        """The lines are others, so that nothing is marked in them."""

    def __init__(self, *, markdown: bool, classes: str) -> None:
        super().__init__()
        self.set_classes(classes)
        self._markdown = markdown
        self.restart()

    def restart(self) -> None:
        """Begin with nothing."""
        self._text, self._below, self._ended = "", list[Span](), False
        self._body: list[Line] = []
        self._wrapper = Wrapper(self._width)
        self.lines = []
        self.lines_changed(0, follow=True)

    def grow(self, text: str, *, ended: bool, below: Sequence[Span] = ()) -> None:
        """Show a text that begins as the last one did.

        Args:
            text: all of it.
            ended: nothing more will come.
            below: put under it in the end.
        """
        if ended and self._ended and text == self._text and list(below) == self._below:
            # Another column goes on.
            return
        new = text[len(self._text) :]
        if len(text) < len(self._text):
            self._wrapper, new = Wrapper(self._width), text
        self._text, self._below, self._ended = text, list(below), ended
        if ended:
            self._typeset()
            return
        first = self._wrapper.append(clean(new))
        self.lines = self._wrapper.lines if text else []
        self.lines_changed(first)

    @property
    def words(self) -> list[str]:
        """The words of the text as it is typeset, Chinese characters and marks one by one."""
        return [span.text[a:b] for line in self._body for span in line for a, b in tokens(span.text)]

    def mark(self, marks: Sequence[bool]) -> None:
        """Mark the words for which `marks`, as many as `words`, is true."""
        coming = iter(marks)
        self.lines = [
            *(tuple(piece for span in line for piece in _pieces(span, coming)) for line in self._body),
            *self.lines[len(self._body) :],
        ]
        self.lines_changed(0, follow=False)

    def on_resize(self) -> None:
        """Break the lines anew where their width is another."""
        if self._wrapper.width == self._width:
            return
        self._wrapper = Wrapper(self._width)
        self._wrapper.append(clean(self._text))
        if self._ended:
            self._typeset()
        elif self._text:
            self.lines = self._wrapper.lines
            self.lines_changed(0)

    @property
    def _width(self) -> int:
        # One cell less: there may be a scrollbar.
        return max(8, self.size.width - 1)

    def _typeset(self) -> None:
        text, width = clean(self._text), self._width
        if self._markdown:
            self._body = [line for block in blocks(text) for line in render_block(block, width)]
        else:
            self._body = wrap([Span(text.strip())], width) if text.strip() else []
        while self._body and not self._body[-1]:
            self._body.pop()
        self.lines = [*self._body, *([()] if self._body and self._below else [])]
        for span in self._below:
            self.lines += wrap([span], width)
        self.lines_changed(0, follow=False)
        self.post_message(self.Typeset())


def _pieces(span: Span, marks: Iterator[bool]) -> list[Span]:
    """A span cut where marked words begin and end."""
    out: list[Span] = []
    at, text = 0, span.text
    for start, end in tokens(text):
        style = f"{span.style} {DIFFERS}".strip() if next(marks) else span.style
        for piece in (Span(text[at:start], span.style), Span(text[start:end], style)):
            if out and out[-1].style == piece.style:
                out[-1] = Span(out[-1].text + piece.text, piece.style)
            elif piece.text:
                out.append(piece)
        at = end
    return [*out, Span(text[at:], span.style)] if text[at:] else out
