"""The interface's end of training runs: begin, watch, stop and resume them, however many programs look on.

Each run is a job of its own (`drkun_tui.training.job`) with a folder below ``runs/`` in the data folder:

- ``recipe.toml``: the recipe with every value written.
- ``events.jsonl``, ``state.json``, ``log.txt``, ``stop``: as `drkun_tui.jobs.detached` has them.
- ``data/``: what the rows became; ``checkpoints/``: whole ones only.

The adapter itself goes to the model store, and only when it is whole.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached
from drkun_tui.jobs.roster import Kind, Roster
from drkun_tui.library.kinds import Kinds
from drkun_tui.training import recipe as recipes
from drkun_tui.training.checkpoints import newest
from drkun_tui.training.history import History
from drkun_tui.training.protocol import ENDED, Event, Failed, Phase, decode
from drkun_tui.training.recipe import Recipe

JOB = "drkun_tui.training.job"
RECIPE = "recipe.toml"
DATA, CHECKPOINTS = "data", "checkpoints"

STOP_S = 600.0
"""What a run gets to finish its step and write its checkpoint before it is killed."""

BEGINNING = 20
"""Among so many events at the beginning is what is told once: the data, and how training goes."""

_BAD_INPUT = {"no_run", "runs_still", "no_rows", "all_masked", "reasoning_lost", "adapter_exists", "no_data"}
_BAD_INPUT |= {"data_missing", "sharding_alone", "sharding_nf4", "sharding_unsloth", "sharding_outdated"}
_BAD_INPUT |= {"adapter_promised", "reporters_missing", "nf4_needs_gpu"}
_NO_MODEL = {"no_base", "not_trainable", "packages_missing"}

error_of = Kinds("training", _BAD_INPUT, _NO_MODEL).error_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as it stands.

    Attributes:
        id: names it for the methods of `Runs`.
        phase: one that has ended for no told reason is ``failed`` (``died``).
        history: the newest events, the data and the plan (`Runs.history` has all of them).
        error: why it failed.
        updated: seconds since the epoch, of its last word.
        offset: where `Runs.follow` goes on without repeating what is told here.
    """

    id: str
    recipe: Recipe
    phase: Phase
    history: History
    error: DrkunError | None = None
    updated: float = 0.0
    offset: int = 0

    @property
    def running(self) -> bool:
        """Is it at work?"""
        return self.phase not in ENDED

    @property
    def name(self) -> str:
        """What its adapter is called."""
        return self.recipe.adapter.name


class Runs(Roster[Run, Event]):
    """All runs of one data folder.

    Args:
        root: where they are; by default ``runs/`` in the data folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or paths.home() / "runs", _KIND)

    async def history(self, id: str) -> tuple[History, int]:
        """Everything that a run has told, and the offset behind it for `follow`."""
        return await asyncio.to_thread(self._history, id)

    def _history(self, id: str) -> tuple[History, int]:
        folder = self.root / id
        # Where it ends is asked first: what the run tells meanwhile is left to whoever follows it.
        offset = detached.last_events(folder, decode)[1]
        return History.of(detached.events(folder, decode, offset)), offset

    async def start(self, recipe: Recipe) -> Run:
        """Begin a run.

        Args:
            recipe: `drkun_tui.training.preflight` has nothing against it.

        Raises:
            DrkunError: ``unwritable`` or ``job_start_failed``.
        """
        folder = await asyncio.to_thread(self.make, recipe)
        return await self.resume(folder.name)

    def make(self, recipe: Recipe) -> Path:
        """The folder of a run that has not begun.

        Raises:
            DrkunError: ``unwritable``.
        """
        return self._new({RECIPE: recipes.dump(recipe).encode()})

    async def resume(self, id: str) -> Run:
        """Go on with a run that does not run, from its newest checkpoint or from the beginning; one that
        runs just goes on.

        Raises:
            DrkunError: ``job_start_failed`` or ``no_run``.
        """
        before = await self.get(id)
        await detached.start(JOB, self.root / before.id, ENDED)
        return await self.get(before.id)

    async def request_stop(self, id: str) -> None:
        """Ask a run to write a checkpoint and end; returns at once.

        Raises:
            DrkunError: ``no_run`` or ``unwritable``.
        """
        await self._request_stop((await self.get(id)).id)

    async def stop(self, id: str) -> None:
        """Ask a run to write a checkpoint and end; returns when it has.

        Raises:
            DrkunError: ``no_run`` or ``unwritable``.
        """
        await self._stop((await self.get(id)).id, STOP_S)

    async def cancel(self, id: str) -> None:
        """End a run at once; what came behind its newest checkpoint is lost.

        Raises:
            DrkunError: ``no_run`` or ``unwritable``.
        """
        await self._stop((await self.get(id)).id, patience_s=0)

    async def remove(self, id: str) -> None:
        """Forget a run that has ended, its checkpoints and its curve; the adapter that it made stays.

        Raises:
            DrkunError: ``no_run``, or ``runs_still``.
        """
        run = await self.get(id)
        if run.running:
            raise error_of("runs_still", {"id": run.id})
        await asyncio.to_thread(detached.remove, self.root / run.id)


def find(runs: list[Run], id: str) -> Run | None:
    """The run that is called so (`detached.is_called`)."""
    return next((run for run in runs if detached.is_called(run.id, id)), None)


def adapter_name(recipe: Recipe, base_name: str) -> str:
    """What an adapter is called that its recipe gives no name: base and preset."""
    base = re.sub(r"[^\w.-]+", "-", base_name.rpartition("/")[2]).strip("-.")
    return f"drkun/{base}-{recipe.preset or 'lora'}"


def _read(folder: Path) -> Run | None:
    """A run as its folder tells; None when it is none."""
    try:
        recipe = recipes.load(folder / RECIPE)
    except DrkunError:
        return None
    # Asked in this order, so that the news of what ends meanwhile is not missed.
    state = detached.state(folder)
    events, offset = detached.last_events(folder, decode)
    history = History.of(events)
    if history.planned is None:
        # Told once, at the beginning, which the newest events do not reach back to.
        begun = History.of(itertools.islice(detached.events(folder, decode), BEGINNING))
        history.prepared, history.planned = begun.prepared, begun.planned
    if (last := newest(folder / CHECKPOINTS)) is not None:
        # It may be older than the newest events, or whole before it could be told.
        history.saved = max(history.saved, last.step)
    phase, why = detached.standing(folder, state, ENDED)
    return Run(
        id=folder.name,
        recipe=recipe,
        phase=phase,  # type: ignore[arg-type]
        history=history,
        error=error_of(str(why.pop("kind", "")), why) if why else None,
        updated=state.updated if state else 0.0,
        offset=offset,
    )


_KIND: Kind[Run, Event] = Kind(
    read=_read,
    decode=decode,
    failed=Failed,
    died=lambda values: Failed(kind="died", values=values),
    error_of=error_of,
    missing="no_run",
)
