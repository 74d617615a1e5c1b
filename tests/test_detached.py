"""Jobs that outlive whoever started them: their events, their state, their ends."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached, processes
from tests.conftest import PATIENCE_S, MakeChild, has_ended, wait_until

COUNTS = """
    import os, sys, time
    from pathlib import Path
    from drkun_tui.jobs.detached import RUNS_ALREADY, Reporter, RunsAlreadyError

    folder = Path(sys.argv[1])
    try:
        reporter = Reporter(folder)
    except RunsAlreadyError:
        sys.exit(RUNS_ALREADY)
    print("to the log", flush=True)
    reporter.state("counting")
    for number in range(3):
        reporter.event(b'{"number": %d}' % number)
    while not reporter.stop_requested:
        time.sleep(0.005)
    reporter.event(b'{"number": -1}')
    reporter.state("stopped")
"""


async def numbers(folder: Path, offset: int = 0) -> list[int]:
    """All numbers up to the job's end."""
    async with asyncio.timeout(PATIENCE_S):
        return [event["number"] async for event, _ in detached.follow(folder, json.loads, offset)]


def alive(folder: Path) -> bool:
    now = detached.state(folder)
    return now is not None and now.alive


def kill(folder: Path) -> int:
    now = detached.state(folder)
    assert now is not None
    pid = int(now.process.split()[0])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid))
    return pid


async def test_a_job_is_started_followed_and_stopped(home: Path, child: MakeChild) -> None:
    folder = detached.new_folder(home / "jobs")
    assert detached.state(folder) is None
    await detached.start(child(COUNTS), folder)
    assert alive(folder)
    following = asyncio.ensure_future(numbers(folder))
    await detached.stop(folder)
    assert await following == [0, 1, 2, -1]
    now = detached.state(folder)
    assert now is not None
    assert (now.phase, now.error, now.alive) == ("stopped", {}, False)
    assert (folder / detached.LOG).read_text() == "to the log\n"
    assert detached.folders(home / "jobs") == [folder]
    detached.remove(folder)
    assert detached.folders(home / "jobs") == []


