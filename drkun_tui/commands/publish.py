"""``drkun publish``: a model to Hugging Face or ModelScope. The upload is a job of its own; this command
follows it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from drkun_tui import paths, settings
from drkun_tui.commands.following import StatusLine, on_interrupt
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.library import inventory
from drkun_tui.library.plan import folders
from drkun_tui.publishing.faults import PublishingError, error_of
from drkun_tui.publishing.licences import with_licences
from drkun_tui.publishing.release import Draft, draft
from drkun_tui.publishing.upload_protocol import Event, Failed, Finished, Progress, Request, Stopped, encode
from drkun_tui.publishing.uploads import Uploads
from drkun_tui.ui.publishing_text import progress_text
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import clean


def run(arguments: argparse.Namespace) -> int:
    """Publish; the exit code says whether it is there."""
    chosen = settings.load(paths.settings_file())
    set_language(chosen.language)
    models = inventory.scan(folders(chosen))
    model = inventory.find(arguments.model, folders(chosen))
    try:
        found = draft(model, models)
    except PublishingError as error:
        raise error_of(error.kind, error.values) from error
    card = _reviewed(found, arguments)
    if card is None:
        _tell(t("publishing.declined"))
        return EXIT_DONE
    request = Request(
        hub=arguments.hub,
        repo=arguments.repo,
        model=model.name,
        files={name: str(path) for name, path in found.files.items()},
        private=not arguments.public,
        update=arguments.update,
        licences=found.licences,
    )
    try:
        return asyncio.run(_publish(request, card, as_json=arguments.json))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _reviewed(found: Draft, arguments: argparse.Namespace) -> str | None:
    """The card as somebody has seen it; None when it was declined.

    Raises:
        DrkunError: ``no_card``: nobody is there to look at it, or its file cannot be read.
    """
    if arguments.card:
        try:
            return Path(arguments.card).expanduser().read_text("utf8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise error_of("no_card", {"file": arguments.card, "reason": reason}) from error
    card = with_licences(found.card, model=arguments.license, data=arguments.data_license)
    if arguments.yes:
        return card
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise DrkunError(
            "no_review", t("publishing.no_review"), t("publishing.no_review_hint"), EXIT_BAD_INPUT
        )
    _tell(card)
    whose = t("publishing.public" if arguments.public else "publishing.private")
    print(
        t("publishing.ask", files=len(found.files), size=size(found.size), repo=arguments.repo, whose=whose),
        end="", file=sys.stderr, flush=True,
    )  # fmt: skip
    return card if sys.stdin.readline().strip().lower() in ("y", "yes", "是") else None


async def _publish(request: Request, card: str, *, as_json: bool) -> int:
    stopping = on_interrupt()
    uploads = Uploads()
    before = await uploads.start(request, card)
    line = StatusLine(quiet=as_json)
    ending = asyncio.ensure_future(_stop(stopping, uploads, before.id))
    try:
        async for event, _ in uploads.follow(before.id, before.offset):
            if as_json:
                sys.stdout.buffer.write(encode(event) + b"\n")
                sys.stdout.buffer.flush()
            else:
                _show(event, line)
            if isinstance(event, Failed):
                raise error_of(event.kind, event.values)
            if isinstance(event, Stopped):
                told = t("publishing.upload_stopped")
                raise DrkunError("stopped", told, t("publishing.upload_stopped_hint"), EXIT_INTERRUPTED)
    finally:
        ending.cancel()
        line.clear()
    return EXIT_DONE


async def _stop(stopping: asyncio.Event, uploads: Uploads, id: str) -> None:
    await stopping.wait()
    await uploads.stop(id)


def _show(event: Event, line: StatusLine) -> None:
    if isinstance(event, Progress):
        line.show(progress_text(event))
    elif isinstance(event, Finished):
        line.clear()
        whose = t("publishing.private" if event.private else "publishing.public")
        print(clean(t("publishing.published", page=event.page, whose=whose)))


def _tell(text: str) -> None:
    print(clean(text), file=sys.stderr)
