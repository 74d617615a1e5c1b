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
GIB = 2**30


def measure(bench: Bench) -> list[Row]:
    """All rows of this group; none where the packages are not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        bench.note(f"export is not measured: {', '.join(missing)} not installed")
        return []
    large, small = bench.home / "merging", bench.home / "exporting"
    try:
        bench.run(sys.executable, "-m", "benchmarks.children.random_files", str(large))
        rows = _of_files(bench, large)
    finally:
        shutil.rmtree(large, ignore_errors=True)
    try:
        bench.run(sys.executable, "-m", "benchmarks.children.random_base", str(small))
        return [*rows, *_of_tools(bench, small)]
    finally:
        shutil.rmtree(small, ignore_errors=True)


def _of_files(bench: Bench, folder: Path) -> list[Row]:
    """The merge against the reading and writing of its files, at the size that people merge."""
    sides = {way: functools.partial(_way, bench, folder, way) for way in ("copy", "merge")}
    taken = bench.rounds_of("merge", sides)
    copied, merged = ([told["s"] for told in taken[way]] for way in sides)
    peak = statistics.median(told["peak"] for told in taken["merge"]) / GIB
    size = _size(folder) / GIB
    return [
        compare(
            f"merge of a LoRA into {size:.1f} GiB of bf16, from disk to disk", "s", merged,
            "reading and writing the files", copied, Target("at most", 1.3),
        ),
        Row("the same, peak memory", peak, "GiB", target=Target("at most", size + 2, of="ours")),
    ]  # fmt: skip


def _of_tools(bench: Bench, folder: Path) -> list[Row]:
    """The merge and the whole export against the tools that people would use instead."""
    ways = ("merge", "peft", "export", "tools", "plain", "own")
    sides = {way: functools.partial(_way, bench, folder, way) for way in ways}
    taken = bench.rounds_of("export", sides)
    merged, peft, exported, tools, plain, own = ([told["s"] for told in taken[way]] for way in sides)
    peak, of_peft = (
        statistics.median(told["peak"] for told in taken[way]) / GIB for way in ("merge", "peft")
    )
    return [
        compare(
            f"merge into {_size(folder) / GIB:.2f} GiB, from disk to disk", "s", merged,
            "PEFT's merge_and_unload, saved", peft,
        ),
        Row("the same, peak memory", peak, "GiB", of_peft, "PEFT"),
        compare(
            "adapter to Q4_K_M, without the proof", "s", exported,
            "PEFT, convert_hf_to_gguf.py, llama.cpp's quantiser", tools,
        ),
        compare(
            "the base alone to Q4_K_M, without the proof", "s", plain,
            "convert_hf_to_gguf.py, llama.cpp's quantiser", own, Target("at most", 1.1),
        ),
    ]  # fmt: skip


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "base").glob("*.safetensors"))


def _way(bench: Bench, folder: Path, way: str) -> dict[str, float]:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    told = bench.run(sys.executable, "-m", "benchmarks.children.exporting", way, str(folder), str(out))
    read: dict[str, float] = json.loads(told.splitlines()[-1])
    return read
