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

TOKENS = 256
LEAST = 20


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation_gpu")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="a model as benchmarks.gpu makes it")
    parser.add_argument("--profile", default="gpu16")
    parser.add_argument("--questions", type=int, default=192, metavar="N", help="of the evaluation")
    parser.add_argument(
        "--in-turn", type=int, default=16, metavar="N", help="of the one that answers in turn"
    )
    parser.add_argument("--asked", type=int, default=3, metavar="N", help="of the loop; each takes as long")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        base = arguments.base
        if base is None:
            made = f"from benchmarks.gpu import *; make_model(Path({name!r}))"
            subprocess.run([sys.executable, "-c", made], check=True)
            base = Path(name) / "base"
        lines = DEMO.read_text("utf8").splitlines()[: arguments.questions]
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
            for line in lines[: arguments.asked]:
                bench.run(*program, "ask", json.loads(line)["question"], *options)
            return float(arguments.asked / (time.perf_counter() - began))

        rows: list[str] = []

        def row(name: str, questions: int, rate: float, target: str = "", met: str = "") -> None:
            ratio = f"{ours / rate:.1f}" if rows else ""
            rows.append(f"| {name} | {questions} | {rate:.3f} | {ratio} | {target} | {met} |")
            print(rows[-1], file=sys.stderr, flush=True)

        ours = evaluated(len(lines))
        row("`drkun eval`", len(lines), ours)
        loop = asked()
        met = "yes" if ours >= LEAST * loop else "**no**"
        row("loop over `drkun ask`", arguments.asked, loop, f"at least {LEAST}", met)
        if arguments.in_turn:
            in_turn = evaluated(arguments.in_turn, "--sequences", "1")
            row("`drkun eval --sequences 1`", arguments.in_turn, in_turn)
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
{chr(10).join(rows)}
"""
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text, "utf8")


if __name__ == "__main__":
    main()
