"""Child processes: their events, their ends, and that none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from drkun_tui.engine import client, protocol
from drkun_tui.engine.protocol import Event, Failed, Finished, Generate, Load, Loading, Ready
from drkun_tui.jobs import Job, ended_by
from drkun_tui.paths import starter
from tests.conftest import GREEDY, LONG, PATIENCE_S, MakeChild, has_ended, user, wait_until

ECHO = """
import sys
for line in sys.stdin:
    print("heard", line.strip(), flush=True)
sys.exit(3)
"""


def job(module: str, home: Path, *args: str) -> Job[str]:
    return Job(module, lambda line: line.decode().strip(), home / "child.log", args)


def state(job: Job[str]) -> tuple[bool, bool, int | None]:
    return job.running, job.pid is not None, job.exit_code


async def test_events_come_in_order_and_the_exit_code_is_known_at_the_end(
    home: Path, child: MakeChild
) -> None:
    source = """
        import sys
        print(*sys.argv[1:], sep="\\n")
        print("to the log", file=sys.stderr)
        sys.exit(7)
    """
    started = job(child(source), home, "one", "头晕")
    assert state(started) == (False, False, None)
    await started.start()
    assert state(started) == (True, True, None)
    assert [await started.next_event() for _ in range(4)] == ["one", "头晕", None, None]
    assert state(started) == (False, False, 7)
    assert not started.crashed
    assert (home / "child.log").read_text() == "to the log\n"


async def test_the_log_holds_the_newest_run_only(home: Path, child: MakeChild) -> None:
    for word in ("first", "second"):
        started = job(child(f"import sys; print({word!r}, file=sys.stderr)"), home)
        await started.start()
        assert await started.next_event() is None
        assert started.last_words() == f"{word}\n"
    assert (home / "child.log").read_text() == "second\n"


async def test_a_log_that_cannot_be_written_does_not_keep_the_child_from_running(
    home: Path, child: MakeChild
) -> None:
    """What stands in it is not this child's."""
    log = home / "missing" / "child.log"
    started = Job(child("import sys; print('runs'); print('unheard', file=sys.stderr)"), bytes.decode, log)
    await started.start()
    log.parent.mkdir()
    log.write_text("another's")
    assert [await started.next_event() for _ in range(2)] == ["runs\n", None]
    assert (started.exit_code, started.last_words()) == (0, "")


async def test_a_job_that_was_never_started_has_no_events(home: Path) -> None:
    idle = job("json", home)
    idle.send(b"{}")
    assert await idle.next_event() is None
    await idle.close()
    assert idle.exit_code is None


async def test_a_cancelled_wait_loses_nothing(home: Path, child: MakeChild) -> None:
    """Also when half a line has come."""
    source = """
        import sys
        for line in sys.stdin:
            print(line.strip(), end="" if line.startswith("half") else "\\n", flush=True)
    """
    started = job(child(source), home)
    await started.start()
    started.send(b"begun")
    assert await started.next_event() == "begun"
    for sent in (b"", b"half a line, "):
        waiting = asyncio.ensure_future(started.next_event())
        if sent:
            started.send(sent)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    started.send(b"and the rest")
    assert await started.next_event() == "half a line,and the rest"
    await started.close()
    assert started.exit_code == 0


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_start_that_is_cancelled_leaves_no_child_behind(
    home: Path, child: MakeChild, turns: int
) -> None:
    """After so many turns of the event loop."""
    module = child(ECHO)
    started = job(module, home)
    starting = asyncio.ensure_future(started.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await started.close()
    assert not started.running

    def runs(process: psutil.Process) -> bool:
        # Of another test's child there may be remains.
        return process.status() != psutil.STATUS_ZOMBIE and module in process.cmdline()

    def gone() -> bool:
        return not any(map(runs, psutil.Process().children()))

    wait_until(gone)


@pytest.mark.parametrize(
    ("ending", "code", "crashed", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, False, "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, False, "SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, True, "SIGSEGV"),
        ("os.abort()", -signal.SIGABRT, True, "SIGABRT"),
        ("sys.exit(1)", 1, False, "exit code 1"),
    ],
)
async def test_how_a_child_ended(
    home: Path, child: MakeChild, ending: str, code: int, crashed: bool, said: str
) -> None:
    """A line torn by its death is no event."""
    source = f"import os, signal, sys; print('last'); print('to', end='', flush=True); {ending}"
    started = job(child(source), home)
    await started.start()
    assert await started.next_event() == "last"
    assert await started.next_event() is None
    assert (started.exit_code, started.crashed) == (code, crashed)
    assert ended_by(started.exit_code) == said
    started.send(b"too late")
    await started.close()
    assert started.exit_code == code


def test_a_code_that_names_no_signal() -> None:
    assert ended_by(-1000) == "exit code -1000"


async def test_close_lets_a_child_go_by_itself(home: Path, child: MakeChild) -> None:
    started = job(child(ECHO), home)
    await started.start()
    started.send("头晕".encode())
    assert await started.next_event() == "heard 头晕"
    await started.close(patience_s=60)
    assert started.exit_code == 3
    await started.close()


async def test_close_kills_a_child_that_ignores_the_end_of_its_input(home: Path, child: MakeChild) -> None:
    source = """
        import signal
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        print("deaf", flush=True)
        while True:
            signal.pause()
    """
    started = job(child(source), home)
    await started.start()
    assert await started.next_event() == "deaf"
    await started.close(patience_s=0.05)
    assert started.exit_code == -signal.SIGKILL
    assert await started.next_event() is None


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_asks_while_it_is_closed_hears_of_its_end(
    home: Path, child: MakeChild, turns: int
) -> None:
    """After so many turns of the event loop."""
    started = job(child("import sys; sys.stdin.read(); print('last words')"), home)
    await started.start()
    closing = asyncio.ensure_future(started.close(PATIENCE_S))
    for _ in range(turns):
        await asyncio.sleep(0)
    asked = [asyncio.ensure_future(started.next_event()) for _ in range(min(turns, 1))]
    await closing
    assert [await each for each in asked] == [None] * len(asked)
    assert await started.next_event() is None
    assert started.exit_code == 0


