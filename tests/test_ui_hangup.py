"""A terminal that is closed while the program is in it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import PATIENCE_S, has_ended, wait_until

pty = pytest.importorskip("pty")


@pytest.fixture
def shown(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The program in a terminal of which it does not lead the session, as when ``make run`` started it: no
    signal tells it that the terminal is gone."""
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "drkun_tui"],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env={**os.environ, "TERM": "xterm-256color", "LINES": "24", "COLUMNS": "80"},
    )
    os.close(screen)
    yield process, keyboard
    with contextlib.suppress(OSError):
        os.close(keyboard)
    process.kill()
    process.wait()


def test_the_program_ends_with_its_terminal(shown: tuple[subprocess.Popen[bytes], int]) -> None:
    process, keyboard = shown

    def has_an_engine() -> bool:
        while select.select([keyboard], [], [], 0)[0]:
            os.read(keyboard, 65536)
        return bool(psutil.Process(process.pid).children())

    wait_until(has_an_engine)
    engines = [child.pid for child in psutil.Process(process.pid).children()]
    os.close(keyboard)
    assert process.wait(PATIENCE_S) == 0
    assert all(has_ended(pid) for pid in engines)
