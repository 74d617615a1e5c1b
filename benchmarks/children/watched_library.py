"""The models screen while three downloads and scans run, with a watch on its event loop.

Run as ``python -m benchmarks.children.watched_library REPORT TICK REPO…`` in a terminal. `REPORT` is a JSON
file: for how many ticks of `TICK` seconds the loop was late, and by how much, written when all is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

from textual.worker import WorkerCancelled

from drkun_tui import app as product
from drkun_tui import cli, paths
from drkun_tui.commands import chat
from drkun_tui.library.hub.protocol import Request
from drkun_tui.ui import fetching
from drkun_tui.ui.screens.models import ModelsScreen


class WatchedApp(product.DrkunApp):
    """The product's application; the downloads are begun for it."""

    report_to: Path
    tick_s: float
    repositories: list[str]

    def on_ready(self) -> None:
        """Begin once the screen is there."""
        self.run_worker(self._watch())

    async def _watch(self) -> None:
        await self.planned.wait()
        self.action_go("models")
        await asyncio.sleep(1)
        lateness: list[float] = []
        lag = asyncio.create_task(self._measure_lag(lateness))
        for repo in self.repositories:
            await self.fetch(Request(hub="hf", repo=repo, store=str(paths.model_store())))
        scans = most = 0
        began = time.perf_counter()
        while not scans or self.downloads_running:
            most = max(most, len(self.downloads_running))
            if isinstance(self.screen, ModelsScreen):
                with contextlib.suppress(WorkerCancelled):  # something else wanted a scan, too
                    await self.screen.action_scan().wait()
                    scans += 1
            # Long enough for the downloads to be looked at.
            await asyncio.sleep(2 * fetching.WATCH_S if not most else 0)
        lag.cancel()
        phases = [download.phase for download in self.downloads_now]
        report = {
            "lateness_s": lateness,
            "scans": scans,
            "at_once": most,
            "done": phases.count("done"),
            "seconds": time.perf_counter() - began,
        }
        aside = self.report_to.with_suffix(".tmp")
        aside.write_text(json.dumps(report), "utf8")
        aside.replace(self.report_to)

    async def _measure_lag(self, lateness: list[float]) -> None:
        while True:
            due = time.perf_counter() + self.tick_s
            await asyncio.sleep(self.tick_s)
            lateness.append(time.perf_counter() - due)


def main() -> int:
    """Open the program."""
    report, tick, *repositories = sys.argv[1:]
    WatchedApp.report_to, WatchedApp.tick_s = Path(report), float(tick)
    WatchedApp.repositories = repositories
    product.DrkunApp = WatchedApp  # type: ignore[misc]
    return chat.run(cli.parser().parse_args([]))


if __name__ == "__main__":
    sys.exit(main())
