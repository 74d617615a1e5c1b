"""Jobs give way to the screen, within their session and with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from drkun_tui.jobs import Job, detached
from drkun_tui.jobs.priority import give_way
from tests.conftest import PATIENCE_S, MakeChild, wait_until
from tests.test_detached import COUNTS, kill

pytestmark = pytest.mark.skipif(not hasattr(os, "setpriority"), reason="no priorities")


def of_session(pid: int) -> str | None:
    """The nice value of its autogroup; None where the kernel has none."""
    try:
        return Path(f"/proc/{pid}/autogroup").read_text().split()[-1]
    except (OSError, IndexError):
        return None


@contextmanager
def waiting(*, own_session: bool) -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, start_new_session=own_session)
    try:
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def test_a_session_gives_way_with_its_leader() -> None:
    with waiting(own_session=True) as pid:
        before = of_session(pid)
        wait_until(lambda: give_way(pid, 7))
        assert psutil.Process(pid).nice() == 7
        assert of_session(pid) == (before and "7")


def test_the_session_of_somebody_else_is_left_alone() -> None:
    before = of_session(os.getpid())
    with waiting(own_session=False) as pid:
        assert give_way(pid, 7)
        assert psutil.Process(pid).nice() == 7
    assert of_session(os.getpid()) == before


def test_a_process_that_has_ended_has_nothing_to_give() -> None:
    with waiting(own_session=True) as pid:
        pass
    assert give_way(pid, 7)


def test_the_kernel_is_asked_again_where_it_was_asked_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_often(*_: object) -> int:
        raise BlockingIOError

    with waiting(own_session=True) as pid:
        monkeypatch.setattr(Path, "write_text", too_often)
        assert not give_way(pid, 7)


async def test_a_detached_job_gives_way(child: MakeChild, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    await detached.start(child(COUNTS), folder)
    now = detached.state(folder)
    assert now is not None
    pid = int(now.process.split()[0])
    assert psutil.Process(pid).nice() == detached.NICENESS
    assert of_session(pid) in (None, str(detached.NICENESS))
    kill(folder)


async def test_the_child_of_one_that_gives_way_does_too(
    child: MakeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(child("input()"), bytes.decode, tmp_path / "log")
    monkeypatch.setattr(os, "getpriority", lambda *_: 7)
    await job.start()
    assert job.pid is not None
    assert psutil.Process(job.pid).nice() == 7
    assert of_session(job.pid) in (None, "7")
    await job.close(PATIENCE_S)
