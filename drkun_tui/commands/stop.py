"""``drkun stop``: any job that goes on by itself ends early, and keeps what its kind can keep."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from drkun_tui import paths, settings
from drkun_tui.commands.runs import as_dict
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, DrkunError
from drkun_tui.evaluation.evaluations import Evaluations
from drkun_tui.i18n import set_language, t
from drkun_tui.jobs.roster import Roster
from drkun_tui.library.hub.downloads import Downloads
from drkun_tui.publishing.exports import Exports
from drkun_tui.publishing.uploads import Uploads
from drkun_tui.training.runs import Run, Runs


def run(arguments: argparse.Namespace) -> int:
    """Stop one, and say what is kept."""
    set_language(settings.load(paths.settings_file()).language)
    kind, job = asyncio.run(_stopped(arguments.id))
    if arguments.json:
        told = as_dict(job) if isinstance(job, Run) else {"id": job.id, "phase": job.phase}
        print(json.dumps({"kind": kind, **told}, ensure_ascii=False))
    elif isinstance(job, Run):
        print(t("stop.done", id=job.id, phase=t(f"runs.phase_{job.phase}"), step=job.history.saved))
    else:
        print(t(f"stop.{kind}", id=job.id, phase=t(f"stop.phase_{job.phase}")))
    return EXIT_DONE


async def _stopped(id: str) -> tuple[str, Any]:
    """The kind of a job, and the job once it has ended.

    Raises:
        DrkunError: ``no_job``, or ``ambiguous``: jobs of several kinds are called so.
    """
    runs, evaluations, exports, uploads, downloads = Runs(), Evaluations(), Exports(), Uploads(), Downloads()
    kinds: dict[str, tuple[Roster[Any, Any], Callable[[str], Awaitable[None]]]] = {
        "run": (runs, runs.stop),
        "evaluation": (evaluations, evaluations.stop),
        "export": (exports, exports.stop),
        "upload": (uploads, uploads.stop),
        "download": (downloads, downloads.pause),
    }
    found = {kind: job for kind, (jobs, _) in kinds.items() if (job := await jobs.find(id)) is not None}
    if not found:
        raise DrkunError("no_job", t("stop.no_job", id=id), t("stop.no_job_hint"), EXIT_BAD_INPUT)
    # The beginning of an id says when it was made, and something else may have begun with it.
    meant = {kind: job for kind, job in found.items() if job.running} or found
    if len(meant) > 1:
        ids = ", ".join(job.id for job in meant.values())
        raise DrkunError("ambiguous", t("stop.ambiguous", id=id, ids=ids), "", EXIT_BAD_INPUT)
    ((kind, job),) = meant.items()
    jobs, stop = kinds[kind]
    await stop(job.id)
    return kind, await jobs.get(job.id)
