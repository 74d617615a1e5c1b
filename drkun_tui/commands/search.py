"""``drkun search``: models on a hub, by name."""

from __future__ import annotations

import argparse
import asyncio
import json

import msgspec

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library.hub import downloads
from drkun_tui.library.hub.protocol import Filters, Found
from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.typeset.sanitise import one_line

COLUMNS = ("repo", "parameters", "downloads", "likes", "updated", "format", "gated")
MOST = (64, 10, 12, 8, 10, 12, 8)
RIGHT = (1, 2, 3)


def run(arguments: argparse.Namespace) -> int:
    """Search, and print a table or an object."""
    saved = settings.load(paths.settings_file())
    set_language(saved.language)
    least, most = arguments.size
    filters = Filters(
        task=arguments.task, language=arguments.language, format=arguments.format, least=least, most=most
    )
    query = " ".join(arguments.query)
    hub = arguments.hub or settings.hub_of(saved)
    found = asyncio.run(downloads.search(hub, query, filters, max(1, arguments.limit)))
    if arguments.json:
        print(json.dumps({"found": msgspec.to_builtins(found)}, ensure_ascii=False))
        return EXIT_DONE
    rows = [[t(f"search.{name}") for name in COLUMNS], *map(_row, found)]
    widths = fit_columns(rows, MOST)
    for row in rows if found else []:
        cells = [
            cell(text, width, right=column in RIGHT)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(GAP.join(cells).rstrip())
    if not found:
        print(t("search.none"))
    return EXIT_DONE


def _row(model: Found) -> list[str]:
    parameters = f"{model.parameters / 1e9:.1f} B" if model.parameters else ""
    formats = " ".join(name for name in ("gguf", "safetensors") if name in model.tags)
    return [
        one_line(model.repo, MOST[0]),
        parameters,
        f"{model.downloads:,}",
        f"{model.likes:,}",
        one_line(model.updated[:10], 10),
        formats,
        t("search.gated") if model.gated else "",
    ]
