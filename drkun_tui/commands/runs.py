"""``drkun runs``: the training runs that there are."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
from typing import Any

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.training.runs import Run, Runs
from drkun_tui.ui.table import GAP, cell, fit_columns
from drkun_tui.ui.typeset.sanitise import one_line

COLUMNS = ("id", "adapter", "phase", "step", "loss", "held_out", "when")
MOST = (24, 48, 12, 14, 8, 8, 16)
RIGHT = (3, 4, 5)


def run(arguments: argparse.Namespace) -> int:
    """List them, the newest first."""
    set_language(settings.load(paths.settings_file()).language)
    found = asyncio.run(Runs().all())
    if arguments.json:
        print(json.dumps({"runs": [as_dict(run) for run in found]}, ensure_ascii=False))
    elif not found:
        print(t("runs.none"))
    else:
        rows = [[t(f"runs.{name}") for name in COLUMNS], *map(_row, found)]
        widths = fit_columns(rows, MOST)
        for row in rows:
            cells = [
                cell(text, width, right=column in RIGHT)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            print(GAP.join(cells).rstrip())
    return EXIT_DONE


def _row(run: Run) -> list[str]:
    history = run.history
    when = datetime.datetime.fromtimestamp(run.updated).strftime("%Y-%m-%d %H:%M") if run.updated else ""
    return [
        run.id,
        one_line(run.name, MOST[1]),
        t(f"runs.phase_{run.phase}"),
        f"{history.step}/{history.total_steps}" if history.total_steps else "",
        f"{history.steps[-1].loss:.3f}" if history.steps else "",
        f"{history.held_out[-1].loss:.3f}" if history.held_out else "",
        when,
    ]


def as_dict(run: Run) -> dict[str, Any]:
    """The object of one run in ``drkun runs --json``."""
    history = run.history
    return {
        "id": run.id,
        "adapter": run.name,
        "base": run.recipe.base.model,
        "preset": run.recipe.preset,
        "phase": run.phase,
        "step": history.step,
        "total_steps": history.total_steps,
        "loss": history.steps[-1].loss if history.steps else None,
        "held_out_loss": history.held_out[-1].loss if history.held_out else None,
        "saved_step": history.saved,
        "updated": run.updated,
        "error": run.error.as_dict() if run.error else None,
    }
