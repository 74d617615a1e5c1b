"""A long list to read, a page at a time: rows that were left out, examples as they are trained on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from drkun_tui.i18n import t
from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.typeset.wrap import Line, Span
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.line_view import LineView

PAGE = 50

EntryT = TypeVar("EntryT")


class Pages(ModalScreen[None], Generic[EntryT]):
    """Title and a page of entries.

    Args:
        title: one line.
        count: of all entries.
        read: the entries from a number on, at most so many.
        typeset: an entry as lines of at most so many cells.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n", "turn(1)", "keys.next_page", id="pages.next"),
        Binding("left,p", "turn(-1)", "keys.previous_page", id="pages.previous"),
        Binding("escape,q", "dismiss", "keys.close", id="pages.close"),
    ]

    def __init__(
        self,
        title: str,
        count: int,
        read: Callable[[int, int], Awaitable[Sequence[EntryT]]],
        typeset: Callable[[EntryT, int], list[Line]],
    ) -> None:
        super().__init__()
        self._title, self._count, self._read, self._typeset_one = title, count, read, typeset
        self._page = 0
        self._entries: Sequence[EntryT] = ()

    def compose(self) -> ComposeResult:
        """Title and text."""
        with Vertical(id="dialog", classes="-wide"):
            yield Static("", markup=False, id="dialog-title")
            yield LineView(id="text")
        yield KeyHints()

    def on_mount(self) -> None:
        """Read the first page."""
        self.query_one(LineView).focus()
        self._show()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """Break the lines anew, once the text has its width."""
        self.call_after_refresh(self._typeset)

    @property
    def _last(self) -> int:
        return max(0, (self._count - 1) // PAGE)

    @work(exclusive=True)
    async def _show(self) -> None:
        self._entries = await self._read(self._page * PAGE, PAGE)
        at = t("training_screen.page", page=self._page + 1, pages=self._last + 1) if self._last else ""
        self.query_one("#dialog-title", Static).update(one_line(f"{self._title}  {at}", 100))
        self.query_one(LineView).scroll_home(animate=False)
        self._typeset()
        self.refresh_bindings()

    def _typeset(self) -> None:
        view = self.query_one(LineView)
        width = max(20, view.size.width - 1)
        view.lines = []
        for entry in self._entries:
            view.lines += [*self._typeset_one(entry, width), (Span(""),)]
        view.lines_changed(0, follow=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only the pages that there are."""
        if action == "turn":
            return 0 <= self._page + int(str(parameters[0])) <= self._last
        return True

    def action_turn(self, by: int) -> None:
        """To the next page, or the one before."""
        self._page += by
        self._show()
