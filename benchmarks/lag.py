"""How late the event loop is while an answer streams: what a reader feels as sticking keys.

A task inside the interface sleeps five milliseconds at a time and notes how much later it wakes. One
long block would be one late waking among thousands; so for each waking that was late by more than one
sleep, the ones that it kept from happening are counted too, each five milliseconds less late.
"""

from __future__ import annotations

import statistics

from benchmarks import chat
from benchmarks.children import long_answers
from benchmarks.decode import QUESTION, TOKENS, endless_settings
from benchmarks.machine import Bench
from benchmarks.report import Row, Target

TICK_S = 0.005
WATCH = ("--lag", str(TICK_S))

P99 = Target("at most", 50, of="ours")

LONG_ENGINE = ("--engine", "benchmarks.children.long_engine")


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    bench.settings(**endless_settings(bench))
    lags = bench.rounds_of(
        "lag",
        {
            "answer": lambda: chat.ask(bench, QUESTION, *WATCH),
            "list": lambda: chat.ask(
                bench, long_answers.LIST, *WATCH, *LONG_ENGINE, expect=long_answers.LAST
            ),
            "nested": lambda: chat.ask(
                bench, long_answers.NESTED, *WATCH, *LONG_ENGINE, expect=long_answers.LAST
            ),
        },
    )
    bench.settings()
    late = {side: [answer.lateness_s for answer in answers] for side, answers in lags.items()}
    return [
        row(f"lag p99 in an answer of {TOKENS:,} tokens, bundled model", late["answer"]),
        row("lag p99 in a list of 4,000 tokens", late["list"]),
        row("lag p99 in one list item with a list of 4,000 tokens in it", late["nested"]),
    ]


def row(name: str, latenesses: list[list[float]]) -> Row:
    """A row of what the runs' wakings were late by, in seconds."""
    each = [_percentiles(lateness) for lateness in latenesses]
    middle, high, worst = (statistics.median(column) for column in zip(*each, strict=True))
    greatest = max(worst for _, _, worst in each)
    text = f"p50 {middle:.1f}, worst {worst:.0f}, of all runs {greatest:.0f}"
    return Row(name, high, "ms", target=P99, text=text)


def _percentiles(lateness_s: list[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and worst, in milliseconds."""
    every = sorted(1000 * late for one in lateness_s for late in _with_those_kept_back(max(0.0, one)))
    return every[len(every) // 2], every[int(len(every) * 0.99)], every[-1]


def _with_those_kept_back(late: float) -> list[float]:
    return [late - TICK_S * missed for missed in range(int(late / TICK_S) + 1)]
