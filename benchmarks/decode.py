"""Tokens a second on the bundled model: the bare loop, ``drkun ask``, and the chat screen.

All sides answer the same question with the same sampling, seed, threads, context and weight layout.
The bundled model ends its turns after about a hundred tokens; a repeat penalty below 1 rewards
repetition, so that with the right seed it goes on to the limit by itself on every side, and nobody's
end of turn has to be switched off. All stages of the sampler stay in use.

llama.cpp's sums depend a little on how its threads were scheduled, so that now and then an answer takes
another way and ends early. Such a sample is taken again: a shorter context decodes faster.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks import chat
from benchmarks.machine import Bench, drkun
from benchmarks.report import Row, Target, compare
from drkun_tui import paths
from drkun_tui.engine import safe_mode
from drkun_tui.sampling import Sampling

QUESTION = "糖尿病人能吃什么水果？请列出一百种"
TOKENS = 1500
THREADS = 2
CONTEXT = 2048
SEEDS = range(1, 60)
SAMPLING = Sampling(temperature=0.6, top_p=0.95, top_k=20, repeat_penalty=0.6, max_tokens=TOKENS)

ASK = Target("at least", 0.95)
SCREEN = Target("at least", 0.85)

TRIES = 6

Rates = dict[str, float]
"""How many tokens came, and how many a second by which clock."""


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    sampling = endless(bench)
    characters = len(_ask_json(bench, sampling)["answer"])
    bench.settings(**endless_settings(bench))
    try:
        rates = bench.rounds_of(
            "decode",
            {
                "bare": lambda: _whole(lambda: _bare(bench, sampling)),
                "ask": lambda: _whole(lambda: _ask(bench, sampling)),
                "pipe": lambda: _whole(lambda: _through_pipe(bench, sampling, characters)),
                "screen": lambda: _whole(lambda: _screen(bench)),
            },
        )
    finally:
        bench.settings()
    bare = [rate["engine"] for rate in rates["bare"]]

    def row(name: str, side: str, clock: str, target: Target) -> Row:
        ours = [rate[clock] for rate in rates[side]]
        return compare(name, "tok/s", ours, "bare llama-cpp-python loop", bare, target)

    return [
        row("drkun ask, by the engine's clock", "ask", "engine", ASK),
        row("drkun ask, at the other end of a pipe", "pipe", "wall", ASK),
        row("chat screen, both panes, by the engine's clock", "screen", "engine", SCREEN),
        row("chat screen, both panes, by the interface's clock", "screen", "wall", SCREEN),
    ]


@functools.cache
def endless(bench: Bench) -> Sampling:
    """The sampling with the first seed whose answer goes on to the limit; also learns of safe mode."""
    for seed in SEEDS:
        sampling = msgspec.structs.replace(SAMPLING, seed=seed)
        answer = _ask_json(bench, sampling)
        goes_on = answer["finish_reason"] == "length" and answer["answer"] and answer["thinking"]
        if goes_on and _bare(bench, sampling)["tokens"] == TOKENS:
            return sampling
    raise RuntimeError(f"no seed among {len(SEEDS)} makes the model write {TOKENS} tokens")


def endless_settings(bench: Bench) -> dict[str, object]:
    """What makes the chat screen write such an answer."""
    return {"threads": THREADS, "context_length": CONTEXT, "sampling": msgspec.structs.asdict(endless(bench))}


def _whole(measure: Callable[[], Rates]) -> Rates:
    """The first sample with all its tokens."""
    for _ in range(TRIES):
        if (rates := measure())["tokens"] == TOKENS:
            return rates
    raise RuntimeError(f"{TRIES} answers in a row ended before {TOKENS} tokens")


def _options(sampling: Sampling) -> list[str]:
    given = msgspec.structs.asdict(sampling).items()
    named = [text for name, value in given for text in (f"--{name.replace('_', '-')}", str(value))]
    return ["--threads", str(THREADS), "--context", str(CONTEXT), *named]


def _bare(bench: Bench, sampling: Sampling) -> Rates:
    command = [sys.executable, "-m", "benchmarks.children.bare_loop", str(paths.starter()), QUESTION]
    command += ["--threads", str(THREADS), "--context", str(CONTEXT)]
    command += ["--sampling", msgspec.json.encode(sampling).decode()]
    if safe_mode.is_needed(bench.home / "machine.json"):
        command.append("--safe-mode")
    rates: Rates = json.loads(bench.run(*command))
    return rates


def _ask_json(bench: Bench, sampling: Sampling) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(bench.run(drkun(), "ask", QUESTION, "--json", *_options(sampling)))
    return answer


def _ask(bench: Bench, sampling: Sampling) -> Rates:
    answer = _ask_json(bench, sampling)
    tokens = answer["usage"]["thinking_tokens"] + answer["usage"]["answer_tokens"]
    return {"tokens": tokens, "engine": answer["timings"]["decode_tok_s"]}


def _through_pipe(bench: Bench, sampling: Sampling, characters: int) -> Rates:
    """As text, read as it comes: from the first byte of reasoning to the end of the answer's last line.

    Text tells no tokens, so an answer counts as whole when it has nearly as many characters as one that was.
    """
    command = [drkun(), "ask", QUESTION, *_options(sampling)]
    first = last = 0.0
    answer = bytearray()
    with (
        subprocess.Popen(
            command, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
        selectors.DefaultSelector() as streams,
    ):
        assert process.stdout is not None and process.stderr is not None
        streams.register(process.stdout, selectors.EVENT_READ)
        streams.register(process.stderr, selectors.EVENT_READ)
        while streams.get_map():
            for key, _ in streams.select():
                text = os.read(key.fd, 65536)
                now = time.perf_counter()
                if not text:
                    streams.unregister(key.fileobj)
                    continue
                first = first or now
                if key.fileobj is process.stdout:
                    # What follows on standard error names the model and is no part of the answer.
                    last = now
                    answer += text
    if process.returncode:
        raise RuntimeError(f"drkun ask ended with {process.returncode}")
    whole = len(answer.decode("utf8", "replace")) >= 0.9 * characters
    return {"tokens": TOKENS if whole else 0, "wall": (TOKENS - 1) / (last - first)}


def _screen(bench: Bench) -> Rates:
    answer = chat.ask(bench, QUESTION)
    return {"tokens": answer.tokens, "engine": answer.tok_s, "wall": answer.wall_tok_s}
