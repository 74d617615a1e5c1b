"""Downloads, a line each: what, how much of how much, how fast, how much longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from drkun_tui.i18n import t
from drkun_tui.library.hub.downloads import Download
from drkun_tui.ui.progress import bar, bytes_text, rate_text
from drkun_tui.ui.table import GAP, cell
from drkun_tui.ui.typeset.sanitise import one_line

BAR_FROM, HUB_FROM = 80, 100
"""Cells from which on there is room for the bar, and for the hub's name."""


class DownloadList(Vertical):
    """Takes no room while there are none."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"download--full", "download--empty"}

    def compose(self) -> ComposeResult:
        """Title and lines."""
        yield Static(t("downloads.title"), id="downloads-title")
        yield OptionList(compact=True, id="downloads")

    def show(self, downloads: Sequence[Download]) -> None:
        """Show these; the highlight stays on the same one."""
        self.set_class(bool(downloads), "-some")
        self.query_one("#downloads-title", Static).update(_title(downloads))
        listing = self.query_one(OptionList)
        lines = [self._line(download) for download in downloads]
        if [option.id for option in listing.options] == [download.id for download in downloads]:
            for download, line in zip(downloads, lines, strict=True):
                listing.replace_option_prompt(download.id, line)
            return
        before = self.highlighted
        listing.clear_options()
        listing.add_options(
            Option(line, id=download.id) for download, line in zip(downloads, lines, strict=True)
        )
        at = next((i for i, download in enumerate(downloads) if download.id == before), 0)
        listing.highlighted = at if downloads else None

    @property
    def highlighted(self) -> str | None:
        """The highlighted download's id."""
        listing = self.query_one(OptionList)
        at = listing.highlighted
        return None if at is None or at >= listing.option_count else listing.get_option_at_index(at).id

    def _line(self, download: Download) -> Text:
        width = self.size.width
        name = one_line(download.request.repo + _what(download), 60)
        name_width = 36 if width >= HUB_FROM else 24
        line = Text("  " + cell(name, name_width) + GAP, no_wrap=True, overflow="ellipsis")
        if width >= HUB_FROM:
            line.append(cell(t(f"downloads.{download.request.hub}"), 12) + GAP, "dim")
        if width >= BAR_FROM:
            full, empty = (self.get_component_rich_style(f"download--{part}") for part in ("full", "empty"))
            line.append_text(bar(download.done, download.total, full, empty)).append(GAP)
        line.append((bytes_text(download.done, download.total) if download.total else " " * 14) + GAP)
        return line.append(self._state(download))

    @staticmethod
    def _state(download: Download) -> str:
        if download.error is not None:
            return f"x {one_line(download.error.message, 80)}"
        if download.waiting:
            return f"! {one_line(download.waiting, 80)}"
        if download.phase == "downloading":
            return rate_text(download.speed, download.eta_s)
        return t(f"downloads.phase_{download.phase}")


def _what(download: Download) -> str:
    """Which of a repository's models."""
    return f" {download.request.quant}" if download.request.quant else ""


def _title(downloads: Sequence[Download]) -> str:
    """With what those at work have to do in all."""
    told = [t("downloads.title")]
    if len(running := [download for download in downloads if download.running and download.total]) > 1:
        done, total = sum(one.done for one in running), sum(one.total for one in running)
        speed = sum(one.speed for one in running)
        told += [bytes_text(done, total), rate_text(speed, (total - done) / speed if speed else None)]
    return GAP.join(told)
