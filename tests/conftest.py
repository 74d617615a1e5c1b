"""What the tests share: a data folder of their own, the engine process, and variants of the bundled model."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import queue
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil  # type: ignore[import-untyped]
import pytest

from drkun_tui import i18n, paths
from drkun_tui.engine import client, protocol, safe_mode
from drkun_tui.engine.protocol import (
    AdapterSet,
    ChatMessage,
    Delta,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Partial,
    Ready,
    Request,
    SetAdapter,
    Started,
)
from drkun_tui.sampling import Sampling

# Whoever starts the tests in the background may have Ctrl+C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What tests the GPU engine needs torch, which is installed only where a CPU build of it is at hand.
_NEED_TORCH = ["test_transformers.py", "test_transformers_batch.py", "test_gpu.py"]
collect_ignore = [] if importlib.util.find_spec("torch") else _NEED_TORCH

PATIENCE_S = 300
"""A test that waits longer has hung."""
EVENT_TYPES = {"loading", "ready", "started", "delta", "finished", "failed", "adapter_set", "scored"}

GREEDY = Sampling(temperature=0)
LONG = Sampling(temperature=0, repeat_penalty=0.5, max_tokens=0)
"""Rewards repetition, so that the answer goes round in circles until the context is full."""


STORE_VARIABLES = (
    *("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
    *("MODELSCOPE_CACHE", "OLLAMA_MODELS"),
)
"""Where other programs keep their models on the machine of whoever runs the tests."""


@pytest.fixture(autouse=True)
def user_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of the user's, with no other program's models anywhere."""
    folder = tmp_path_factory.mktemp("user")
    monkeypatch.setenv("HOME", str(folder))
    for name in STORE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    # Without it the folder of a system-wide service would be looked into, too.
    monkeypatch.setenv("OLLAMA_MODELS", str(folder / ".ollama" / "models"))
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, in the environment of child processes too; texts are Chinese."""
    monkeypatch.setenv("DRKUN_HOME", str(tmp_path))
    i18n.set_language("zh")
    return tmp_path


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage does not look at child processes. Other tests have their lines run, and one that imports
    PyTorch takes half as long again when it is looked at."""
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def measured_by_itself(request: pytest.FixtureRequest) -> None:
    """What the interface starts is measured where it is tested by itself."""
    if request.path.name.startswith("test_ui"):
        request.getfixturevalue("unmeasured")


@pytest.fixture
def known_machine(home: Path) -> None:
    """Safe mode is remembered, so that loading does not begin with a crash where machines do crash."""
    safe_mode.remember(paths.machine_file())


class MakeChild(Protocol):
    """Makes a module that ``python -m`` finds, and returns its name."""

    def __call__(self, source: str) -> str: ...


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeChild:
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def make(source: str) -> str:
        name = f"child_{len(list(folder.iterdir()))}"
        (folder / f"{name}.py").write_text(textwrap.dedent(source), "utf8")
        return name

    return make


def wait_until(true: Callable[[], bool]) -> None:
    """Look every few milliseconds, and less often at what takes long: it is given the processor meanwhile."""
    began = time.monotonic()
    while not true():
        waited = time.monotonic() - began
        if waited > PATIENCE_S:
            raise TimeoutError
        time.sleep(0.005 if waited < 1 else 0.03)


def sizes_in(folder: Path) -> set[int]:
    """Bytes of the files in a folder, some of which another process may rename meanwhile."""
    sizes = set()
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            sizes.add(path.stat().st_size)
    return sizes


def has_ended(pid: int) -> bool:
    """Is there no such process any more, or only its remains?"""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# The engine process


