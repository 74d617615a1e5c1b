"""The machine under the measurements: what it is, whether it is quiet, and who else was busy."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import tomli_w

from drkun_tui import __version__, hardware

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where children are started, so that they import it."""

QUIET_SHARE = 0.08
"""Processor use by everything, as a share of all cores, below which a sample may begin."""

DISTURBED_SHARE = 0.04
"""Processor use by strangers during a sample, above which it is taken again."""

ATTEMPTS = 4

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def describe() -> str:
    """CPU, cores, memory, date and versions in one line."""
    own = hardware.read()
    packages = ", ".join(f"{name} {_version(name)}" for name in ("textual", "llama-cpp-python"))
    gib = own.ram_total / 2**30
    return (
        f"{own.cpu}, {own.physical_cores} cores, {gib:.1f} GiB, {platform.system()} {platform.release()}; "
        f"{datetime.date.today():%Y-%m-%d}; "
        f"drkun {__version__}, Python {platform.python_version()}, {packages}, {_tmux()}"
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _tmux() -> str:
    if shutil.which("tmux") is None:
        return "no tmux"
    return subprocess.run(["tmux", "-V"], capture_output=True, text=True, check=False).stdout.strip()


def drkun() -> str:
    """The command of the installation that runs the benchmarks."""
    return str(Path(sys.executable).parent / "drkun")


@dataclass(eq=False)
class Bench:
    """What every group is given.

    Attributes:
        home: the children's data folder.
        rounds: how often each side is measured.
        patience_s: how long to wait for a quiet machine before a sample.
    """

    home: Path
    rounds: int = 7
    patience_s: float = 120.0
    samples: int = 0
    repeated: int = 0
    disturbed: int = 0
    """Samples that were kept although strangers were busy, after `ATTEMPTS` tries."""
    notes: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every child."""
        own = {
            **os.environ,
            "DRKUN_HOME": str(self.home),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LC_ALL": "C.UTF-8",
        }
        own.pop("TMUX", None)
        return own

    def settings(self, **own: object) -> None:
        """Write the settings that the children read: Chinese, two threads, and what is given."""
        chosen = {"language": "zh", "threads": 2, **own}
        (self.home / "settings.toml").write_text(tomli_w.dumps(chosen), "utf8")

    def run(self, *command: str, **environment: str) -> bytes:
        """Run a child to its end, with more variables in its environment; what it wrote on standard output.

        Raises:
            RuntimeError: it failed; with the last line of what it complained about.
        """
        whole = self.environment | environment
        done = subprocess.run(command, cwd=ROOT, env=whole, capture_output=True, check=False)
        if done.returncode:
            complaint = done.stderr.decode("utf8", "replace").strip().splitlines() or ["nothing said"]
            raise RuntimeError(f"{' '.join(command[:4])} ended with {done.returncode}: {complaint[-1]}")
        return done.stdout

    def note(self, line: str) -> None:
        """Say something that the table cannot."""
        self.notes.append(line)
        print(f"  note: {line}", file=sys.stderr, flush=True)

    def rounds_of(self, name: str, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Measure every side once a round, in an order that changes from round to round."""
        results: dict[str, list[T]] = {side: [] for side in sides}
        order = list(sides)
        mixed = random.Random(0)
        for number in range(self.rounds):
            for side in order:
                result = self.sample(sides[side])
                results[side].append(result)
                print(
                    f"  {name} {number + 1}/{self.rounds} {side}: {_brief(result)}",
                    file=sys.stderr,
                    flush=True,
                )
            mixed.shuffle(order)
        return results

    def sample(self, measure: Callable[[], T]) -> T:
        """Measure on a quiet machine; again where strangers were busy meanwhile.

        The reason for another try is the strangers' processor time, never the result.
        """
        for attempt in range(ATTEMPTS):
            self._settle()
            before, began = _strangers_s(), time.monotonic()
            result = measure()
            used, elapsed = _strangers_s() - before, time.monotonic() - began
            if used <= DISTURBED_SHARE * elapsed * (os.cpu_count() or 1) + 2 / _TICK:
                break
            if attempt < ATTEMPTS - 1:
                self.repeated += 1
            else:
                self.disturbed += 1
        self.samples += 1
        return result

    def quietness(self) -> str:
        """How undisturbed it all was."""
        return (
            f"{self.samples} samples; {self.repeated} taken again because other processes used more than "
            f"{DISTURBED_SHARE:.0%} of the processor meanwhile, {self.disturbed} kept in spite of that."
        )

    def _settle(self) -> None:
        until = time.monotonic() + self.patience_s
        while time.monotonic() < until:
            if _busy_share(0.3) < QUIET_SHARE:
                return


def _brief(result: object) -> str:
    if isinstance(result, float):
        return f"{result:.4g}"
    if isinstance(result, dict):
        return ", ".join(f"{key} {_brief(value)}" for key, value in result.items())
    return str(result)[:160]


def _busy_share(seconds: float) -> float:
    """Share of all cores in use over the next `seconds`; 0 where the system does not tell."""
    before = _jiffies()
    time.sleep(seconds)
    after = _jiffies()
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total else 0.0


def _jiffies() -> tuple[int, int]:
    """Busy and all processor time so far."""
    try:
        line = Path("/proc/stat").read_text("ascii").splitlines()[0]
    except OSError:
        return 0, 0
    times = [int(value) for value in line.split()[1:9]]
    return sum(times) - times[3] - times[4], sum(times)


def _strangers_s() -> float:
    """Processor seconds that others have used so far: all, less this process and its ended children."""
    ours = sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
    return _jiffies()[0] / _TICK - ours
