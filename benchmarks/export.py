"""Merging and exporting, against the reading and writing of the files and against the tools it is made of."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.machine import Bench
from benchmarks.report import Row, Target, compare

NEEDED = ("torch", "transformers", "peft")
WAYS = ("copy", "merge", "peft", "export", "tools")
GIB = 2**30


def measure(bench: Bench) -> list[Row]:
    """All rows of this group; none where the packages are not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        bench.note(f"export is not measured: {', '.join(missing)} not installed")
        return []
    folder = bench.home / "exporting"
    try:
        bench.run(sys.executable, "-m", "benchmarks.children.random_base", str(folder))
        base = sum(path.stat().st_size for path in (folder / "base").glob("*.safetensors"))
        sides = {way: functools.partial(_way, bench, folder, way) for way in WAYS}
        taken = bench.rounds_of("export", sides)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    copied, merged, peft, exported, tools = ([told["s"] for told in taken[way]] for way in WAYS)
    peak = statistics.median(told["peak"] for told in taken["merge"]) / GIB
    of_peft = statistics.median(told["peak"] for told in taken["peft"]) / GIB
    size = base / GIB
    return [
        compare(
            f"merge of a LoRA into {size:.2f} GiB of bf16", "s", merged, "reading and writing the files",
            copied, Target("at most", 1.3),
        ),
        compare("the same", "s", merged, "PEFT's merge_and_unload, saved", peft),
        Row(
            "the same, peak memory with mapped files", peak, "GiB", of_peft, "PEFT",
            target=Target("at most", size + 2, of="ours"),
        ),
        compare(
            "adapter to Q4_K_M, without the proof", "s", exported,
            "PEFT, convert_hf_to_gguf.py, llama.cpp's quantiser", tools, Target("at most", 1.1),
        ),
    ]  # fmt: skip


def _way(bench: Bench, folder: Path, way: str) -> dict[str, float]:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    told = bench.run(sys.executable, "-m", "benchmarks.children.exporting", way, str(folder), str(out))
    read: dict[str, float] = json.loads(told.splitlines()[-1])
    return read
