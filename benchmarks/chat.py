"""Answers through the real chat screen in a real terminal."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.machine import Bench
from benchmarks.terminal import Terminal


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One answer as the interface saw it come.

    Attributes:
        tok_s: by the engine's clock.
        wall_tok_s: by the interface's, from its first piece of text to the closing event.
        lateness_s: of a task that sleeps five milliseconds at a time, while the answer came.
    """

    tokens: int
    finish_reason: str
    tok_s: float
    wall_tok_s: float
    lateness_s: list[float]

    def __str__(self) -> str:
        worst = f", worst lag {max(self.lateness_s) * 1000:.0f} ms" if self.lateness_s else ""
        return f"{self.tokens} tokens, {self.tok_s:.0f} tok/s, wall {self.wall_tok_s:.0f} tok/s{worst}"


def ask(
    bench: Bench, question: str, *options: str, expect: str = "", patience_s: float = 120.0
) -> ShownAnswer:
    """Open the chat screen, type `question`, and wait for the whole answer.

    Args:
        options: of `benchmarks.children.watched_app`.
        expect: what must stand on the screen in the end.
    """
    with tempfile.TemporaryDirectory(dir=bench.home) as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "benchmarks.children.watched_app", str(report), *options]
        with Terminal(command, bench.environment) as terminal:
            _answers(report, 0, patience_s)
            time.sleep(0.5)
            terminal.type(question)
            terminal.wait_for(question[:10])
            terminal.press("Enter")
            (answer,) = _answers(report, 1, patience_s)
            if expect:
                terminal.wait_for(expect, 5.0)
            terminal.quit()
    return answer


def _answers(report: Path, count: int, patience_s: float) -> list[ShownAnswer]:
    """The report, once it holds `count` answers."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if report.exists():
            answers = msgspec.json.decode(report.read_bytes(), type=list[ShownAnswer])
            if len(answers) >= count:
                return answers
        time.sleep(0.1)
    raise TimeoutError(f"no {'answer' if count else 'model'} after {patience_s:.0f} s")
