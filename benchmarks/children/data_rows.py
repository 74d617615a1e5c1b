"""Reads and cleans a folder of dialogues in a process of its own: how fast, and in how much memory.

Run as ``python -m benchmarks.children.data_rows drkun|loop|frame FOLDER``.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import tempfile
import time
from pathlib import Path


def drkun(folder: Path) -> int:
    """The whole preparation: cleaned, without duplicates, split and on disk; the rows read."""
    from drkun_tui.training.data.dataset import prepare
    from drkun_tui.training.recipe import Data

    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        options = Data(path=str(folder))
        return prepare(options, Path(name), 3407, lambda _done, _total: None, lambda: False).rows


def loop(folder: Path) -> int:
    """The tutorial's loop: rows one by one, empty and short ones left out; the rows read."""
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
    """The same loop over the rows of a pandas frame; the rows read."""
    import pandas as pd  # type: ignore[import-untyped]

    read, kept = 0, []
    for path in sorted(folder.rglob("*.csv")):
        for _, row in pd.read_csv(path, encoding="gb18030").iterrows():
            read += 1
            title, ask, answer = (str(row[name]).strip() for name in ("title", "ask", "answer"))
            if not title or not answer or len(answer) < 10:
                continue
            kept.append({"question": f"{title}\n{ask}", "answer": answer})
    return read


if __name__ == "__main__":
    began = time.perf_counter()
    rows = {"drkun": drkun, "loop": loop, "frame": frame}[sys.argv[1]](Path(sys.argv[2]))
    seconds = time.perf_counter() - began
    # Kilobytes, but bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"rows": rows, "rows_s": rows / seconds, "peak": peak}))
