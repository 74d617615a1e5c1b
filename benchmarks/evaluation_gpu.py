"""Evaluating on a GPU against a loop over ``drkun ask``: ``python -m benchmarks.evaluation_gpu``.

The model has the shapes of Qwen3-4B and random weights, which end no answer: every answer is as long as it
may be. The loop pays for a process and a load at each question, as a script around ``drkun ask`` does;
beside it, the same evaluation with one question at a time pays for one load and answers them in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.evaluation import DEMO
from benchmarks.gpu import where
from benchmarks.machine import Bench

QUESTIONS, IN_TURN, ASKED = 192, 16, 3
TOKENS = 256
LEAST = 20


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation_gpu")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="a model as benchmarks.gpu makes it")
    parser.add_argument("--profile", default="gpu16")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        base = arguments.base
        if base is None:
            made = f"from benchmarks.gpu import *; make_model(Path({name!r}))"
            subprocess.run([sys.executable, "-c", made], check=True)
            base = Path(name) / "base"
        lines = DEMO.read_text("utf8").splitlines()[:QUESTIONS]
        suite = bench.home / "suite.jsonl"
        suite.write_text("\n".join(lines), "utf8")
        options = ["--model", str(base), "--profile", arguments.profile, "--temperature", "0"]
        options += ["--max-tokens", str(TOKENS), "--json"]
        program = (sys.executable, "-m", "drkun_tui")

        def evaluated(count: int, *more: str) -> float:
            began = time.perf_counter()
            told = json.loads(bench.run(*program, "eval", str(suite), "--limit", str(count), *options, *more))
            if told["answered"] != count:
                raise RuntimeError(f"{told['answered']} of {count} questions were answered")
            return count / (time.perf_counter() - began)

        def asked() -> float:
            began = time.perf_counter()
            for line in lines[:ASKED]:
                bench.run(*program, "ask", json.loads(line)["question"], *options)
            return ASKED / (time.perf_counter() - began)

        loop, ours = asked(), evaluated(QUESTIONS)
        in_turn = evaluated(IN_TURN, "--sequences", "1")
    met = "yes" if ours >= LEAST * loop else "**no**"
    text = f"""# Evaluating on a GPU

Written by `python -m benchmarks.evaluation_gpu --markdown docs/benchmarks-evaluation-gpu.md`; do not edit by
hand.

{where()}

A model in the shapes of Qwen3-4B with random weights, profile `{arguments.profile}`, greedy, answers of
{TOKENS} tokens: random weights end none earlier. Each figure counts everything from the start of the process:
imports, loading, capturing, answering, and, of an evaluation, scoring the reference answers and computing
every metric.

| | questions | questions/s | ours, × | target | met |
| --- | --- | --- | --- | --- | --- |
| `drkun eval` | {QUESTIONS} | {ours:.3f} | | | |
| loop over `drkun ask` | {ASKED} | {loop:.3f} | {ours / loop:.1f} | at least {LEAST} | {met} |
| `drkun eval --sequences 1` | {IN_TURN} | {in_turn:.3f} | {ours / in_turn:.1f} | | |
"""
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text, "utf8")


if __name__ == "__main__":
    main()
