"""What the tests of exporting and publishing share: the converters' source, an adapter trained for real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drkun_tui.jobs import detached
from drkun_tui.publishing import converters
from drkun_tui.settings import Settings
from drkun_tui.training import preflight, recipe
from drkun_tui.training.runs import Runs
from tests.conftest import wait_until
from tests.test_pull import drkun

ADAPTER = "drkun/taught"

RECIPE = f"""
preset = "starter-cpu"
[data]
path = "demo"
held_out_most = 3
[adapter]
rank = 4
name = "{ADAPTER}"
[training]
max_steps = 12
batch_size = 2
context_length = 256
learning_rate = 2e-3
warmup_steps = 0
"""


def source(cache: pytest.Cache) -> Path:
    """llama-cpp-python's source distribution, fetched once for all test runs."""
    folder = Path(str(cache.mkdir("llama-cpp-sdist")))
    name = f"llama_cpp_python-{converters.version()}.tar.gz"
    if not (folder / name).exists():
        pip = [sys.executable, "-m", "pip"] if shutil.which("pip") is None else ["pip"]
        wanted = f"{converters.PACKAGE}=={converters.version()}"
        subprocess.run(
            [
                *pip,
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                converters.PACKAGE,
                "-d",
                folder,
                wanted,
            ],
            check=False,
            capture_output=True,
        )
    if not (folder / name).exists():
        pytest.skip("llama-cpp-python's source distribution cannot be had")
    return folder / name


def train(home: Path) -> Path:
    """A data folder in which an adapter was trained on the bundled model; the adapter's folder."""
    os.environ["DRKUN_HOME"] = str(home)
    ready = preflight.check(recipe.parse(RECIPE), Settings())
    folder = Runs().root / asyncio.run(_begun(ready.recipe))

    def has_ended() -> bool:
        now = detached.state(folder)
        return now is not None and not now.alive

    for _ in range(5):
        with contextlib.suppress(TimeoutError):
            wait_until(has_ended)
            break
    adapter = preflight.adapter_folder(ADAPTER)
    assert adapter.exists(), (folder / detached.LOG).read_text()
    return adapter


async def _begun(made: recipe.Recipe) -> str:
    return (await Runs().start(made)).id


def exported(*words: str) -> dict[str, Any]:
    """The last event of ``drkun export``, which has gone well."""
    done = drkun("export", *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert last["type"] == "finished"
    return last


def refused(*words: str) -> dict[str, str]:
    """The error of a ``drkun export`` that fails with one line."""
    done = drkun("export", *words, "--json")
    assert done.returncode in (2, 3, 4), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    error: dict[str, str] = json.loads(done.stdout.splitlines()[-1])["error"]
    return error
