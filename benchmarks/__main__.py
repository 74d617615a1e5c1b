"""``python -m benchmarks``: measure, print the table, and on request write the page."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine, page, report
from benchmarks.machine import Bench

GROUPS = (
    *("startup", "decode", "lag", "turns", "memory"),
    *(
        "inventory",
        "download",
        "library_lag",
        "memory_fit",
        "speed_estimates",
        "data",
        "evaluation",
        "export",
    ),
)


def main() -> int:
    """Run the groups; the exit code is 1 when one could not be measured, never for a missed target."""
    arguments = _parser().parse_args()
    groups = arguments.only or GROUPS
    if shutil.which("tmux") is None:
        print("tmux is needed: the chat screen is measured in a real terminal.", file=sys.stderr)
        return 1
    rows: dict[str, list[report.Row]] = {}
    failed = False
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drkun-bench-", ignore_cleanup_errors=True) as home:
        bench = Bench(Path(home), rounds=arguments.rounds, patience_s=arguments.patience)
        bench.settings()
        for group in groups:
            print(f"{group}…", file=sys.stderr, flush=True)
            try:
                rows[group] = importlib.import_module(f"benchmarks.{group}").measure(bench)
            except Exception as error:
                failed = True
                bench.note(f"{group} could not be measured: {type(error).__name__}: {error}")
                if arguments.debug:
                    raise
    text = page.summary(rows, bench, time.monotonic() - began)
    print(text)
    if arguments.markdown:
        Path(arguments.markdown).write_text(page.whole(text), "utf8")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=machine.__doc__)
    parser.add_argument("--only", action="append", choices=GROUPS, help="one group; may be given again")
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="how often each side is measured (7)"
    )
    parser.add_argument(
        "--patience", type=float, default=120, metavar="S", help="seconds to wait for a quiet machine (120)"
    )
    parser.add_argument("--markdown", metavar="FILE", help="also write the page, e.g. docs/benchmarks.md")
    parser.add_argument("--debug", action="store_true", help="stop at the first error with its traceback")
    return parser


if __name__ == "__main__":
    sys.exit(main())
