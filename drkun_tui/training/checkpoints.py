"""Checkpoints of a run: a folder is one only when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that is whole."""

    path: Path
    step: int

    @property
    def is_last(self) -> bool:
        """Was it written behind the run's last step? Then there is nothing left to train."""
        told = json.loads((self.path / "trainer_state.json").read_text("utf8"))
        return bool(told["global_step"] >= told["max_steps"])


def all_of(folder: Path) -> list[Checkpoint]:
    """Those in a folder, the newest last."""
    if not folder.is_dir():
        return []
    named = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    found = [Checkpoint(path, int(name[1])) for path, name in named if name and path.is_dir()]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest(folder: Path) -> Checkpoint | None:
    """The last one, if there is one."""
    found = all_of(folder)
    return found[-1] if found else None


def aside_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written before it is one."""
    return folder / f".saving-{step}"


@contextlib.contextmanager
def written(folder: Path, step: int, keep: int) -> Iterator[Path]:
    """A folder to write ``checkpoint-STEP`` in. When the block has ended well, what it wrote there is on the
    disk, is renamed to its place in one step, and older ones than the newest `keep` are removed; otherwise
    nothing is left of it.

    Raises:
        OSError: it cannot be written.
    """
    aside = aside_of(folder, step)
    for left in folder.glob(".saving-*"):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        made, place = aside / f"checkpoint-{step}", folder / f"checkpoint-{step}"
        _to_disk(made)
        # The same step again, after the events of a lost one: what is there is as good.
        if not place.exists():
            made.replace(place)
            _to_disk(folder, deep=False)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in all_of(folder)[:-keep]:
        # Renamed first: half of one must not look like one.
        gone = old.path.with_name(f".saving-{old.path.name}")
        old.path.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _to_disk(folder: Path, *, deep: bool = True) -> None:
    """Wait until the file system has it."""
    for path in [*(folder.rglob("*") if deep else ()), folder]:
        if os.name == "nt" and path.is_dir():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