def user(*texts: str) -> list[ChatMessage]:
    """A conversation: question, answer, question, …"""
    return [ChatMessage("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)]


class Reply:
    """All that an engine process said to one request."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.thinking = self.answer = ""
        for delta in self.deltas:
            if delta.reclassify:
                self.thinking, self.answer = self.thinking + self.answer, ""
            self.thinking += delta.thinking
            self.answer += delta.answer

    @property
    def deltas(self) -> list[Delta]:
        return [event for event in self.events if isinstance(event, Delta)]

    @property
    def started(self) -> Started:
        return next(event for event in self.events if isinstance(event, Started))

    @property
    def finished(self) -> Finished:
        last = self.events[-1]
        assert isinstance(last, Finished), last
        return last

    @property
    def failed(self) -> Failed:
        last = self.events[-1]
        assert isinstance(last, Failed), last
        return last


class EngineProcess:
    """The engine process itself, spoken to over its pipes as the interface does."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", client.HOST],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.lines: list[bytes] = []
        self._coming: queue.Queue[bytes] = queue.Queue()
        self._numbers = 0
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._coming.put(line)
        self._coming.put(b"")

    def send(self, *requests: Request) -> None:
        """All in one write."""
        assert self.process.stdin
        self.process.stdin.write(b"".join(protocol.encode(request) + b"\n" for request in requests))
        self.process.stdin.flush()

    def event(self) -> Event:
        """The next event; its line is one JSON object that names its type."""
        line = self._coming.get(timeout=PATIENCE_S)
        assert line.endswith(b"\n"), "the engine process has ended"
        self.lines.append(line)
        assert json.loads(line)["type"] in EVENT_TYPES
        event: Event = protocol.decode_event(line)
        return event

    def until(self, *kinds: type) -> list[Event]:
        """Events up to one of these kinds."""
        events = [self.event()]
        while not isinstance(events[-1], kinds):
            events.append(self.event())
        return events

    def load(self, path: Path, context_length: int = 2048) -> list[Event]:
        # One thread: two that wait for each other are slow on a machine that has other work, too.
        self.send(Load(path=str(path), context_length=context_length, threads=1, safe_mode=True))
        return self.until(Ready, Failed)

    def set_adapter(self, path: Path | None, scale: float = 1.0) -> Event:
        self._numbers += 1
        self.send(SetAdapter(id=self._numbers, path=str(path) if path else None, scale=scale))
        return self.until(AdapterSet, Failed)[-1]

    def request(
        self,
        messages: list[ChatMessage],
        sampling: Sampling = GREEDY,
        *,
        think: bool = True,
        resume: Partial | None = None,
    ) -> Generate:
        self._numbers += 1
        return Generate(id=self._numbers, messages=messages, sampling=sampling, think=think, resume=resume)

    def ask(
        self,
        messages: list[ChatMessage],
        sampling: Sampling = GREEDY,
        *,
        think: bool = True,
        resume: Partial | None = None,
    ) -> Reply:
        """Ask, and wait for the end of the answer."""
        self.send(self.request(messages, sampling, think=think, resume=resume))
        return Reply(self.until(Finished, Failed))

    def settle(self) -> None:
        """Wait until it does nothing: its main thread sleeps, and goes on sleeping."""
        process = psutil.Process(self.process.pid)
        asleep = 0

        def idle() -> bool:
            nonlocal asleep
            asleep = asleep + 1 if process.status() == psutil.STATUS_SLEEPING else 0
            return asleep >= 5

        wait_until(idle)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """The engine process with the bundled model in it."""
    with EngineProcess(tmp_path_factory.mktemp("engine") / "engine.log") as process:
        assert isinstance(process.load(paths.starter())[-1], Ready)
        yield process


# Variants of the bundled model

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class _Gguf:
    """Reads as much of a GGUF as it takes to change its metadata."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 24
        self.tensor_count, entry_count = struct.unpack_from("<QQ", raw, 8)
        self.entries: dict[str, bytes] = {}
        for _ in range(entry_count):
            key = self._text()
            began = self.at
            self._skip(self._number("<I"))
            self.entries[key] = raw[began : self.at]
        began = self.at
        for _ in range(self.tensor_count):
            self._text()
            dimensions = self._number("<I")
            self.at += 8 * dimensions + 12
        self.tensors = raw[began : self.at]
        self.data = raw[self.at + -self.at % 32 :]

    def _number(self, form: str) -> int:
        value: int
        (value,) = struct.unpack_from(form, self.raw, self.at)
        self.at += struct.calcsize(form)
        return value

    def _text(self) -> str:
        length = self._number("<Q")
        self.at += length
        return self.raw[self.at - length : self.at].decode("utf8")

    def _skip(self, kind: int) -> None:
        if kind == 8:
            self._text()
        elif kind == 9:
            item, count = self._number("<I"), self._number("<Q")
            if item in _SIZES:
                self.at += _SIZES[item] * count
            else:
                for _ in range(count):
                    self._skip(item)
        else:
            self.at += _SIZES[kind]


def _entry(value: str | int) -> bytes:
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    raw = value.encode("utf8")
    return struct.pack("<IQ", 8, len(raw)) + raw


def starter_with(path: Path, **changes: str | int | None) -> Path:
    """A copy of the bundled model with other metadata; None leaves an entry out, ``__`` stands for a dot."""
    gguf = _Gguf(paths.starter().read_bytes())
    for name, value in changes.items():
        key = name.replace("__", ".")
        gguf.entries.pop(key, None)
        if value is not None:
            gguf.entries[key] = _entry(value)
    head = b"GGUF" + struct.pack("<IQQ", 3, gguf.tensor_count, len(gguf.entries))
    for key, entry in gguf.entries.items():
        head += struct.pack("<Q", len(key)) + key.encode() + entry
    head += gguf.tensors
    path.write_bytes(head + b"\0" * (-len(head) % 32) + gguf.data)
    return path
