"""A long text in a pane, typeset as Markdown or as it stands."""

from __future__ import annotations

import asyncio
import time

from textual import events, work

from drkun_tui.ui.typeset.blocks import blocks
from drkun_tui.ui.typeset.markdown import render_block
from drkun_tui.ui.typeset.sanitise import clean
from drkun_tui.ui.typeset.wrap import Span, wrap
from drkun_tui.ui.widgets.line_view import LineView

SLICE_S = 0.02
"""Of typesetting at a time."""


class TextView(LineView):
    """Typesets a text, and anew when its width changes."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = ""
        self._markdown = False

    def show(self, text: str, *, markdown: bool) -> None:
        """Show `text` from its beginning."""
        self._text, self._markdown = clean(text), markdown
        self.scroll_home(animate=False)
        self._typeset()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """Break the lines anew."""
        self._typeset()

    @work(exclusive=True)
    async def _typeset(self) -> None:
        width = max(20, self.size.width - 1)
        self.lines = []
        if not self._markdown:
            self.lines = wrap([Span(self._text)], width) if self._text else []
        else:
            paused = time.monotonic()
            for block in blocks(self._text):
                self.lines += render_block(block, width)
                # A long text appears from its beginning, and the keys go on working meanwhile.
                if time.monotonic() - paused > SLICE_S:
                    self.lines_changed(0, follow=False)
                    await asyncio.sleep(0)
                    paused = time.monotonic()
        self.lines_changed(0, follow=False)
