"""How late the event loop is while three downloads and scans of many model folders run."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import inventory, lag
from benchmarks.machine import Bench
from benchmarks.report import Row
from benchmarks.terminal import Terminal
from tests.hub_server import HubServer, serving

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
    with tempfile.TemporaryDirectory(dir=bench.home) as name, serving(niceness=NICENESS) as hub:
        folder = Path(name)
        inventory.make(folder / "models")
        weights = folder / "weights.gguf"
        with weights.open("wb") as file:
            file.truncate(BYTES)
        repositories = [f"bench/model{number}" for number in range(DOWNLOADS)]
        for repo in repositories:
            hub.add(repo, {"model-Q4_K_M.gguf": weights})
        bench.settings(model_folders=[str(folder / "models")])
        try:
            taken = bench.rounds_of(
                "library lag", {"models screen": lambda: _watch(bench, hub, folder, repositories)}
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


def _watch(bench: Bench, hub: HubServer, folder: Path, repositories: list[str]) -> Watched:
    for left in (bench.home / "downloads", bench.home / "models"):
        shutil.rmtree(left, ignore_errors=True)
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    child = [sys.executable, "-m", "benchmarks.children.watched_library"]
    environment = {**bench.environment, **hub.environment(bench.home)}
    with Terminal([*child, str(report), str(lag.TICK_S), *repositories], environment) as terminal:
        until = time.monotonic() + PATIENCE_S
        while not report.exists():
            if time.monotonic() > until:
                raise TimeoutError(f"the downloads were not done after {PATIENCE_S:.0f} s")
            time.sleep(0.1)
        terminal.quit()
    return Watched(**json.loads(report.read_text("utf8")))
