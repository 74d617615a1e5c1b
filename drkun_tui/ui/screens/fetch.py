"""Find a model on a hub, read its card, choose what of it to fetch."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library import inventory
from drkun_tui.library.adapters import is_here
from drkun_tui.library.hub import downloads
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.offers import Offer, offers
from drkun_tui.library.hub.protocol import Filters, Found, HubName, Listing, Request
from drkun_tui.library.hub.recommended import Recommendation, base_of, judge, recommended
from drkun_tui.library.plan import folders
from drkun_tui.ui import room
from drkun_tui.ui.hub_rows import fit_text, found_cells, offer_cells, recommended_cells, size_of
from drkun_tui.ui.screens.choose import Choice, Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.text_view import TextView

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp

HUBS: tuple[HubName, ...] = ("hf", "modelscope")
FILTERS: dict[str, tuple[str, ...]] = {
    "format": ("", "gguf", "safetensors"),
    "language": ("", "zh", "en"),
    "size": ("", "0-1000", "1000-4500", "4500-10000", "10000-0"),
    "task": ("", "text-generation"),
}
"""What each may be; sizes are millions of parameters, from and to, 0 leaves an end open."""

CARD_AFTER_S = 0.4
"""A card is asked for when the highlight has stayed for so long."""

T = TypeVar("T")


class FetchScreen(Screen[None]):
    """A search over its results, the highlighted one's card beside them.

    Args:
        query: searched for at once; "" shows what suits this machine.
    """

    app: DrkunApp
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        # First, or the list takes the key and the bottom line does not show it.
        Binding("enter", "fetch", "keys.fetch", id="fetch.fetch", priority=True),
        Binding("tab", "app.focus_next", "keys.switch_part", id="fetch.switch"),
        Binding("h", "turn('hub')", "keys.hub", id="fetch.hub"),
        Binding("g", "turn('format')", "keys.format", id="fetch.format"),
        Binding("l", "turn('language')", "keys.model_language", id="fetch.language"),
        Binding("s", "turn('size')", "keys.model_size", id="fetch.size"),
        Binding("t", "turn('task')", "keys.task", id="fetch.task", show=False),
        Binding("escape", "app.go('models')", "keys.back_to_models", id="fetch.back"),
    ]

    def __init__(self, query: str = "") -> None:
        super().__init__()
        self._query = query
        self._machine = room.machine(self.app.session)
        self._hub: HubName = self.app.usual_hub
        self._filters = {"format": "", "language": "", "size": "", "task": ""}
        self._shown: list[Found | Recommendation] = []

    def compose(self) -> ComposeResult:
        """Search, filters, results; card."""
        yield Header()
        with Horizontal(id="body"):
            with Vertical(id="tables"):
                yield Input(self._query, placeholder=t("fetch_screen.placeholder"), compact=True, id="query")
                yield Static("", id="filters", markup=False)
                yield Static("", id="columns", markup=False)
                yield OptionList(compact=True, id="found")
            with Vertical(id="details"):
                yield Static("", id="card-title", markup=False)
                yield TextView(id="card")
        yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Search, or recommend."""
        self.query_one(Header).here = "models"
        self._look()
        self.query_one("#found" if self._query else "#query").focus()

    # What is found

    @work(group="look", exclusive=True)
    async def _look(self) -> None:
        """Show what the query finds under the filters; without a query, what suits this machine."""
        self._show_filters()
        if not self._query:
            self._show(recommended(self._machine))
            return
        self.query_one(Notice).say(t("fetch_screen.searching"))
        least, _, most = (self._filters["size"] or "0-0").partition("-")
        filters = Filters(
            task=self._filters["task"],
            language=self._filters["language"],
            format=self._filters["format"],  # type: ignore[arg-type]
            least=int(least),
            most=int(most),
        )
        try:
            found = await downloads.search(self._hub, self._query, filters)
        except DrkunError as error:
            for notice in self.query(Notice):
                notice.fail(error)
            return
        if self.query("#found"):  # not left meanwhile
            self.query_one(Notice).clear()
            self._show(found)

    def _show_filters(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        values = {"hub": t(f"downloads.{self._hub}")}
        for name, value in self._filters.items():
            values[name] = t(f"fetch_screen.{name}_{value.replace('-', '_') or 'any'}")
        for name, value in values.items():
            line.append(f"{t(f'fetch_screen.{name}')} ", "dim").append(f"{value}   ")
        self.query_one("#filters", Static).update(line)

    def _show(self, found: Sequence[Found | Recommendation]) -> None:
        self._shown = list(found)
        rows = [
            recommended_cells(each) if isinstance(each, Recommendation) else found_cells(each)
            for each in self._shown
        ]
        titles = tuple(t(f"fetch_screen.column_{name}") for name in ("repo", "size", "note"))
        widths = fit_columns([titles, *rows], (48, 10, 60))
        self.query_one("#columns", Static).update(
            Text("  " + _line(titles, widths), no_wrap=True) if rows else t("fetch_screen.nothing")
        )
        listing = self.query_one("#found", OptionList)
        listing.clear_options()
        listing.add_options(
            Option(Text("  " + _line(row, widths), no_wrap=True, overflow="ellipsis"), id=str(index))
            for index, row in enumerate(rows)
        )
        listing.highlighted = 0 if rows else None
        if not rows:
            self.query_one("#card-title", Static).update("")
            self.query_one(TextView).show("", markdown=False)

    def action_turn(self, name: str) -> None:
        """Take the next value of a filter, or the next hub."""
        if name == "hub":
            self._hub = _next(HUBS, self._hub)
        else:
            self._filters[name] = _next(FILTERS[name], self._filters[name])
        self._look()

    @on(Input.Submitted, "#query")
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._query = event.value.strip()
        self._look()
        self.query_one("#found").focus()

    @on(OptionList.OptionHighlighted, "#found")
    @work(group="card", exclusive=True)
    async def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show the card of what has been highlighted for a moment."""
        found = self._shown[int(event.option_id or 0)]
        self.query_one("#card-title", Static).update(_facts(found, self._machine))
        self.query_one(TextView).show("", markdown=False)
        await asyncio.sleep(CARD_AFTER_S)
        try:
            text = await downloads.card(self._hub_of(found), found.repo)
        except DrkunError as error:
            text = f"{error.message}  {error.hint}"
        for view in self.query(TextView):
            view.show(text or t("fetch_screen.no_card"), markdown=True)

    def _hub_of(self, found: Found | Recommendation) -> HubName:
        return found.hub if isinstance(found, Found) else found.hub(self._hub)

    # What is fetched

    def action_fetch(self) -> None:
        """Choose what to fetch of the highlighted one."""
        self.query_one("#found", OptionList).action_select()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """In the search field the keys are letters, and Enter searches, in order with what was typed."""
        return action not in ("fetch", "turn") or not isinstance(self.focused, Input)

    @on(OptionList.OptionSelected, "#found")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._choose(self._shown[int(event.option_id or 0)])

    @work(group="choose", exclusive=True)
    async def _choose(self, found: Found | Recommendation) -> None:
        """Ask what of the repository is wanted, and begin to fetch it."""
        hub = self._hub_of(found)
        notice = self.query_one(Notice)
        notice.say(t("fetch_screen.listing", repo=found.repo))
        try:
            listing = await downloads.files(hub, found.repo)
            notice.clear()
            proposed = found.quant if isinstance(found, Recommendation) else ""
            wanted = await self._which(found.repo, listing, proposed)
            if wanted is None:
                return
            store = str(paths.model_store())
            include = list(wanted.include)
            requests = [
                Request(hub=hub, repo=found.repo, store=store, quant=wanted.quant, include=include),
                *await self._base_too(found),
            ]
            for request in requests:
                await self.app.fetch(request)
            self.app.action_go("models")
        except DrkunError as error:
            notice.fail(error)

    async def _which(self, repo: str, listing: Listing, proposed: str) -> Offer | None:
        """What of a repository to fetch; None when the question was left.

        Args:
            proposed: a quantisation; "" for the best that fits.

        Raises:
            DrkunError: there is nothing to fetch.
        """
        try:
            offered = offers(listing, self._machine, proposed)
        except HubError as error:
            raise downloads.error_of(error.kind, error.values) from error
        free = await asyncio.to_thread(_free_bytes, paths.model_store())
        hint = t("fetch_screen.disk", free=size(free))
        choices = [
            Choice(str(i), offer_cells(offer, whole=len(offered) == 1)) for i, offer in enumerate(offered)
        ]
        default = next(i for i, offer in enumerate(offered) if offer.default)
        title = one_line(t("fetch_screen.which", repo=repo), 90)
        dialog = Choose(title, choices, str(default), right=frozenset({1}), hint=hint)
        chosen = await self.app.push_screen_wait(dialog)
        return None if chosen is None else offered[int(chosen)]

    async def _base_too(self, found: Found | Recommendation) -> list[Request]:
        """The download of a recommended adapter's base, which neither is here nor coming, if it is wanted."""
        base = base_of(found) if isinstance(found, Recommendation) else None
        if base is None or any(
            download.request.repo == base.repo and download.running
            for download in await self.app.downloads.all()
        ):
            return []
        searched = folders(self.app.settings)
        if await asyncio.to_thread(lambda: is_here(base.repo, inventory.scan(searched))):
            return []
        told = t("fetch_screen.base", adapter=found.repo, base=base.repo, size=size_of(base))
        if not await self.app.push_screen_wait(Confirm(told, t("fetch_screen.base_keys"))):
            return []
        return [base.request(paths.model_store(), self._hub)]


def _free_bytes(folder: Path) -> int:
    """Of the disk that a folder is on, or will be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def _next(values: tuple[T, ...], value: T) -> T:
    return values[(values.index(value) + 1) % len(values)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, (False, True, False), strict=True)
    return GAP.join(cell(text, width, right=right) for text, width, right in cells)


def _facts(found: Found | Recommendation, machine: Hardware) -> Text:
    text = Text(one_line(found.repo, 60) + "\n", "bold")
    if isinstance(found, Recommendation):
        said = [found.licence, fit_text(judge(found, machine))]
        if found.needs:
            said.append(t("fetch_screen.needs", base=found.needs))
        return text.append(f"{found.text}\n{'  '.join(filter(None, said))}", "not bold dim")
    updated = found.updated[:10]
    tags = ", ".join(clean(tag) for tag in found.tags[:12])
    return text.append(one_line(f"{updated}  {tags}", 200), "not bold dim")
