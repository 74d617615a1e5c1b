"""Jobs by their ids on the command line: which is meant, and what is asked before one is forgotten. That each
kind stops, the tests of the kinds show."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import msgspec
import pytest

from drkun_tui.evaluation.evaluations import ORDER
from drkun_tui.evaluation.protocol import Order
from drkun_tui.publishing.protocol import REQUEST, Request
from drkun_tui.settings import Settings
from tests.conftest import PATIENCE_S
from tests.test_cli import DRKUN, run


@pytest.fixture
def two(home: Path) -> None:
    """An export and an evaluation that were made in the same second and never began."""
    export, evaluation = home / "exports/20261201-120000-aaaaaa", home / "evaluations/20261201-120000-bbbbbb"
    for folder in (export, evaluation):
        folder.mkdir(parents=True)
    request = Request(model="m", base="/b", base_name="b", target="Q8_0", folder="/f", name="n")
    (export / REQUEST).write_bytes(msgspec.json.encode(request))
    order = Order(suite="/s", settings=Settings())
    (evaluation / ORDER).write_bytes(msgspec.json.encode(order))


@pytest.mark.usefixtures("two")
def test_a_job_is_found_whatever_its_kind() -> None:
    for end, kind in (("aaaaaa", "export"), ("bbbbbb", "evaluation")):
        told = {"kind": kind, "id": f"20261201-120000-{end}", "phase": "stopped"}
        assert run("stop", end, "--json").json == told


@pytest.mark.usefixtures("two")
def test_none_is_stopped_where_two_may_be_meant() -> None:
    done = run("stop", "20261201", "--json")
    assert (done.code, done.json["error"]["kind"]) == (2, "ambiguous")
    assert "aaaaaa" in done.err and "bbbbbb" in done.err


def test_what_is_not_there_is_one_line() -> None:
    done = run("stop", "nothing", "--json")
    assert (done.code, done.json["error"]["kind"]) == (2, "no_job")


@pytest.mark.usefixtures("two")
def test_before_an_evaluation_is_forgotten_a_terminal_is_asked(home: Path) -> None:
    for answer, removed in ((b"n\n", False), (b"y\n", True)):
        main, other = pty.openpty()
        words = [*DRKUN, "eval", "--remove", "bbbbbb"]
        with subprocess.Popen(words, stdin=other, stdout=subprocess.DEVNULL, stderr=other) as process:
            os.close(other)
            told = b""
            while b"[y/N]" not in told:
                told += os.read(main, 1024)
            os.write(main, answer)
            assert process.wait(PATIENCE_S) == 0
        os.close(main)
        assert (home / "evaluations/20261201-120000-bbbbbb").exists() is not removed
