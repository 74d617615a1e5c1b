"""Reads and cleans a folder of dialogues in a process of its own: how fast, and in how much memory.

Run as ``python -m benchmarks.children.data_rows drkun|cleaned|loop|frame|packed FOLDER``.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT_LENGTH = 1024


def drkun(folder: Path, *, near_duplicates: bool = True) -> int:
    """The whole preparation: cleaned, without duplicates, split and on disk; the rows read."""
    from drkun_tui.training.data.dataset import prepare
    from drkun_tui.training.recipe import Data

    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        options = Data(path=str(folder), near_duplicates=near_duplicates)
        return prepare(options, Path(name), 3407, lambda _done, _total: None, lambda: False).rows


def cleaned(folder: Path) -> int:
    """The same without the search for rows that say almost the same, which no loop here does."""
    return drkun(folder, near_duplicates=False)


def loop(folder: Path) -> int:
    """The barest loop there is: rows one by one, empty and short ones left out; the rows read."""
    read, kept = 0, []
    for path in sorted(folder.rglob("*.csv")):
        with path.open(encoding="gb18030", newline="") as file:
            for row in csv.DictReader(file):
                read += 1
                title, ask, answer = (row[name].strip() for name in ("title", "ask", "answer"))
                if not title or not answer or len(answer) < 10:
                    continue
                kept.append({"question": f"{title}\n{ask}", "answer": answer})
    return read


def frame(folder: Path) -> int:
    """The tutorial's loop as it stands there: whole files as pandas frames, in the first encoding that reads
    them, row by row, what a column is called looked up in every row, empty and long ones left out; the rows
    read."""
    read, kept = 0, []
    for path in sorted(folder.rglob("*.csv")):
        for _, row in _frame_of(path).iterrows():
            read += 1
            question = answer = None
            for name in ("question", "问题", "ask"):
                if name in row:
                    question = str(row[name]).strip()
                    break
            for name in ("answer", "回答", "response"):
                if name in row:
                    answer = str(row[name]).strip()
                    break
            if not question or not answer:
                continue
            if len(question) > 200 or len(answer) > 200:
                continue
            kept.append({"instruction": "请回答以下医疗相关问题", "input": question, "output": answer})
    return read


def _frame_of(path: Path) -> Any:
    import pandas as pd  # type: ignore[import-untyped]

    for encoding in ("gbk", "gb2312", "gb18030", "utf-8"):
        try:
            return pd.read_csv(path, encoding=encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError(path)


def packed() -> Callable[[Path], int]:
    """What goes from the files to what the trainer takes, with the tokenizer of the model in the program:
    prepares, tokenizes, packs, and returns the rows read. What it needs is imported and unpacked before."""
    import datasets
    from trl.data_utils import pack_dataset

    from drkun_tui import paths
    from drkun_tui.library import inventory
    from drkun_tui.training import base_model, tokens
    from drkun_tui.training.data.dataset import prepare
    from drkun_tui.training.data.splitting import TRAIN
    from drkun_tui.training.recipe import Data
    from drkun_tui.training.rendering import Renderer

    datasets.disable_progress_bars()
    base, _, _ = base_model.on_disk(inventory.at(paths.starter()))
    renderer = Renderer(base_model.tokenizer_of(base))

    def pack(folder: Path) -> int:
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            options = Data(path=str(folder))
            rows = prepare(options, Path(name), 3407, lambda _done, _total: None, lambda: False).rows
            made, _ = tokens.tokenized(Path(name) / TRAIN, "made", renderer, "", CONTEXT_LENGTH)
            pack_dataset(made.select_columns(["input_ids", "labels"]), CONTEXT_LENGTH, "bfd")
        return rows

    return pack


if __name__ == "__main__":
    side = sys.argv[1]
    sides: dict[str, Callable[[Path], int]] = {
        "drkun": drkun,
        "cleaned": cleaned,
        "loop": loop,
        "frame": frame,
    }
    work = packed() if side == "packed" else sides[side]
    began, before = time.perf_counter(), time.process_time()
    rows = work(Path(sys.argv[2]))
    seconds, used = time.perf_counter() - began, time.process_time() - before
    # Kilobytes, but bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"rows": rows, "rows_s": rows / seconds, "rows_cpu_s": rows / used, "peak": peak}))
