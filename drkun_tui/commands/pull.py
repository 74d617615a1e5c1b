"""``drkun pull``: fetch a model from a hub. The download is a job of its own; this command follows it."""

from __future__ import annotations

import argparse
import asyncio
import sys

from drkun_tui import paths, settings
from drkun_tui.commands.following import StatusLine, on_interrupt
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.library.hub import downloads
from drkun_tui.library.hub.downloads import Downloads
from drkun_tui.library.hub.protocol import (
    Done,
    Event,
    Failed,
    FileDone,
    Paused,
    Progress,
    Request,
    Retrying,
    encode,
)
from drkun_tui.ui.progress import duration
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import one_line


def run(arguments: argparse.Namespace) -> int:
    """Fetch, or only look; the exit code says whether everything is there."""
    saved = settings.load(paths.settings_file())
    set_language(saved.language)
    request = Request(
        hub=arguments.hub or settings.hub_of(saved),
        repo=arguments.repo,
        store=str(paths.model_store().absolute()),
        revision=arguments.revision,
        quant=arguments.quant,
        include=arguments.include,
    )
    if arguments.look:
        if request.quant or request.include:
            raise DrkunError("bad_usage", t("pull.looks_only"), t("pull.looks_only_hint"), EXIT_BAD_INPUT)
        # Imported late, like what a question needs: a download does not wait for it.
        from drkun_tui.commands import looking

        show = looking.show_card if arguments.look == "card" else looking.show_files
        asyncio.run(show(request, as_json=arguments.json))
        return EXIT_DONE
    asks = not (arguments.yes or arguments.json) and sys.stdin.isatty() and sys.stderr.isatty()
    try:
        return asyncio.run(_pull(request, asks=asks, as_json=arguments.json))
    except asyncio.CancelledError:
        # Ctrl+C before there was anything to pause.
        raise KeyboardInterrupt from None


async def _pull(request: Request, *, asks: bool, as_json: bool) -> int:
    stopping = on_interrupt()
    all_of_them = Downloads()
    known = await all_of_them.matching(request)
    if known is not None and known.running:
        print(t("pull.already"), file=sys.stderr)
    elif known is None and asks and not await _agreed(request):
        print(t("pull.declined"), file=sys.stderr)
        return EXIT_DONE
    download = await all_of_them.start(request)
    shown = Shown(as_json=as_json)
    pausing = asyncio.ensure_future(_pause(stopping, all_of_them, download.id))
    try:
        async for event, _ in all_of_them.follow(download.id, download.offset):
            shown.add(event)
            if isinstance(event, Failed):
                raise downloads.error_of(event.kind, event.values)
            if isinstance(event, Paused):
                told = t("pull.paused", done=size(event.done), total=size(event.total))
                raise DrkunError("paused", told, t("pull.paused_hint"), EXIT_INTERRUPTED)
    finally:
        pausing.cancel()
        shown.end()
    return EXIT_DONE


async def _agreed(request: Request) -> bool:
    """Show what would be fetched, and ask."""
    # Imported late: the download itself does not wait for them.
    from drkun_tui import hardware
    from drkun_tui.library.hub.base import HubError
    from drkun_tui.library.hub.fitting import fits_on
    from drkun_tui.library.hub.resolve import resolve

    listing = await downloads.files(request.hub, request.repo, request.revision)
    try:
        plan = resolve(listing, fits_on(hardware.read()), quant=request.quant, include=request.include)
    except HubError as error:
        raise downloads.error_of(error.kind, error.values) from error
    folder = paths.model_store() / request.repo
    told = t("pull.files", repo=request.repo, files=len(plan.files), size=size(plan.total), folder=folder)
    print(told, file=sys.stderr)
    print(t("pull.ask"), end="", file=sys.stderr, flush=True)
    answer = await asyncio.to_thread(sys.stdin.readline)
    return answer.strip().lower() in ("", "y", "yes", "是")


async def _pause(stopping: asyncio.Event, all_of_them: Downloads, id: str) -> None:
    await stopping.wait()
    await all_of_them.pause(id)


class Shown:
    """Events as lines: one that is written anew on a terminal, one for each file elsewhere, JSON for
    programs."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._line = StatusLine(quiet=as_json)

    def add(self, event: Event) -> None:
        """Show what is new."""
        if self._as_json:
            sys.stdout.buffer.write(encode(event) + b"\n")
            sys.stdout.buffer.flush()
        elif isinstance(event, Progress):
            self._line.show(_progress(event))
        elif isinstance(event, FileDone):
            self._line.keep(f"{one_line(event.path, 100)}  {size(event.size)}")
        elif isinstance(event, Retrying):
            reason = downloads.error_of(event.kind, event.values).message
            self._line.keep(t("pull.retrying", reason=reason, seconds=f"{event.wait_s:g}"))
        elif isinstance(event, Done):
            self.end()
            print(t("pull.done", folder=event.folder))

    def end(self) -> None:
        """Leave a clean line."""
        self._line.clear()


def _progress(event: Progress) -> str:
    eta = "" if event.eta_s is None else t("pull.eta", time=duration(event.eta_s))
    return t(
        "pull.progress",
        phase=t(f"pull.{event.phase}"),
        done=size(event.done),
        total=size(event.total),
        speed=size(int(event.speed)),
        eta=eta,
    )
