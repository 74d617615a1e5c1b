"""``drkun stop``: a training run writes a checkpoint and ends."""

from __future__ import annotations

import argparse
import asyncio
import json

from drkun_tui import paths, settings
from drkun_tui.commands.runs import as_dict
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.training.runs import Run, Runs


def run(arguments: argparse.Namespace) -> int:
    """Stop one, and say what is kept."""
    set_language(settings.load(paths.settings_file()).language)
    stopped = asyncio.run(_stopped(arguments.run))
    if arguments.json:
        print(json.dumps(as_dict(stopped), ensure_ascii=False))
    else:
        print(
            t("stop.done", id=stopped.id, phase=t(f"runs.phase_{stopped.phase}"), step=stopped.history.saved)
        )
    return EXIT_DONE


async def _stopped(id: str) -> Run:
    runs = Runs()
    await runs.stop(id)
    return await runs.get(id)
