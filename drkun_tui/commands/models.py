"""``drkun models``: what is on disk."""

from __future__ import annotations

import argparse
import asyncio
import json

from drkun_tui import hardware, paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library import inventory, speed
from drkun_tui.library.fit import size_text
from drkun_tui.library.plan import folders
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import one_line


def run(arguments: argparse.Namespace) -> int:
    """List every model."""
    own = settings.load(paths.settings_file())
    set_language(own.language)
    models = inventory.scan(folders(own))
    machine = hardware.read()
    if arguments.speed:
        asyncio.run(speed.measure(paths.machine_file(), machine, paths.engine_log(), own.threads))
    if arguments.json:
        known = speed.known(paths.machine_file(), machine, own.threads)
        told = [model.as_dict(machine, known) for model in models]
        print(json.dumps({"models": told}, ensure_ascii=False))
        return EXIT_DONE
    titles = [
        t(f"models.column_{name}") for name in ("name", "kind", "quantization", "size", "context", "fits")
    ]
    rows = [titles]
    for model in models:
        if model.problems:
            state = one_line(model.problems[0], 80)
        else:
            fit = model.fits(machine)["cpu"]
            state = t("models.fits_yes" if fit.fits else "models.fits_no", need=size_text(fit.need_bytes))
        rows.append(
            [
                one_line(model.name, 60),
                t(f"models.kind_{model.kind.replace('-', '_')}"),
                model.quantization or "",
                size(model.size_bytes),
                str(model.context_length or ""),
                state,
            ]
        )
    widths = fit_columns(rows, (60, 12, 12, 10, 10, 80))
    for row in rows:
        cells = [
            cell(text, width, right=column in (3, 4))
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(GAP.join(cells).rstrip())
    if not models:
        print(t("models.none", folder=str(paths.model_store())))
    return EXIT_DONE