async def test_it_goes_on_when_whoever_started_it_is_gone(home: Path, child: MakeChild) -> None:
    folder = detached.new_folder(home / "jobs")
    starter = f"""
        import asyncio, sys
        from pathlib import Path
        from drkun_tui.jobs import detached
        asyncio.run(detached.start({child(COUNTS)!r}, Path(sys.argv[1])))
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", child(starter), str(folder)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert alive(folder)
    await detached.stop(folder)
    assert await numbers(folder) == [0, 1, 2, -1]


async def test_a_killed_job_is_dead_and_can_be_started_again(home: Path, child: MakeChild) -> None:
    folder = detached.new_folder(home / "jobs")
    module = child(COUNTS)
    await detached.start(module, folder)
    first = kill(folder)
    assert not alive(folder)
    assert detached.state(folder).phase == "counting"  # type: ignore[union-attr]
    assert await numbers(folder) == [0, 1, 2]
    await detached.start(module, folder)
    assert alive(folder)
    assert not detached.state(folder).process.startswith(f"{first} ")  # type: ignore[union-attr]
    await detached.stop(folder)
    assert await numbers(folder) == [0, 1, 2, 0, 1, 2, -1]


async def test_a_recycled_process_id_is_not_mistaken_for_the_job(home: Path, child: MakeChild) -> None:
    folder = detached.new_folder(home / "jobs")
    await detached.start(child(COUNTS), folder)
    kill(folder)
    state = json.loads((folder / "state.json").read_text())
    _, _, start = state["process"].partition(" ")
    # This process is alive, and began at another time.
    (folder / "state.json").write_text(json.dumps(state | {"process": f"{os.getpid()} {start}"}))
    assert not alive(folder)
    (folder / "state.json").write_text(json.dumps(state | {"process": processes.signature(os.getpid())}))
    assert alive(folder)


async def test_a_job_that_is_about_to_go_is_started_again(child: MakeChild, home: Path) -> None:
    """A trainer takes a moment to leave after it has said that it stopped."""
    source = """
        import sys, time
        from pathlib import Path
        from drkun_tui.jobs.detached import Reporter
        Reporter(Path(sys.argv[1])).state("stopped")
        time.sleep(2)
    """
    folder, module = detached.new_folder(home / "jobs"), child(source)
    await detached.start(module, folder)
    first = detached.state(folder)
    await detached.start(module, folder)
    assert detached.state(folder) == first
    await detached.start(module, folder, {"stopped"})
    again = detached.state(folder)
    assert first is not None and again is not None
    assert (first.alive, again.process != first.process) == (False, True)


async def test_two_who_start_it_at_once_start_it_once(home: Path, child: MakeChild) -> None:
    folder = detached.new_folder(home / "jobs")
    module = child(COUNTS)
    await asyncio.gather(*(detached.start(module, folder) for _ in range(4)))

    def running() -> list[psutil.Process]:
        children = psutil.Process().children()
        return [one for one in children if not has_ended(one.pid) and str(folder) in one.cmdline()]

    wait_until(lambda: len(running()) == 1)
    await detached.stop(folder)
    assert await numbers(folder) == [0, 1, 2, -1]


async def test_a_torn_line_is_no_event_and_spoils_none(home: Path, child: MakeChild) -> None:
    folder = detached.new_folder(home / "jobs")
    module = child(COUNTS)
    await detached.start(module, folder)
    kill(folder)
    with (folder / "events.jsonl").open("ab") as events:
        events.write(b'{"number": 7')
    assert await numbers(folder) == [0, 1, 2]
    newest, offset = detached.last_events(folder, json.loads)
    assert newest[-1] == {"number": 2}
    await detached.start(module, folder)
    await detached.stop(folder)
    assert await numbers(folder) == [0, 1, 2, 0, 1, 2, -1]
    assert await numbers(folder, offset) == [0, 1, 2, -1]
    assert [event["number"] for event in detached.events(folder, json.loads)] == [0, 1, 2, 0, 1, 2, -1]


async def test_the_newest_events_of_a_long_history(home: Path) -> None:
    folder = detached.new_folder(home / "jobs")
    lines = b"".join(b'{"number": %d}\n' % number for number in range(20_000))
    (folder / "events.jsonl").write_bytes(lines)
    newest, offset = detached.last_events(folder, json.loads)
    assert 100 < len(newest) < 20_000
    assert newest[-1] == {"number": 19_999}
    assert offset == len(lines)


def test_a_stop_is_for_the_process_that_it_was_asked_of(home: Path) -> None:
    folder = detached.new_folder(home / "jobs")
    detached.request_stop(folder)
    reporter = detached.Reporter(folder)
    assert not reporter.stop_requested
    detached.request_stop(folder)
    assert reporter.stop_requested


async def test_a_deaf_job_is_killed(home: Path, child: MakeChild) -> None:
    folder = detached.new_folder(home / "jobs")
    source = """
        import sys, time
        from pathlib import Path
        from drkun_tui.jobs.detached import Reporter
        Reporter(Path(sys.argv[1])).state("deaf")
        time.sleep(3600)
    """
    await detached.start(child(source), folder)
    await detached.stop(folder, patience_s=0.05)
    assert not alive(folder)


@pytest.mark.parametrize(
    ("source", "reason"),
    [("raise RuntimeError('no such thing')", "no such thing"), ("import sys; sys.exit(3)", "exit code 3")],
)
async def test_a_job_that_cannot_begin_is_an_error(
    home: Path, child: MakeChild, source: str, reason: str
) -> None:
    with pytest.raises(DrkunError) as told:
        await detached.start(child(source), detached.new_folder(home / "jobs"))
    assert told.value.kind == "job_start_failed"
    assert reason in told.value.message


async def test_a_folder_that_is_gone_is_an_error(home: Path) -> None:
    with pytest.raises(DrkunError) as told:
        await detached.start("json", home / "nothing")
    assert told.value.kind == "job_start_failed"


def test_a_file_is_replaced_whole_or_not_at_all(home: Path) -> None:
    path = home / "state.json"
    detached.write_whole(path, b"old")
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=r"state\.json"):
        detached.write_whole(path, b"new")
    assert [entry.name for entry in home.iterdir()] == ["state.json"]


def test_processes_are_told_apart_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("psutil")  # It looks at the platform itself when it is imported.
    monkeypatch.setattr(sys, "platform", "darwin")
    processes.signature.cache_clear()
    assert processes.is_alive(processes.signature(os.getpid()))
    assert not processes.is_alive("999999999 1")
    processes.signature.cache_clear()
