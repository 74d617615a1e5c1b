"""How quick an answer is beside a training on the same cores: ``python -m benchmarks.beside_training``.

The bundled model answers in the engine's process while a run of ``starter-cpu`` trains in its own, once with
OpenMP threads that sleep while they wait for each other, as a run of ours has them, and once with threads
that spin, as libgomp has them by itself. The sides take turns; compare within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.gpu import Engine
from drkun_tui import paths
from drkun_tui.engine.protocol import ChatMessage, Load, Ready
from drkun_tui.hardware import read
from drkun_tui.jobs import detached
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from drkun_tui.training import preflight, recipe
from drkun_tui.training.protocol import Step, decode
from drkun_tui.training.runs import JOB, Runs

SIDES: dict[str, dict[str, str]] = {
    "sleeping": {},
    "spinning": {"GOMP_SPINCOUNT": "300000"},
}
"""libgomp's own number of turns where there are no more threads than cores."""

QUESTION = ChatMessage("user", "糖尿病人能吃什么水果？请列出一百种")
ANSWER = Sampling(temperature=0, repeat_penalty=1, max_tokens=200)
WARM_UP, WINDOW_S = 3, 12.0
"""Steps before the clock starts, and seconds of each measurement."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens a second: of the training alone, of the training beside answers, of the answers beside it."""

    alone: float
    beside: float
    answer: float


@contextlib.contextmanager
def trainer(environment: dict[str, str], packing: bool) -> Iterator[tuple[psutil.Process, Path]]:
    """A training that goes on for as long as the block; its process and the run's folder."""
    preset = recipe.presets()["starter-cpu"]
    endless = msgspec.structs.replace(
        preset.training, epochs=0.0, max_steps=10**6, packing=packing, save_every=0, evaluate_every=0,
        sample_every=0,
    )  # fmt: skip
    made = preflight.check(msgspec.structs.replace(preset, training=endless), Settings()).recipe
    folder = Runs().make(made)
    with (folder / "log.txt").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, "-m", JOB, str(folder)],
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        process.nice(detached.NICENESS)
        try:
            yield process, folder
        finally:
            process.kill()
            process.wait()


def steps(folder: Path) -> list[Step]:
    """What the run has told of its steps."""
    return [event for event in detached.last_events(folder, decode)[0] if isinstance(event, Step)]


def next_step(process: psutil.Process, folder: Path, after: int) -> tuple[Step, float]:
    """The first step behind one, and when it was told."""
    while not (told := steps(folder)) or told[-1].step <= after:
        if process.poll() is not None:
            raise RuntimeError((folder / "log.txt").read_text("utf8")[-2000:])
        time.sleep(0.02)
    return told[-1], time.perf_counter()


def speeds(engine: Engine, environment: dict[str, str], packing: bool) -> Speeds:
    """Of a training that has begun its work, from step to step."""
    answers: list[float] = []
    with trainer(environment, packing) as (process, folder):
        first, began = next_step(process, folder, WARM_UP)
        time.sleep(WINDOW_S)
        middle, turned = next_step(process, folder, steps(folder)[-1].step)
        while time.perf_counter() < turned + WINDOW_S:
            answers.append(engine.ask([QUESTION], ANSWER).finished.timings.decode_tok_s)
        last, ended = next_step(process, folder, steps(folder)[-1].step)
    alone = (middle.tokens - first.tokens) / (turned - began)
    return Speeds(alone, (last.tokens - middle.tokens) / (ended - turned), statistics.median(answers))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_training")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--packed", action="store_true")
    arguments = parser.parse_args()
    print("| round | side | training alone, tokens/s | training beside answers | answers beside it |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as home:
        os.environ["DRKUN_HOME"] = home
        with Engine(Path(home) / "engine.log") as engine:
            engine.send(Load(path=str(paths.starter()), context_length=2048, threads=read().physical_cores))
            engine.until(Ready)
            engine.ask([QUESTION], ANSWER)
            alone = engine.ask([QUESTION], ANSWER).finished.timings.decode_tok_s
            print(f"| | answers alone | | | {alone:.0f} |", flush=True)
            for number in range(1, arguments.rounds + 1):
                for side, environment in SIDES.items():
                    told = speeds(engine, environment, arguments.packed)
                    figures = f"{told.alone:.0f} | {told.beside:.0f} | {told.answer:.0f}"
                    print(f"| {number} | {side} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
