"""The conversations kept, newest first, and the search through them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from drkun_tui.consult.conversation import Summary
from drkun_tui.i18n import t
from drkun_tui.ui.typeset.sanitise import one_line

if TYPE_CHECKING:
    from drkun_tui.consult.store import Hit


class ConversationList(Vertical):
    """A search field over a list grouped by day."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("delete,ctrl+d", "delete", "keys.delete", id="list.delete", show=False),
        Binding("r", "rename", "keys.rename", id="list.rename", show=False),
        Binding("escape", "leave", "keys.leave", id="list.leave", show=False),
    ]

    @dataclass
    class Opened(Message):
        """A conversation was chosen; `turn_id` is the one that a search found, or None."""

        conversation_id: int
        turn_id: int | None = None

    @dataclass
    class Searched(Message):
        """Search for `query`; "" shows all again."""

        query: str

    @dataclass
    class DeleteAsked(Message):
        """The highlighted conversation should be deleted."""

        conversation_id: int

    @dataclass
    class RenameAsked(Message):
        """The highlighted conversation should be renamed."""

        conversation_id: int

    class Left(Message):
        """Back to the prompt."""

    def compose(self) -> ComposeResult:
        """Search field and list."""
        yield Input(placeholder=t("consult.search"), compact=True, id="search")
        yield OptionList(compact=True, id="conversations")

    def show(self, summaries: list[Summary], current: int) -> None:
        """List `summaries`, newest first, and highlight the conversation `current`."""
        options: list[Option | None] = []
        day, highlighted = "", None
        for summary in summaries:
            if (name := _day(summary.updated_at)) != day:
                if day:
                    options.append(Option("", disabled=True))
                options.append(Option(Text(name), disabled=True))
                day = name
            if summary.id == current:
                highlighted = len(options)
            title = one_line(summary.title or t("consult.untitled"), 60)
            options.append(Option(Text(title, no_wrap=True, overflow="ellipsis"), id=f"c{summary.id}"))
        if not options:
            options.append(Option(Text(t("consult.no_conversations")), disabled=True))
        self._fill(options, highlighted)

    def show_hits(self, hits: list[Hit]) -> None:
        """List what a search found."""
        options: list[Option | None] = []
        for hit in hits:
            entry = Text(one_line(hit.title, 60), no_wrap=True, overflow="ellipsis")
            entry.append("\n" + one_line(hit.snippet, 60), "dim")
            options.append(Option(entry, id=f"c{hit.conversation_id}t{hit.turn_id}"))
        if not options:
            options.append(Option(Text(t("consult.nothing_found")), disabled=True))
        self._fill(options, None)

    def _fill(self, options: list[Option | None], highlighted: int | None) -> None:
        listing = self.query_one(OptionList)
        listing.clear_options()
        listing.add_options(options)
        listing.highlighted = highlighted

    def focus_search(self) -> None:
        """Put the cursor into the search field."""
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _search(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Searched(event.value.strip()))

    @on(Input.Submitted)
    def _into_list(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(OptionList).focus()

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        conversation, _, turn = (event.option_id or "")[1:].partition("t")
        self.post_message(self.Opened(int(conversation), int(turn) if turn else None))

    def action_rename(self) -> None:
        """Ask for another name of the highlighted conversation."""
        if (conversation_id := self._highlighted()) is not None:
            self.post_message(self.RenameAsked(conversation_id))

    def action_delete(self) -> None:
        """Ask to delete the highlighted conversation."""
        if (conversation_id := self._highlighted()) is not None:
            self.post_message(self.DeleteAsked(conversation_id))

    def _highlighted(self) -> int | None:
        listing = self.query_one(OptionList)
        if listing.highlighted is None:
            return None
        option = listing.get_option_at_index(listing.highlighted)
        return int(option.id[1:].partition("t")[0]) if option.id else None

    def action_leave(self) -> None:
        """Empty the search, then go back to the prompt."""
        self.query_one(Input).value = ""
        self.post_message(self.Left())


def _day(moment: float) -> str:
    """Today, yesterday, this week, or the month."""
    then, now = datetime.date.fromtimestamp(moment), datetime.date.today()
    days = (now - then).days
    if days <= 0:
        return t("consult.today")
    if days == 1:
        return t("consult.yesterday")
    return t("consult.this_week") if days < 7 else then.strftime("%Y-%m")
