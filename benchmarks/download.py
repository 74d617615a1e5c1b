"""How fast a download is, against the hub's own client library that fetches the same files from the same
server on loopback."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import Bench
from benchmarks.report import Row, Target, compare
from tests.hub_server import HubServer, serving

BYTES = 1_000_000_000
"""Of the weights."""

SMALL = {
    "README.md": 20_000,
    "config.json": 900,
    "tokenizer_config.json": 10_000,
    "tokenizer.json": 3_000_000,
}
"""Bytes of the files beside them."""

REPO = "bench/model"
WEIGHTS = "model-Q4_K_M.gguf"

FAST_ENOUGH = Target("at least", 0.95)


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    with tempfile.TemporaryDirectory(dir=bench.home) as name, serving() as hub:
        folder = Path(name)
        weights = folder / "weights.gguf"
        with weights.open("wb") as file:
            file.truncate(BYTES)
        small = {path: os.urandom(size) for path, size in SMALL.items()}
        files = hub.add(REPO, {WEIGHTS: weights, **small}).files
        for content in files.values():
            # Hashed now, so that no request waits for it.
            _ = content.sha256
        return _rows(bench, hub, folder / "fetched", {path: content.size for path, content in files.items()})


def _rows(bench: Bench, hub: HubServer, folder: Path, sizes: dict[str, int]) -> list[Row]:
    environment = hub.environment(bench.home) | {
        "DRKUN_HOME": str(folder),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    child = (sys.executable, "-m", "benchmarks.children.download")
    megabytes = sum(sizes.values()) / 1e6

    def fetch(*command: str) -> tuple[float, bytes]:
        """Fetch into nothing; the seconds of the whole process, and what it said."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        began = time.monotonic()
        told = bench.run(*command, **environment)
        seconds = time.monotonic() - began
        there = folder / "models" / REPO
        if any((there / path).stat().st_size != size for path, size in sizes.items()):
            raise RuntimeError(f"{command[2]} has not fetched everything")
        return seconds, told

    def inside(how: str, hub: str) -> float:
        return megabytes / float(json.loads(fetch(*child, how, hub, REPO, str(folder))[1]))

    def outside(*command: str) -> float:
        return megabytes / fetch(*command)[0]

    pull = (sys.executable, "-m", "drkun_tui", "pull", REPO, "--include", "*", "--yes")
    sides = {
        "job": lambda: inside("job", "hf"),
        "client": lambda: inside("client", "hf"),
        "drkun pull": lambda: outside(*pull),
        "client's process": lambda: outside(*child, "client", "hf", REPO, str(folder)),
        "job, ModelScope": lambda: inside("job", "modelscope"),
        "client, ModelScope": lambda: inside("client", "modelscope"),
    }
    speeds = bench.rounds_of("download", sides)
    name, other = f"download of {len(sizes)} files, {megabytes:,.0f} MB", "huggingface_hub"
    return [
        compare(f"{name}, verified", "MB/s", speeds["job"], other, speeds["client"], FAST_ENOUGH),
        compare(
            f"{name}, whole `drkun pull`", "MB/s", speeds["drkun pull"], other, speeds["client's process"]
        ),
        compare(
            f"{name}, verified, from ModelScope",
            "MB/s",
            speeds["job, ModelScope"],
            "modelscope_hub",
            speeds["client, ModelScope"],
            FAST_ENOUGH,
        ),
    ]
