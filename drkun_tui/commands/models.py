"""``drkun models``: what is on disk."""

from __future__ import annotations

import argparse
import json
import sys

from drkun_tui import hardware, paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library import inventory
from drkun_tui.library.fit import size_text
from drkun_tui.library.model import Model
from drkun_tui.library.plan import folders
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import one_line


def run(arguments: argparse.Namespace) -> int:
    """List every model."""
    own = settings.load(paths.settings_file())
    set_language(own.language)
    found = inventory.survey(folders(own))
    machine = hardware.read()
    for folder in found.unreadable:
        told = t("inventory.unreadable", folder=one_line(str(folder.path), 200), reason=folder.reason)
        print(f"drkun: {told}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"models": [model.as_dict(machine) for model in found.models]}, ensure_ascii=False))
        return EXIT_DONE
    titles = [t(f"models.column_{name}") for name in ("name", "kind")]
    titles.append(t("inventory.column_source"))
    titles += [t(f"models.column_{name}") for name in ("quantization", "size", "context", "fits")]
    rows = [titles, *(_row(model, machine) for model in found.models)]
    widths = fit_columns(rows, (60, 12, 12, 12, 10, 10, 120))
    for row in rows:
        cells = [
            cell(text, width, right=column in (4, 5))
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(GAP.join(cells).rstrip())
    if not found.models:
        print(t("models.none", folder=str(paths.model_store())))
    return EXIT_DONE


def _row(model: Model, machine: hardware.Hardware) -> list[str]:
    if model.problems:
        state = one_line(str(model.problems[0]), 120)
    else:
        fit = model.fits(machine)["cpu"]
        state = t("models.fits_yes" if fit.fits else "models.fits_no", need=size_text(fit.need_bytes))
    return [
        one_line(model.name, 60),
        t(f"models.kind_{model.kind.replace('-', '_')}"),
        t(f"inventory.source_{model.source.value}"),
        model.quantization or "",
        size(model.size_bytes),
        str(model.context_length or ""),
        state,
    ]
