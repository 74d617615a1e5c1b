"""Reading and cleaning dialogues, against loops over the rows of the same files; and on to packed tokens."""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
import os
import random
import re
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.machine import Bench
from benchmarks.report import Row, Target, compare

SAMPLE = "DRKUN_BENCH_DIALOGUES"
"""The variable that says where Toyhom's sample is: a CSV in GB18030 with `COLUMNS`."""

COLUMNS = ("department", "title", "ask", "answer")
FOLDERS = ("Andriatria_男科", "IM_内科", "OAGD_妇产科", "Oncology_肿瘤科", "Pediatric_儿科", "Surgical_外科")
ROWS = 792_000
"""As many as the full set has."""
PACKED_ROWS = 40_000
"""Of the way to packed tokens: tokenizing takes most of it, and as long for each row."""

FAST_ENOUGH = Target("at least", 5)
MOST = Target("at most", 1.5, of="ours")


def measure(bench: Bench) -> list[Row]:
    """All rows of this group; none where there is no sample."""
    sample = Path(os.environ.get(SAMPLE, ""))
    if not sample.is_file():
        bench.note(f"data is not measured: {SAMPLE} names no file")
        return []
    folder, few = bench.home / "dialogues", bench.home / "few-dialogues"
    try:
        multiply(sample, folder, ROWS)
        multiply(sample, few, PACKED_ROWS)

        def side(name: str) -> dict[str, float]:
            where = few if name == "packed" else folder
            told = bench.run(sys.executable, "-m", "benchmarks.children.data_rows", name, str(where))
            read: dict[str, float] = json.loads(told)
            return read

        names = ["drkun", "cleaned", "loop", "frame"]
        if all(map(importlib.util.find_spec, ("torch", "transformers", "trl"))):
            names.append("packed")
        else:
            bench.note(
                "the way to packed tokens is not measured: the packages of the extra train are missing"
            )
        taken = bench.rounds_of("data", {name: functools.partial(side, name) for name in names})
    finally:
        for made in (folder, few):
            shutil.rmtree(made, ignore_errors=True)

    def figures(of: str, name: str) -> list[float]:
        return [told[of] for told in taken[name]]

    ours, cleaned, loop, frame = (figures("rows_s", name) for name in names[:4])
    name = f"{ROWS:,} dialogues read, cleaned, without duplicates, split and written"
    peak = statistics.median(told["peak"] for told in taken["drkun"]) / 2**30
    tutorial = "the tutorial's loop over a pandas frame"
    rows = [
        compare(
            f"{ROWS:,} dialogues read, cleaned and written", "rows/s", cleaned, tutorial, frame, FAST_ENOUGH
        ),
        compare(name, "rows/s", ours, tutorial, frame, FAST_ENOUGH),
        compare(
            "the same, of one core's time",
            "rows/CPU s",
            figures("rows_cpu_s", "drkun"),
            tutorial,
            figures("rows_cpu_s", "frame"),
        ),
        compare("the same, against the barest loop", "rows/s", ours, "csv.DictReader, into a list", loop),
        Row("the same, peak memory of the process, which is all there is", peak, "GiB", target=MOST),
    ]
    if "packed" in taken:
        median = statistics.median(figures("rows_s", "packed"))
        rows.append(Row(f"{PACKED_ROWS:,} dialogues from their files to packed tokens", median, "rows/s"))
    return rows


def multiply(sample: Path, folder: Path, rows: int) -> None:
    """Write `rows` rows into six department folders: each has the title of one row, sentences of the
    questions of three, and the answer of another, so that hardly two say the same."""
    with sample.open(encoding="gb18030", newline="") as file:
        known = [row for row in csv.DictReader(file) if all(row[name] for name in COLUMNS)]
    drawn = random.Random(0)
    asks = [re.findall(r"[^，。？！]+[，。？！]?", row["ask"]) for row in known]
    for number, name in enumerate(FOLDERS):
        count = rows // len(FOLDERS) + (number < rows % len(FOLDERS))
        path = folder / name / f"{name.split('_')[1]}.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", encoding="gb18030", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for _ in range(count):
                row, other = drawn.choice(known), drawn.choice(known)
                first, second, third = (drawn.choice(asks) for _ in range(3))
                ask = "".join((*first[: len(first) // 2 + 1], *second[1:3], *third[-2:]))
                writer.writerow((row["department"], row["title"], ask, other["answer"]))
