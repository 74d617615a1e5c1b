"""``drkun train``: fine-tune by a recipe. The run is a job of its own; this command follows it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from drkun_tui import paths, settings
from drkun_tui.commands.following import StatusLine, on_interrupt
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.library.fit import size_text
from drkun_tui.training import pace
from drkun_tui.training import recipe as recipes
from drkun_tui.training.memory import GIB
from drkun_tui.training.preflight import check
from drkun_tui.training.protocol import (
    Event,
    Failed,
    Finished,
    HeldOut,
    Planned,
    Prepared,
    Sample,
    Saved,
    Step,
    Stopped,
    Warned,
    encode,
)
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import Run, Runs, error_of
from drkun_tui.ui.progress import duration
from drkun_tui.ui.typeset.sanitise import clean, one_line


def run(arguments: argparse.Namespace) -> int:
    """Train; the exit code says whether the adapter is there."""
    chosen = settings.load(paths.settings_file())
    set_language(chosen.language)
    if bool(arguments.recipe) == bool(arguments.resume):
        raise DrkunError("bad_usage", t("train.recipe_or_resume"), t("train.hint"), EXIT_BAD_INPUT)
    recipe = None
    if arguments.recipe:
        preflight = check(read(arguments.recipe), chosen)
        recipe = preflight.recipe
        need, free = preflight.memory_bytes / GIB, preflight.available_bytes / GIB
        disk = size_text(preflight.disk_bytes)
        _tell(t("train.before", base=preflight.base.name, need=f"{need:.1f}", free=f"{free:.1f}", disk=disk))
        if (shape := preflight.base.shape) and (lasts := pace.expected(recipe, shape)):
            label = "measured" if lasts.measured else "estimated"
            _tell(t(f"train.time_{label}", time=duration(lasts.seconds)))
        for warning in preflight.warnings:
            _tell(warning)
    try:
        return asyncio.run(_train(recipe, arguments))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def read(name: str) -> Recipe:
    """A recipe's file, or a preset by its name.

    Raises:
        DrkunError: there is neither, or the recipe is wrong.
    """
    path = Path(name).expanduser()
    if not path.exists() and (preset := recipes.presets().get(name)):
        return preset
    return recipes.load(path)


async def _train(recipe: Recipe | None, arguments: argparse.Namespace) -> int:
    stopping = on_interrupt()
    runs = Runs()
    if recipe is None:
        before = await runs.get(arguments.resume)
        found = await runs.resume(before.id)
    else:
        before = found = await runs.start(recipe)
    _tell(t("train.begun", id=found.id, folder=str(runs.root / found.id)))
    if arguments.detach:
        if arguments.json:
            print(msgspec.json.encode({"id": found.id}).decode())
        return EXIT_DONE
    offset = before.offset if recipe is None else 0
    shown = Shown(as_json=arguments.json)
    asking = asyncio.ensure_future(_stop(stopping, runs, found))
    try:
        async for event, _ in runs.follow(found.id, offset):
            shown.add(event)
            if (error := unfinished(event, found.id)) is not None:
                raise error
    finally:
        asking.cancel()
        shown.end()
    return EXIT_DONE


def unfinished(event: Event, id: str) -> DrkunError | None:
    """Why the run of this id has ended without an adapter; None where the event is no such end."""
    if isinstance(event, Failed):
        return error_of(event.kind, event.values)
    if isinstance(event, Stopped):
        told = t("train.stopped", step=event.step)
        return DrkunError("stopped", told, t("train.stopped_hint", id=id), EXIT_INTERRUPTED)
    return None


def _tell(text: str) -> None:
    print(clean(text), file=sys.stderr)


async def _stop(stopping: asyncio.Event, runs: Runs, run: Run) -> None:
    await stopping.wait()
    _tell(t("train.stopping"))
    await runs.request_stop(run.id)


class Shown:
    """Events as lines: steps in one that is written anew on a terminal, JSON for programs.

    Args:
        as_json: one object a line on standard output, and nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._line = StatusLine(quiet=as_json)
        self._total = 0

    def add(self, event: Event) -> None:
        """Show what is new."""
        if self._as_json:
            sys.stdout.buffer.write(encode(event) + b"\n")
            sys.stdout.buffer.flush()
        elif isinstance(event, Step):
            self._step(event)
        elif isinstance(event, Planned):
            self._total = event.total_steps
            self._line.keep(
                t(
                    "train.planned",
                    steps=event.total_steps,
                    rows=f"{event.rows_per_step:.1f}",
                    backend=event.backend,
                    device=event.device,
                    share=f"{event.trainable_parameters / max(event.parameters, 1):.1%}",
                )
            )
        elif isinstance(event, Finished):
            self.end()
            print(t("train.finished", folder=event.folder))
        elif told := _told(event):
            self._line.keep(told)

    def _step(self, event: Step) -> None:
        line = t(
            "train.step",
            step=event.step,
            total=self._total,
            loss=f"{event.loss:.3f}",
            tok_s=f"{event.tok_s:.0f}",
            eta=duration(event.eta_s),
        )
        if self._line.live:
            self._line.show(line)
        else:
            self._line.keep(line)

    def end(self) -> None:
        """Leave a clean line."""
        self._line.clear()


def _told(event: Event) -> str:
    """One line about anything but steps; "" where there is nothing to say."""
    if isinstance(event, Prepared):
        dropped = ", ".join(f"{reason} {count}" for reason, count in event.dropped.items())
        values = {"rows": event.rows, "held_out": event.held_out, "tokens": event.tokens}
        return t("train.prepared", dropped=dropped or "0", **values)
    if isinstance(event, HeldOut):
        return t("train.held_out", step=event.step, loss=f"{event.loss:.4f}")
    if isinstance(event, Sample):
        answer = one_line(event.answer or event.thinking, 120)
        return t("train.sample", step=event.step, question=one_line(event.question, 60), answer=answer)
    if isinstance(event, Saved):
        return t("train.saved", step=event.step)
    if isinstance(event, Warned):
        return error_of(event.kind, event.values).message
    return ""
