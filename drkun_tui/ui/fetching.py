"""Downloads, which go on behind every screen, and the model that someone without one is offered."""

from __future__ import annotations

import asyncio
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textual import work

from drkun_tui import i18n
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.telling import Telling
from drkun_tui.ui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from drkun_tui.library.hub.downloads import Download, Downloads
    from drkun_tui.library.hub.protocol import HubName, Request
    from drkun_tui.ui.guide import Proposal

WATCH_S = 0.5
"""How often downloads are looked at while one runs."""


class Fetching(Telling):
    """The part of the application that brings models here."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._proposal: Proposal | None = None
        self._needs_guide = True
        self._guide_turn, self._guide_waits = asyncio.Lock(), False
        self.downloads_now: list[Download] = []
        """As they stood when they were last looked at."""
        self._downloads_known = False

    # Downloads

    @cached_property
    def downloads(self) -> Downloads:
        """All downloads of this data folder; they go on when the program ends."""
        # Imported late: the first frame does not wait for it.
        from drkun_tui.library.hub.downloads import Downloads

        return Downloads()

    @property
    def usual_hub(self) -> HubName:
        """The hub that is asked first. Where Chinese is read, Hugging Face is often hard to reach."""
        if self.settings.hub != "auto":
            return self.settings.hub
        return "modelscope" if i18n.language() == "zh" and not os.environ.get("HF_ENDPOINT") else "hf"

    async def fetch(self, request: Request) -> None:
        """Begin a download, or go on with it.

        Raises:
            DrkunError: it cannot be begun.
        """
        await self.downloads.start(request)
        self.watch_downloads()

    @work(group="downloads", exclusive=True)
    async def watch_downloads(self) -> None:
        """Show how far the downloads are, as long as one runs."""
        while True:
            before = {download.id: download.phase for download in self.downloads_now}
            self.downloads_now = await self.downloads.all()
            changed = [d for d in self.downloads_now if before.get(d.id) != d.phase]
            if changed and self._downloads_known:
                self.look_for_guide()
                for download in changed:
                    self._download_changed(download)
            # What has ended before the program began is no news.
            self._downloads_known = True
            for screen in self.screen_stack:
                if isinstance(screen, ConsultScreen) and screen.is_mounted:
                    screen.refresh_status()
                elif (show := getattr(screen, "show_downloads", None)) and screen.is_mounted:
                    show(self.downloads_now)
            if not any(download.running for download in self.downloads_now):
                return
            await asyncio.sleep(WATCH_S)

    def _download_changed(self, download: Download) -> None:
        if download.phase in ("downloading", "paused", "failed", "done"):
            # What lies on the disk is something else now.
            for screen in self.screen_stack:
                if (scan := getattr(screen, "action_scan", None)) and screen.is_mounted:
                    scan()
        if download.phase == "done":
            self._say_anywhere(t("downloads.arrived", repo=download.request.repo))
        elif download.error is not None:
            self._say_anywhere(f"{download.error.message}  {download.error.hint}")

    @property
    def downloads_running(self) -> list[Download]:
        """Those that are on their way."""
        return [download for download in self.downloads_now if download.running]

    # The guide of the first run

    @work(group="guide")
    async def look_for_guide(self) -> None:
        """With no model but the bundled one: propose one that suits this machine."""
        # Whoever has brought models knows how.
        if not self._needs_guide or self._guide_waits:
            return
        from drkun_tui.ui.guide import proposal

        self._guide_waits = True
        try:
            await self._guide_turn.acquire()
        finally:
            self._guide_waits = False
        try:
            self._proposal = await asyncio.to_thread(
                proposal, self.settings, self.downloads_now, self._proposal
            )
            self._needs_guide = self._proposal is not None
        finally:
            self._guide_turn.release()
        if (screen := self._consult_screen()) is not None:
            for transcript in screen.query(Transcript):
                transcript.propose(self._proposal.text if self._proposal else "")

    @work(group="begin", exclusive=True)
    async def action_guide(self) -> None:
        """Fetch the proposed model, while one goes on asking; once it is here, consult with it."""
        if (proposal := self._proposal) is None:
            self._say_anywhere(t("guide.nothing"))
            return
        try:
            if proposal.arrived is not None:
                self.change_settings(model=proposal.arrived, adapter=None)
                self.load_model()
            else:
                await self.fetch(proposal.request(self.usual_hub))
                self._say_anywhere(t("guide.begun", repo=proposal.model.repo))
        except DrkunError as error:
            self._fail(error)

    def find_model(self, query: str) -> None:
        """Look for a model on a hub; "" shows what suits this machine."""
        from drkun_tui.ui.screens.fetch import FetchScreen

        self.push_screen(FetchScreen(query))
