"""What is looked at before an evaluation begins, so that nobody waits an hour to hear it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from drkun_tui.evaluation.faults import evaluation_error
from drkun_tui.evaluation.protocol import Order
from drkun_tui.library.plan import plan_load
from drkun_tui.settings import Settings
from drkun_tui.training.runs import Run, find

PACKAGES = ("numpy", "pyarrow", "sacrebleu", "rouge_score", "rjieba")

LIMIT = 1000
"""Most questions, where nobody says another number."""


def greedy(settings: Settings, *, temperature: bool = True, seed: bool = True) -> Settings:
    """The settings with which an evaluation asks: the most probable token each time, so that asking again
    gives the same.

    Args:
        temperature: False where somebody has chosen one.
        seed: False where somebody has chosen one.
    """
    sampling = settings.sampling
    if temperature:
        sampling = msgspec.structs.replace(sampling, temperature=0.0)
    if seed:
        sampling = msgspec.structs.replace(sampling, seed=0)
    return msgspec.structs.replace(settings, sampling=sampling)


def check(
    suite: str,
    settings: Settings,
    runs: Sequence[Run],
    *,
    task: Literal["auto", "department"] = "auto",
    limit: int = LIMIT,
    sequences: int = 0,
    against: str = "",
) -> Order:
    """What is evaluated on what.

    Args:
        suite: a file or folder, or what a training run is called.
        runs: all that there are.
        against: id of the evaluation that it will be compared with.

    Raises:
        DrkunError: there is no such suite, model or adapter, a package is missing, or a server is meant.
    """
    if settings.profile == "remote":
        raise evaluation_error("remote")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise evaluation_error("packages_missing", reason=", ".join(missing))
    plan_load(settings)
    path = Path(suite).expanduser()
    run = None if path.exists() else find(list(runs), suite)
    if not suite or (run is None and not path.exists()):
        raise evaluation_error("no_suite", suite=suite)
    return Order(
        suite=run.id if run is not None else str(path.absolute()),
        is_run=run is not None,
        task=task,
        limit=limit,
        sequences=sequences,
        against=against,
        settings=settings,
    )
