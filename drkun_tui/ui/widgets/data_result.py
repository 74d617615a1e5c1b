"""What a data check has found, while the data are still being chosen."""

from __future__ import annotations

import asyncio

from textual import events, work
from textual.message import Message

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.training.checking.client import DataCheck
from drkun_tui.training.checking.protocol import Check, Checked, Failed, Measured, Reading, Tokenizing, Tokens
from drkun_tui.training.data.summary import Summary
from drkun_tui.ui import data_text
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import clean
from drkun_tui.ui.typeset.wrap import Line, Span, wrap
from drkun_tui.ui.widgets.line_view import LineView

SETTLE_S = 0.4
"""Who types a path does not want each beginning of it checked."""


class DataResult(LineView, can_focus=False):
    """Checks what it is given in a child process, and shows what comes of it.

    Attributes:
        check: the child that can be asked for rows and examples; None while there is none.
        summary: once the rows are read.
        tokens: once they are tokenized.
        can_show: are there examples to be shown?
    """

    class News(Message):
        """There is more, or less, that can be looked at."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._request: Check | None = None
        self._children: set[DataCheck] = set()
        """Those that have not ended."""
        self._nothing_checked()

    def _nothing_checked(self) -> None:
        self.check: DataCheck | None = None
        self.summary: Summary | None = None
        self.tokens: Tokens | None = None
        self.can_show = False
        self._working = ""
        self._error = ""

    def look(self, request: Check | None) -> None:
        """Check this; what was under way for something else ends."""
        if request != self._request:
            self._request = request
            self._nothing_checked()
            self._working = ""
            if request is not None:
                hub = request.data.hub
                self._working = (
                    t("training_screen.fetching", name=hub) if hub else t("training_screen.checking")
                )
            self._follow(request)
            self._paint()

    @work(group="data-check", exclusive=True)
    async def _follow(self, request: Check | None) -> None:
        if request is None:
            return
        await asyncio.sleep(SETTLE_S)
        self.check = check = DataCheck()
        self._children.add(check)
        try:
            async for event in check.run(request):
                self._take(event)
        except DrkunError as error:
            self.check, self._working, self._error = None, "", error.message
            self._paint()
        finally:
            await check.close()
            self._children.discard(check)

    async def on_unmount(self) -> None:
        """Leave no child behind."""
        await asyncio.gather(*(check.close() for check in self._children))

    def _take(self, event: Reading | Checked | Tokenizing | Measured | Failed) -> None:
        if isinstance(event, Reading):
            in_rows = self._request is not None and self._request.data.hub
            counts = (event.done, event.total)
            done, total = (f"{count:,}" if in_rows else size(count) for count in counts)
            self._working = t("data.reading", done=done, total=total)
        elif isinstance(event, Checked):
            self.summary, self._working = event.summary, ""
        elif isinstance(event, Tokenizing):
            self.can_show = True
            self._working = t("data.tokenizing", done=f"{event.done:,}", total=f"{event.total:,}")
        elif isinstance(event, Measured):
            self.tokens, self._working = event.tokens, ""
        else:
            self._working, self._error = "", f"{event.message}  {event.hint}"
        self._paint()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """Break the lines anew."""
        self._paint()

    def _paint(self) -> None:
        width = max(20, self.size.width - 1)
        lines: list[Line] = []
        if self.summary is not None:
            lines += data_text.summary_lines(self.summary, width)
        if self.tokens is not None:
            lines += data_text.token_lines(self.tokens, width)
        if self._working:
            lines += wrap([Span(self._working, "dim")], width)
        if self._error:
            lines += wrap([Span("x " + " ".join(clean(self._error).split()), "danger")], width, hanging=2)
        if lines != self.lines:
            self.lines = lines
            self.styles.height = len(lines)
            self.lines_changed(0, follow=False)
        self.post_message(self.News())
