"""Evaluating questions, against a loop over ``drkun ask``: each answer of the loop pays for its process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import drkun_tui
from benchmarks.machine import Bench, drkun
from benchmarks.report import Row, Target, compare

DEMO = Path(drkun_tui.__file__).parent / "training" / "demo.jsonl"
QUESTIONS = 192
ASKED_ALONE = 8
"""Questions of the loop; each takes as long, however many there are."""

OPTIONS = ("--temperature", "0", "--max-tokens", "256")
FAST_ENOUGH = Target("at least", 5)


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    lines = DEMO.read_text("utf8").splitlines()[:QUESTIONS]
    suite = bench.home / "suite.jsonl"
    suite.write_text("\n".join(lines), "utf8")
    alone = [json.loads(line)["question"] for line in lines[:: QUESTIONS // ASKED_ALONE]]

    def evaluated() -> float:
        began = time.perf_counter()
        told = json.loads(bench.run(drkun(), "eval", str(suite), "--json", *OPTIONS))
        if told["answered"] != QUESTIONS:
            raise RuntimeError(f"{told['answered']} of {QUESTIONS} questions were answered")
        return QUESTIONS / (time.perf_counter() - began)

    def asked() -> float:
        began = time.perf_counter()
        for question in alone:
            bench.run(drkun(), "ask", question, "--json", *OPTIONS)
        return len(alone) / (time.perf_counter() - began)

    rates = bench.rounds_of("evaluation", {"eval": evaluated, "ask": asked})
    name = f"drkun eval, {QUESTIONS} questions answered, scored and measured"
    return [
        compare(name, "questions/s", rates["eval"], "loop over drkun ask", rates["ask"], FAST_ENOUGH),
    ]
