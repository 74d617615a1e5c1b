"""How late the event loop is while three downloads and scans of many model folders run."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import inventory, lag
from benchmarks.machine import Bench
from benchmarks.report import Row
from benchmarks.terminal import Terminal
from drkun_tui.jobs.priority import give_way

DOWNLOADS = 3
BYTES = 2_000_000_000
"""Of each download."""

PATIENCE_S = 120.0

NICENESS = 15
"""Of the hub, which stands on another machine elsewhere."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What the screen's event loop went through."""

    lateness_s: list[float]
    scans: int
    at_once: int
    done: int
    seconds: float

    def __str__(self) -> str:
        worst = max(self.lateness_s) * 1000
        told = f"{self.scans} scans, {self.at_once} downloads at once, {self.seconds:.0f} s"
        return f"{told}, worst {worst:.0f} ms"


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    repositories = [f"bench/model{number}" for number in range(DOWNLOADS)]
    with tempfile.TemporaryDirectory(dir=bench.home) as name:
        folder = Path(name)
        inventory.make(folder / "models")
        weights = folder / "weights.gguf"
        with weights.open("wb") as file:
            file.truncate(BYTES)
        bench.settings(model_folders=[str(folder / "models")])
        with _hub(bench, weights, repositories) as environment:
            try:
                taken = bench.rounds_of(
                    "library lag", {"models screen": lambda: _watch(bench, environment, folder, repositories)}
                )["models screen"]
            finally:
                bench.settings()
    if any(watched.at_once < DOWNLOADS or watched.done < DOWNLOADS for watched in taken):
        raise RuntimeError(f"not all downloads ran at once to their end: {', '.join(map(str, taken))}")
    return [
        lag.row(
            f"lag p99, {DOWNLOADS} downloads and scans of {inventory.FOLDERS:,} folders",
            [watched.lateness_s for watched in taken],
        )
    ]


@contextlib.contextmanager
def _hub(bench: Bench, weights: Path, repositories: list[str]) -> Iterator[dict[str, str]]:
    """A hub that takes little of the processor from the screen; the environment of its clients."""
    child = [sys.executable, "-m", "benchmarks.children.hub", str(bench.home), str(weights), *repositories]
    with subprocess.Popen(
        child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as hub:
        assert hub.stdout is not None
        line = hub.stdout.readline()
        while not give_way(hub.pid, NICENESS):
            time.sleep(0.1)
        yield json.loads(line)
        # It ends with its input.


def _watch(bench: Bench, hub: dict[str, str], folder: Path, repositories: list[str]) -> Watched:
    for left in (bench.home / "downloads", bench.home / "models"):
        shutil.rmtree(left, ignore_errors=True)
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    child = [sys.executable, "-m", "benchmarks.children.watched_library"]
    environment = {**bench.environment, **hub}
    with Terminal([*child, str(report), str(lag.TICK_S), *repositories], environment) as terminal:
        until = time.monotonic() + PATIENCE_S
        while not report.exists():
            if time.monotonic() > until:
                raise TimeoutError(f"the downloads were not done after {PATIENCE_S:.0f} s")
            time.sleep(0.1)
        terminal.quit()
    return Watched(**json.loads(report.read_text("utf8")))
