"""``drkun models``: what is on disk."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from drkun_tui import hardware, paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library import speed
from drkun_tui.library.fit import Wish
from drkun_tui.library.overview import overview
from drkun_tui.library.plan import folders
from drkun_tui.ui import model_rows
from drkun_tui.ui.table import GAP
from drkun_tui.ui.typeset.sanitise import one_line


def run(arguments: argparse.Namespace) -> int:
    """List every model."""
    own = settings.load(paths.settings_file())
    set_language(own.language)
    machine = hardware.read()
    if arguments.speed:
        asyncio.run(speed.measure(paths.machine_file(), machine, paths.home() / "probe.log", own.threads))
    known = speed.known(paths.machine_file(), machine, own.threads)
    wish = Wish(own.context_length, own.kv_cache)
    found = overview(folders(own), machine, known, wish)
    for folder in found.unreadable:
        told = t("inventory.unreadable", folder=one_line(str(folder.path), 200), reason=folder.reason)
        print(f"drkun: {told}", file=sys.stderr)
    if arguments.json:
        listed = [entry.model.as_dict(machine, known, wish=wish, base=entry.base) for entry in found.entries]
        print(json.dumps({"models": listed}, ensure_ascii=False))
    elif found.entries:
        lines = model_rows.rows(found.entries).lines(tuple(model_rows.WIDEST))
        print(lines.titles)
        for line, problem in lines:
            print(f"{line}{GAP}{problem}".rstrip())
    else:
        print(t("models.none", folder=str(paths.model_store())))
    return EXIT_DONE
