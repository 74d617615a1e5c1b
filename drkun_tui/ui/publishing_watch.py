"""Exports and uploads, which go on behind every screen and after the program."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textual import work

from drkun_tui.i18n import t
from drkun_tui.ui.telling import Telling
from drkun_tui.ui.typeset.sanitise import one_line

if TYPE_CHECKING:
    from drkun_tui.publishing.exports import Export, Exports
    from drkun_tui.publishing.uploads import Upload, Uploads

WATCH_S = 0.5
"""How often they are looked at while one is at work."""


class PublishingWatch(Telling):
    """The part of the application that knows how exports and uploads stand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.exports_now: list[Export] = []
        self.uploads_now: list[Upload] = []
        """As they stood when they were last looked at, the newest first."""
        self._publishing_known = False

    @cached_property
    def exports(self) -> Exports:
        """All exports of this data folder, those of earlier programs too."""
        # Imported late: the first frame does not wait for it.
        from drkun_tui.publishing.exports import Exports

        return Exports()

    @cached_property
    def uploads(self) -> Uploads:
        """All uploads of this data folder."""
        from drkun_tui.publishing.uploads import Uploads

        return Uploads()

    @work(group="publishing", exclusive=True)
    async def watch_publishing(self) -> None:
        """Show how far exports and uploads are, as long as one is at work."""
        while True:
            before: dict[str, str] = {export.id: export.phase for export in self.exports_now}
            before |= {upload.id: upload.phase for upload in self.uploads_now}
            self.exports_now, self.uploads_now = await self.exports.all(), await self.uploads.all()
            jobs: list[Export | Upload] = [*self.exports_now, *self.uploads_now]
            if self._publishing_known:
                for job in jobs:
                    if not job.running and before.get(job.id, "starting") != job.phase:
                        self._publishing_ended(job)
            # What has ended before the program began is no news.
            self._publishing_known = True
            for screen in self.screen_stack:
                if (show := getattr(screen, "show_publishing", None)) and screen.is_mounted:
                    show()
            if not any(job.running for job in jobs):
                return
            await asyncio.sleep(WATCH_S)

    def _publishing_ended(self, job: Export | Upload) -> None:
        if job.error is not None:
            self._say_anywhere(f"{job.error.message}  {job.error.hint}")
            return
        kind = "export" if hasattr(job, "proved") else "upload"
        if job.finished is not None:
            # What lies on the disk is something else now.
            for screen in self.screen_stack:
                if (scan := getattr(screen, "action_scan", None)) and screen.is_mounted:
                    scan()
        self._say_anywhere(t(f"publishing.told_{kind}_{job.phase}", name=one_line(job.request.model, 60)))
