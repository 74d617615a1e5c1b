"""``drkun export``: an adapter or a base as another kind of file. The export is a job of its own; this
command follows it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import msgspec

from drkun_tui import paths, settings
from drkun_tui.commands.following import StatusLine, on_interrupt
from drkun_tui.errors import EXIT_DONE, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.publishing.exports import Export, Exports
from drkun_tui.publishing.faults import error_of
from drkun_tui.publishing.preflight import check
from drkun_tui.publishing.protocol import (
    Event,
    Failed,
    Finished,
    Progress,
    Proved,
    Stopped,
    encode,
)
from drkun_tui.settings import Settings
from drkun_tui.ui.publishing_text import progress_text, proved_text
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import clean, one_line

COLUMNS = ("id", "model", "type", "phase", "when")
MOST = (24, 48, 12, 24, 16)


def run(arguments: argparse.Namespace) -> int:
    """Export, follow an export, or list them; the exit code says whether the file is there."""
    chosen = settings.load(paths.settings_file())
    set_language(chosen.language)
    exports = Exports()
    if sum(map(bool, (arguments.model, arguments.list, arguments.follow))) != 1:
        raise error_of("bad_usage", {})
    if arguments.list:
        _list(asyncio.run(exports.all()), as_json=arguments.json)
        return EXIT_DONE
    try:
        return asyncio.run(_run(exports, chosen, arguments))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(exports: Exports, chosen: Settings, arguments: argparse.Namespace) -> int:
    if arguments.follow:
        return await _follow(
            exports, await exports.get(arguments.follow), on_interrupt(), as_json=arguments.json
        )
    found = check(
        arguments.model,
        arguments.type,
        chosen,
        base=arguments.base,
        name=arguments.name,
        imatrix=arguments.imatrix,
        imatrix_from=arguments.imatrix_from,
    )
    _tell(t("publishing.before", name=found.request.name, size=size(found.result_bytes),
            disk=size(found.disk_bytes), memory=size(found.memory_bytes)))  # fmt: skip
    for warning in found.warnings:
        _tell(warning)
    stopping = on_interrupt()
    export = await exports.start(found.request)
    if arguments.detach:
        print(msgspec.json.encode({"id": export.id}).decode() if arguments.json else export.id)
        return EXIT_DONE
    return await _follow(exports, export, stopping, as_json=arguments.json)


async def _follow(exports: Exports, export: Export, stopping: asyncio.Event, *, as_json: bool) -> int:
    """Show what comes until it ends; Ctrl+C stops it.

    Raises:
        DrkunError: it failed, or was stopped.
    """
    shown = Shown(as_json=as_json)
    ending = asyncio.ensure_future(_stop(stopping, exports, export.id))
    try:
        async for event, _ in exports.follow(export.id):
            shown.add(event)
            if isinstance(event, Failed):
                raise error_of(event.kind, event.values)
            if isinstance(event, Stopped):
                raise DrkunError("stopped", t("publishing.stopped"), "", EXIT_INTERRUPTED)
    finally:
        ending.cancel()
        shown.end()
    return EXIT_DONE


async def _stop(stopping: asyncio.Event, exports: Exports, id: str) -> None:
    await stopping.wait()
    await exports.stop(id)


def _list(found: list[Export], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"exports": [_as_dict(each) for each in found]}, ensure_ascii=False))
    elif not found:
        print(t("publishing.no_exports"))
    else:
        rows = [[t(f"publishing.column_{name}") for name in COLUMNS], *map(_row, found)]
        widths = fit_columns(rows, MOST)
        for row in rows:
            print(GAP.join(map(cell, row, widths)).rstrip())


def _row(export: Export) -> list[str]:
    return [
        export.id,
        one_line(export.request.model, MOST[1]),
        export.request.target,
        t(f"publishing.phase_{export.phase}"),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(export.updated)) if export.updated else "",
    ]


def _as_dict(export: Export) -> dict[str, Any]:
    return {
        "id": export.id,
        "model": export.request.model,
        "type": export.request.target,
        "name": export.request.name,
        "phase": export.phase,
        "path": export.finished.path if export.finished else None,
        "updated": export.updated,
        "error": export.error.as_dict() if export.error else None,
    }


def _tell(text: str) -> None:
    print(clean(text), file=sys.stderr)


class Shown:
    """Events as lines: one that is written anew on a terminal, JSON for programs.

    Args:
        as_json: one object a line on standard output, and nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._line = StatusLine(quiet=as_json)

    def add(self, event: Event) -> None:
        """Show what is new."""
        if self._as_json:
            sys.stdout.buffer.write(encode(event) + b"\n")
            sys.stdout.buffer.flush()
        elif isinstance(event, Progress):
            self._line.show(progress_text(event))
        elif isinstance(event, Proved):
            self._line.keep(proved_text(event))
        elif isinstance(event, Finished):
            self.end()
            print(clean(t("publishing.finished", name=event.name, path=event.path, size=size(event.size))))

    def end(self) -> None:
        """Leave a clean line."""
        self._line.clear()
