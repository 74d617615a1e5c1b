"""Publishing a model: where to, who may see it, and its card, which is reviewed here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.library.hub.protocol import HubName
from drkun_tui.publishing.release import Draft
from drkun_tui.publishing.upload_protocol import Request
from drkun_tui.ui.publishing_text import progress_text
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp
    from drkun_tui.publishing.uploads import Upload


class PublishScreen(ModalScreen[None]):
    """Repository and card; below them, how far the upload is.

    Args:
        draft: what would be published.
    """

    CSS_PATH = "../styles/publishing.tcss"

    app: DrkunApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "keys.upload", id="publish.start", priority=True),
        Binding("f7", "hub", "keys.publish_hub", id="publish.hub", priority=True),
        Binding("f8", "visibility", "keys.visibility", id="publish.visibility", priority=True),
        Binding("f10", "update", "keys.publish_update", id="publish.update", priority=True),
        Binding("ctrl+x", "stop", "keys.stop_upload", id="publish.stop", priority=True),
        Binding("escape", "leave", "keys.close", id="publish.leave", priority=True),
    ]

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self._draft = draft
        self._hub: HubName = "hf"
        self._private = True
        self._update = False
        self._begun = ""

    def compose(self) -> ComposeResult:
        """Where to, what, and the card."""
        with Vertical(id="dialog", classes="-wide"):
            name = one_line(self._draft.model.name, 60)
            yield Static(t("publishing.publish_title", name=name), id="dialog-title", markup=False)
            with Horizontal(id="where"):
                yield Static("", id="hub", markup=False)
                yield Input(placeholder=t("publishing.cli_repo"), compact=True, id="repo")
            yield Static("", id="facts", markup=False)
            yield TextArea(self._draft.card, soft_wrap=True, id="card")
            yield Static("", id="progress", markup=False)
            yield Notice()
        yield KeyHints()

    def on_mount(self) -> None:
        """Where to is asked first."""
        self._hub = self.app.usual_hub
        self._show_choice()
        self.query_one(Input).focus()
        self.show_publishing()

    def _show_choice(self) -> None:
        self.query_one("#hub", Static).update(t(f"downloads.{self._hub}"))
        whose = _whose(private=self._private, update=self._update)
        files, whole = len(self._draft.files) + 1, size(self._draft.size)
        self.query_one("#facts", Static).update(t("publishing.facts", whose=whose, files=files, size=whole))

    @property
    def _upload(self) -> Upload | None:
        """The newest upload of this model, if it was begun here or is at work."""
        own = (upload for upload in self.app.uploads_now if upload.request.model == self._draft.model.name)
        return next((upload for upload in own if upload.running or upload.id == self._begun), None)

    def show_publishing(self) -> None:
        """Show how far it is."""
        upload = self._upload
        self.query_one("#progress", Static).update("" if upload is None else clean(_told(upload)))
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """One at a time; what does not run cannot be stopped."""
        running = (upload := self._upload) is not None and upload.running
        return {"start": not running, "stop": running}.get(action, True)

    def action_hub(self) -> None:
        """Take the other hub."""
        self._hub = "modelscope" if self._hub == "hf" else "hf"
        self._show_choice()

    def action_visibility(self) -> None:
        """Let everybody see it, or nobody."""
        self._private = not self._private
        self._show_choice()

    def action_update(self) -> None:
        """Add to a repository that is there, or make a new one."""
        self._update = not self._update
        self._show_choice()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(TextArea).focus()

    @work(group="publish", exclusive=True)
    async def action_start(self) -> None:
        """Look through the card, ask once more, and begin."""
        notice = self.query_one(Notice)
        request = Request(
            hub=self._hub,
            repo=self.query_one(Input).value.strip(),
            model=self._draft.model.name,
            files={name: str(path) for name, path in self._draft.files.items()},
            private=self._private,
            update=self._update,
            licences=self._draft.licences,
        )
        card = self.query_one(TextArea).text
        try:
            await asyncio.to_thread(self.app.uploads.check, request, card)
            if not await self._agreed(request):
                return
            self._begun = (await self.app.uploads.start(request, card)).id
        except DrkunError as error:
            notice.fail(error)
            return
        notice.clear()
        self.app.watch_publishing()

    async def _agreed(self, request: Request) -> bool:
        whose = _whose(private=request.private, update=request.update)
        question = t(
            "publishing.upload_question",
            repo=request.repo,
            hub=t(f"downloads.{request.hub}"),
            whose=whose,
            size=size(self._draft.size),
        )
        dialog = Confirm(clean(question), t("publishing.upload_keys"))
        return await self.app.push_screen_wait(dialog)

    @work(group="stop")
    async def action_stop(self) -> None:
        """Stop it; the hub keeps what it has."""
        if (upload := self._upload) is not None:
            try:
                await self.app.uploads.stop(upload.id)
            except DrkunError as error:
                self.query_one(Notice).fail(error)
            self.app.watch_publishing()

    def action_leave(self) -> None:
        """Close; what has begun goes on."""
        self.dismiss(None)


def _whose(*, private: bool, update: bool) -> str:
    told = t("publishing.private" if private else "publishing.public")
    return told + t("publishing.adds") if update else told


def _told(upload: Upload) -> str:
    if upload.finished is not None:
        whose = t("publishing.private" if upload.finished.private else "publishing.public")
        return t("publishing.published", page=upload.finished.page, whose=whose)
    if upload.error is not None:
        return f"{upload.error.message}  {upload.error.hint}"
    return progress_text(upload.progress) if upload.progress else t(f"publishing.phase_{upload.phase}")
