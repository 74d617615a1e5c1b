"""How soon the chat screen stands, and how soon the smallest command answers."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.children.bare_app import TEXT
from benchmarks.machine import ROOT, Bench, drkun
from benchmarks.report import Row, Target, compare
from benchmarks.terminal import Terminal
from drkun_tui.i18n import catalogue

FIRST_PAINT = Target("at most", 2.0)
VERSION = Target("at most", 0.6)

PEERS = {
    # Version 1.10 of elia knows no --version; its help is the quickest thing that it can say.
    "elia": ("elia-chat", ("elia", "--help")),
    "oterm": ("oterm", ("oterm", "--version")),
}
"""Name: package, and the command that is timed."""


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    return [*_first_paint(bench), *_version(bench)]


def _first_paint(bench: Bench) -> list[Row]:
    # The cursor stands on the first character, so that one is written apart from the others.
    placeholder = catalogue("zh")["consult.placeholder"][1:]
    bare = [sys.executable, str(ROOT / "benchmarks" / "children" / "bare_app.py")]

    def used_home() -> float:
        return _paint(bench, [drkun()], placeholder, bench.home)

    def fresh_home() -> float:
        with tempfile.TemporaryDirectory(dir=bench.home) as home:
            shutil.copy(bench.home / "settings.toml", home)
            return _paint(bench, [drkun()], placeholder, Path(home))

    def bare_app() -> float:
        return _paint(bench, bare, TEXT[1:], bench.home)

    used_home()  # the first start also compiles and fills the disk's cache
    bare_app()
    times = bench.rounds_of("first paint", {"drkun": used_home, "fresh": fresh_home, "bare": bare_app})
    other = "bare Textual app"
    return [
        compare("chat screen, first paint in tmux", "s", times["drkun"], other, times["bare"], FIRST_PAINT),
        compare(
            "the same, very first start (new data folder)",
            "s",
            times["fresh"],
            other,
            times["bare"],
            FIRST_PAINT,
        ),
    ]


def _paint(bench: Bench, command: list[str], text: str, home: Path) -> float:
    with Terminal(command, {**bench.environment, "DRKUN_HOME": str(home)}) as terminal:
        seconds = terminal.first_seen(text)
        terminal.wait_for(text)
        terminal.quit()
    return seconds


def _version(bench: Bench) -> list[Row]:
    commands = {"drkun": [drkun(), "--version"]}
    for name, (package, (program, *arguments)) in PEERS.items():
        if (path := _installed(bench, package, program)) is not None:
            commands[name] = [str(path), *arguments]
    for command in commands.values():
        _seconds(bench, command)
    sides = {name: (lambda command=command: _seconds(bench, command)) for name, command in commands.items()}
    times = bench.rounds_of("--version", sides)
    return [
        compare("drkun --version", "s", times["drkun"], " ".join(PEERS[name][1]), times[name], VERSION)
        for name in PEERS
        if name in times
    ]


def _seconds(bench: Bench, command: list[str]) -> float:
    began = time.perf_counter()
    bench.run(*command)
    return time.perf_counter() - began


def _installed(bench: Bench, package: str, program: str) -> Path | None:
    """The program of `package`, installed with its own environment under ``.bench/`` when missing."""
    folder = ROOT / ".bench" / package
    path = folder / "bin" / program
    if path.exists():
        return path
    print(f"  installing {package} for comparison…", file=sys.stderr, flush=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, capture_output=True
        )
        install = [*_pip(), "--python", str(folder / "bin" / "python"), "install", "--quiet", package]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        bench.note(f"{package} could not be installed, so its row is missing: {reason}")
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return path if path.exists() else None


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [shutil.which("pip3") or shutil.which("pip") or "pip"]
