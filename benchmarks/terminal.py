"""A real terminal: a program in a tmux pane of its own server, driven by keys and read as a person would."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.machine import ROOT

COLUMNS, ROWS = 120, 36

_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|P[^\x1b]*\x1b\\|[()][0-9A-Z]|[=>78cM])"
)
_numbers = itertools.count(1)


class Terminal:
    """One program in one pane.

    The pane's shell waits until the clock is running, then becomes the program, so the time that
    tmux takes to open a pane is not counted. Every byte that the program writes is stamped with
    the time at which it arrived.

    Args:
        command: the program and its arguments.
        environment: its whole environment.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        server = f"drkun-bench-{os.getpid()}-{next(_numbers)}"
        self._tmux_command = ("tmux", "-L", server, "-f", "/dev/null", "-u")
        self._written = ""
        self._stamps: list[tuple[int, float]] = []
        """Length of what was written so far, and when."""
        self._arrived = threading.Condition()
        self.began = 0.0
        """When the program was started, by `time.perf_counter`."""

    def __enter__(self) -> Terminal:
        self._folder = tempfile.TemporaryDirectory(prefix="drkun-terminal-")
        # The server's socket lives and goes with the folder.
        self._environment["TMUX_TMPDIR"] = self._folder.name
        gate, out = Path(self._folder.name) / "gate", Path(self._folder.name) / "out"
        os.mkfifo(gate)
        os.mkfifo(out)
        waiting = ["sh", "-c", 'read -r _ <"$0"; exec "$@"', str(gate), *self._command]
        size = ("-x", str(COLUMNS), "-y", str(ROWS))
        # As a child of ours, not a daemon, so that its processor time is not taken for a stranger's.
        self._process = subprocess.Popen([*self._tmux_command, "-D"], env=self._environment)
        self._wait_for_server()
        options = ("set", "-g", "status", "off", ";", "set", "-g", "default-terminal", "tmux-256color", ";")
        self._tmux(*options, "new-session", "-d", *size, "-c", str(ROOT), *waiting)
        self._tmux("pipe-pane", "-O", f"exec cat >{shlex.quote(str(out))}")
        threading.Thread(target=self._read, args=(out,), daemon=True).start()
        with gate.open("w") as opened:
            self.began = time.perf_counter()
            opened.write("\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self._last_sight(), file=sys.stderr)
        self._tmux("kill-server", check=False)
        self._process.wait()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The program's process."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def screen(self) -> str:
        """What stands on the screen."""
        return self._tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Press keys, by their tmux names."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text."""
        self._tmux("send-keys", "-l", text)

    def first_seen(self, text: str, patience_s: float = 30.0) -> float:
        """Seconds from the program's start until it had written `text`."""
        until = time.monotonic() + patience_s
        with self._arrived:
            while text not in (plain := _CONTROL.sub("", self._written)):
                if not self._arrived.wait(until - time.monotonic()):
                    raise TimeoutError(f"{text!r} did not appear within {patience_s:.0f} s:\n{plain[-2000:]}")
            # Which of the chunks brought it?
            for length, moment in self._stamps:
                if text in _CONTROL.sub("", self._written[:length]):
                    return moment - self.began
        raise AssertionError(text)

    def wait_for(self, text: str, patience_s: float = 30.0) -> None:
        """Wait until `text` stands on the screen."""
        until = time.monotonic() + patience_s
        while text not in self.screen():
            if time.monotonic() > until:
                raise TimeoutError(f"{text!r} is not on the screen after {patience_s:.0f} s")
            time.sleep(0.05)

    def quit(self, key: str = "C-q", patience_s: float = 10.0) -> None:
        """Leave the program by its key, and wait until it has gone."""
        pid = self.pid
        self.press(key)
        until = time.monotonic() + patience_s
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            time.sleep(0.02)

    def _read(self, out: Path) -> None:
        import codecs

        decoder = codecs.getincrementaldecoder("utf8")("replace")
        with out.open("rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                now = time.perf_counter()
                with self._arrived:
                    self._written += decoder.decode(chunk)
                    self._stamps.append((len(self._written), now))
                    self._arrived.notify_all()

    def _wait_for_server(self) -> None:
        listing = [*self._tmux_command, "list-sessions"]  # does not start one
        until = time.monotonic() + 10
        while subprocess.run(listing, env=self._environment, capture_output=True, check=False).returncode:
            if time.monotonic() > until:
                raise TimeoutError("tmux does not start")
            time.sleep(0.01)

    def _last_sight(self) -> str:
        try:
            return self.screen()
        except subprocess.CalledProcessError:
            return _CONTROL.sub("", self._written)[-2000:]

    def _tmux(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self._tmux_command, *arguments],
            env=self._environment,
            check=check,
            capture_output=True,
            text=True,
            encoding="utf8",
        )
        return done.stdout