async def test_a_close_that_is_cancelled_kills_the_child(home: Path, child: MakeChild) -> None:
    started = job(child("import time; time.sleep(600)"), home)
    await started.start()
    pid = started.pid
    assert pid
    closing = asyncio.ensure_future(started.close(PATIENCE_S))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.to_thread(wait_until, lambda: has_ended(pid))


async def test_close_ends_a_child_that_nobody_reads(home: Path, child: MakeChild) -> None:
    """Its pipe is full, so it hangs in the middle of a line."""
    source = """
        import sys
        while True:
            sys.stdout.write("x" * 100_000 + "\\n")
    """
    started = job(child(source), home)
    await started.start()
    assert await started.next_event() == "x" * 100_000
    await started.close(patience_s=0.05)
    assert not started.running


async def test_long_lines_arrive_whole(home: Path, child: MakeChild) -> None:
    started = job(child("print('晕' * 1_000_000)"), home)
    await started.start()
    assert [await started.next_event() for _ in range(2)] == ["晕" * 1_000_000, None]


async def test_a_child_hears_nothing_of_ctrl_c_in_the_terminal(home: Path, child: MakeChild) -> None:
    """The terminal sends it to the group of the program in front, to which the child does not belong."""
    started = job(child(ECHO), home)
    await started.start()
    assert started.pid
    assert os.getpgid(started.pid) != os.getpgid(0)
    await started.close()


async def test_a_child_that_cannot_be_started_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(home / "nothing"))
    with pytest.raises(OSError, match="nothing"):
        await job("json", home).start()


NOISY_HOST = """
    import ctypes
    import os

    from drkun_tui.engine import host, llama_cpp

    libc = ctypes.CDLL(None)

    def noise():
        os.write(1, b"native noise, no JSON\\n")
        print("printed noise", flush=True)
        libc.puts(b"libc noise")
        libc.fflush(None)

    class Noisy(llama_cpp.LlamaCpp):
        def load(self, request, emit):
            noise()
            return super().load(request, emit)

        def prepare(self, request):
            noise()
            return super().prepare(request)

    llama_cpp.LlamaCpp = Noisy
    host.main()
"""


async def test_what_a_library_prints_does_not_reach_the_events(home: Path, child: MakeChild) -> None:
    started: Job[Event] = Job(child(NOISY_HOST), protocol.decode_event, home / "engine.log")
    await started.start()
    started.send(protocol.encode(Load(path=str(starter()), context_length=512, threads=1, safe_mode=True)))
    started.send(protocol.encode(Generate(id=1, messages=user("你好"), sampling=GREEDY)))
    events = []
    while not isinstance(event := await started.next_event(), Finished | None):
        events.append(event)
    assert isinstance(event, Finished)
    assert any(isinstance(event, Ready) for event in events)
    assert not any(isinstance(event, Failed) for event in events)
    await started.close(patience_s=60)
    log = (home / "engine.log").read_text("utf8", "replace")
    for noise in ("native noise", "printed noise", "libc noise"):
        assert log.count(noise) == 2


PARENT = """
    import asyncio, sys
    from pathlib import Path
    from drkun_tui.jobs import Job
    from drkun_tui.engine import protocol

    async def main():
        job = Job("drkun_tui.engine.host", protocol.decode_event, Path(sys.argv[1]))
        await job.start()
        if len(sys.argv) > 2:
            job.send(sys.argv[2].encode())
            job.send(sys.argv[3].encode())
            while not isinstance(await job.next_event(), protocol.Delta):
                pass
        print(job.pid, flush=True)
        await asyncio.sleep(3600)

    asyncio.run(main())
"""


@pytest.mark.parametrize("busy", [False, True])
def test_the_engine_ends_when_the_interface_is_killed(home: Path, child: MakeChild, busy: bool) -> None:
    """Also in the middle of an answer."""
    requests = []
    if busy:
        load = Load(path=str(starter()), context_length=2048, threads=1, safe_mode=True)
        requests = [load, Generate(id=1, messages=user("你好"), sampling=LONG)]
    parent = subprocess.Popen(
        [
            *(sys.executable, "-m", child(PARENT), str(home / "engine.log")),
            *(protocol.encode(request).decode() for request in requests),
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout
    engine = int(parent.stdout.readline())
    assert not has_ended(engine)
    parent.kill()
    parent.communicate()
    wait_until(lambda: has_ended(engine))


async def test_a_request_that_cannot_be_read_ends_the_engine(home: Path) -> None:
    """A process that no longer listened would never learn that the interface is gone."""
    started: Job[Event] = Job(client.HOST, protocol.decode_event, home / "engine.log")
    await started.start()
    started.send(b"no JSON")
    assert await started.next_event() is None
    assert not started.running


async def test_a_generation_before_any_load_is_refused(home: Path) -> None:
    started: Job[Event] = Job(client.HOST, protocol.decode_event, home / "engine.log")
    await started.start()
    started.send(protocol.encode(Generate(id=4, messages=user("你好"))))
    assert await started.next_event() == Failed(kind="no_model", id=4)
    started.send(protocol.encode(Load(path="/nothing.gguf", context_length=512, threads=1)))
    assert await started.next_event() == Loading("start", 0.0)
    await started.close()
