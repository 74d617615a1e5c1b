"""The chat screen as it is, with a watch on it: when text came, and how late the event loop was.

Run as ``python -m benchmarks.children.watched_app REPORT`` in a terminal. `REPORT` is a JSON file that is
replaced when the model is ready and after every answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from drkun_tui import app as product
from drkun_tui import cli
from drkun_tui.commands import chat
from drkun_tui.engine import client
from drkun_tui.engine.client import Restarting
from drkun_tui.engine.protocol import Delta, Finished, Generate, Loading, Ready, Started

AFTERWARDS_S = 0.3
"""The last paint comes after the answer's end and belongs to it."""


class WatchedApp(product.DrkunApp):
    """The product's application; only the calls to the engine are listened to."""

    report_to: Path
    tick_s: float

    async def on_load(self) -> None:
        """Begin to watch before anything is shown."""
        self._answers: list[dict[str, Any]] = []
        self._lateness: list[float] = []
        self._ask = self.session.engine.generate
        self.session.engine.generate = self._listen  # type: ignore[method-assign]

    def show_loading(self, event: Loading | Restarting | Ready | None) -> None:
        """Also tell the benchmark that the model is ready."""
        super().show_loading(event)
        if isinstance(event, Ready):
            self._report()

    async def _listen(self, request: Generate) -> AsyncIterator[Started | Delta | Finished]:
        first = 0.0
        lag: asyncio.Task[None] | None = None
        async for event in self._ask(request):
            now = time.perf_counter()
            if isinstance(event, Delta) and not first:
                first = now
                if self.tick_s:
                    lag = asyncio.create_task(self._measure_lag())
            if isinstance(event, Finished):
                tokens = event.usage.thinking_tokens + event.usage.answer_tokens
                self._ending = asyncio.create_task(
                    self._answered(
                        {
                            "tokens": tokens,
                            "finish_reason": event.finish_reason,
                            "tok_s": event.timings.decode_tok_s,
                            "wall_tok_s": (tokens - 1) / (now - first),
                        },
                        lag,
                    )
                )
            yield event

    async def _answered(self, answer: dict[str, Any], lag: asyncio.Task[None] | None) -> None:
        await asyncio.sleep(AFTERWARDS_S)
        if lag is not None:
            lag.cancel()
        self._answers.append({**answer, "lateness_s": self._lateness})
        self._lateness = []
        self._report()

    async def _measure_lag(self) -> None:
        while True:
            due = time.perf_counter() + self.tick_s
            await asyncio.sleep(self.tick_s)
            self._lateness.append(time.perf_counter() - due)

    def _report(self) -> None:
        aside = self.report_to.with_suffix(".tmp")
        aside.write_text(json.dumps(self._answers), "utf8")
        aside.replace(self.report_to)


def main() -> int:
    """Open the chat screen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("--lag", type=float, default=0.0, metavar="S", help="measure lag with sleeps of S")
    parser.add_argument("--engine", metavar="MODULE", help="speak to this engine process instead")
    arguments = parser.parse_args()
    if arguments.engine:
        client.HOST = arguments.engine
    WatchedApp.report_to, WatchedApp.tick_s = arguments.report, arguments.lag
    product.DrkunApp = WatchedApp  # type: ignore[misc]
    return chat.run(cli.parser().parse_args([]))


if __name__ == "__main__":
    sys.exit(main())
