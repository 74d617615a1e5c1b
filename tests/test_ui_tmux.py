"""The program in a real terminal, with real keys."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from drkun_tui import paths, settings
from drkun_tui.consult.conversation import State, Turn
from drkun_tui.consult.store import Store
from drkun_tui.engine import safe_mode
from drkun_tui.i18n import t
from tests.ui_helpers import GREEDY, PATIENCE_S, RAMBLING, is_running, plainly

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A terminal of 100 × 30 with ``drkun`` in it."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux"
        configuration = folder / "tmux.conf"
        # A program that has ended leaves its screen.
        configuration.write_text("set -g remain-on-exit on\nset -g default-terminal screen-256color\n")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
        self._environment |= {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
        self._environment.pop("TMUX", None)
        # tmux itself at times loses the exit code of what it has started, so a shell writes it down.
        self._code = folder / "exit-code"
        command = f"{shlex.quote(sys.executable)} -m drkun_tui; echo $? > {shlex.quote(str(self._code))}"
        self._run("-f", str(configuration), "new-session", "-d", "-x", "100", "-y", "30", command)

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-u", "-S", str(self._socket), *arguments],
            env=self._environment,
            check=True,
            capture_output=True,
            encoding="utf8",
            timeout=PATIENCE_S,
        ).stdout

    def start_again(self) -> None:
        self._code.unlink()
        self._run("respawn-pane", "-k")

    def close(self) -> None:
        self._run("kill-server")

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    @property
    def pid(self) -> int:
        shell = psutil.Process(int(self._run("display-message", "-p", "#{pane_pid}")))
        return int(shell.children()[0].pid)

    @property
    def ended(self) -> str:
        """The exit code; "" while it runs."""
        return self._code.read_text("utf8").strip() if self._code.exists() else ""

    def type(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def until(self, true: Callable[[], object]) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < give_up, self.screen
            time.sleep(0.03)

    def shows(self, *texts: str) -> None:
        """Wait until all of these are on the screen."""
        self.until(lambda: all(text in self.screen for text in texts))


@pytest.fixture
def terminal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """The program in Chinese, with the sampling that the test asks for."""
    safe_mode.remember(paths.machine_file())
    chosen = plainly(language="zh", sampling=getattr(request, "param", GREEDY))
    settings.save(chosen, paths.settings_file())
    started = Terminal(tmp_path)
    try:
        yield started
    finally:
        started.close()


def turns() -> list[Turn]:
    """What is in the database."""
    store = Store(paths.database())
    try:
        return [turn for summary in store.summaries() for turn in store.load(summary.id).turns]
    finally:
        store.close()


def test_a_question_in_a_terminal_is_answered_and_kept(terminal: Terminal) -> None:
    terminal.shows(t("consult.placeholder"))
    terminal.type("你好")
    terminal.press("Enter")
    terminal.shows("您好", t("consult.reasoning"), t("consult.demonstration"), "tok/s")
    engines = psutil.Process(terminal.pid).children()
    assert len(engines) == 1
    terminal.press("C-q")
    terminal.until(lambda: terminal.ended == "0")
    assert "Traceback" not in terminal.screen
    assert not is_running(engines[0].pid)
    (turn,) = turns()
    assert turn.question == "你好" and turn.state is State.DONE and "您好" in turn.answer
    terminal.start_again()
    terminal.shows(t("consult.today"), "你好", t("welcome.title"))
    terminal.press("Up")
    terminal.shows("> 你好")
    terminal.press("C-q")
    terminal.until(lambda: terminal.ended == "0")


@pytest.mark.parametrize("terminal", [RAMBLING], indirect=True)
def test_a_program_killed_in_mid_answer_keeps_what_had_come(terminal: Terminal) -> None:
    terminal.shows(t("consult.placeholder"))
    terminal.type("最近总是头晕")
    terminal.press("Enter")
    # What has come is kept twice a second.
    terminal.until(lambda: any(turn.answer for turn in turns()))
    (engine,) = psutil.Process(terminal.pid).children()
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.until(lambda: terminal.ended)
    terminal.until(lambda: not is_running(engine.pid))
    terminal.start_again()
    terminal.shows("最近总是头晕", t("welcome.title"))
    terminal.press("C-l")
    terminal.until(lambda: t("consult.today") not in terminal.screen)
    terminal.press("C-l")
    terminal.shows(t("consult.today"))
    terminal.press("Home", "Enter")
    terminal.shows(t("consult.state_interrupted"))
    (turn,) = turns()
    assert turn.state is State.INTERRUPTED and turn.answer
    terminal.press("C-g")
    terminal.until(lambda: t("consult.state_interrupted") not in terminal.screen)
    terminal.press("Escape")
    terminal.shows(t("consult.state_cancelled"))
    assert turns()[0].answer.startswith(turn.answer)


def test_settings_that_cannot_be_read_are_told_and_left_alone(tmp_path: Path) -> None:
    paths.settings_file().write_text("theme = [oops", "utf8")
    terminal = Terminal(tmp_path)
    try:
        terminal.shows("settings.toml")
        terminal.press("F4", "C-q")
        terminal.until(lambda: terminal.ended == "0")
        assert paths.settings_file().read_text("utf8") == "theme = [oops"
    finally:
        terminal.close()
