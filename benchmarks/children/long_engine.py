"""An engine process without a model, for answers that the bundled one is too small to write.

It speaks the engine protocol and writes at a steady rate, while as many threads as a model would use
keep the cores busy. Run as ``python -m benchmarks.children.long_engine``.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from benchmarks.children import long_answers
from drkun_tui.engine import protocol
from drkun_tui.engine.protocol import (
    Cancel,
    Delta,
    Event,
    Finished,
    Generate,
    Load,
    Loading,
    Ready,
    Started,
    Timings,
    Usage,
)

TOKENS_PER_S = 650
THINKING_TOKENS = 100
ANSWER_TOKENS = 4000
FLUSH_S = 0.03


def main() -> None:
    """Answer every request until standard input ends."""
    threads = 1
    for line in sys.stdin.buffer:
        request = protocol.decode_request(line)
        if isinstance(request, Load):
            threads = request.threads
            _emit(Loading("start", 0.0))
            _emit(
                Ready(
                    engine="scripted",
                    architecture="none",
                    parameters=0,
                    size_bytes=0,
                    context_length=8192,
                    threads=threads,
                    load_s=0.0,
                    safe_mode=False,
                    has_template=True,
                    can_toggle_thinking=True,
                )
            )
        elif isinstance(request, Generate):
            _answer(request, threads)
        elif isinstance(request, Cancel):
            pass  # nobody stops a measurement


def _answer(request: Generate, threads: int) -> None:
    kind = request.messages[-1].content
    _emit(Started(id=request.id, prompt_tokens=20, reused_tokens=0, dropped_messages=0, seed=0))
    done = threading.Event()
    for _ in range(threads):
        threading.Thread(target=_keep_busy, args=(done,), daemon=True).start()
    began = time.perf_counter()
    thinking = _pieces(long_answers.reasoning(), THINKING_TOKENS)
    answer = _pieces(long_answers.answer(kind), ANSWER_TOKENS)
    sent = 0
    while sent < THINKING_TOKENS + ANSWER_TOKENS:
        time.sleep(FLUSH_S)
        due = min(int((time.perf_counter() - began) * TOKENS_PER_S), THINKING_TOKENS + ANSWER_TOKENS)
        thought = "".join(next(thinking) for _ in range(sent, min(due, THINKING_TOKENS)))
        said = "".join(next(answer) for _ in range(max(sent, THINKING_TOKENS), due))
        sent = max(sent, due)
        _emit(
            Delta(
                id=request.id,
                thinking=thought,
                answer=said,
                thinking_tokens=min(sent, THINKING_TOKENS),
                answer_tokens=max(0, sent - THINKING_TOKENS),
            )
        )
    seconds = time.perf_counter() - began
    done.set()
    _emit(
        Finished(
            id=request.id,
            finish_reason="stop",
            thinking_truncated=False,
            usage=Usage(
                prompt_tokens=20,
                thinking_tokens=THINKING_TOKENS,
                answer_tokens=ANSWER_TOKENS,
                reused_tokens=0,
            ),
            timings=Timings(ttft_s=0.0, decode_tok_s=(sent - 1) / seconds, thinking_s=THINKING_TOKENS / sent),
        )
    )


def _pieces(text: str, tokens: int) -> Iterator[str]:
    """`text` in so many pieces, none of them empty."""
    for number in range(tokens):
        yield text[len(text) * number // tokens : len(text) * (number + 1) // tokens]


def _keep_busy(done: threading.Event) -> None:
    # Hashing a block of this size releases the interpreter's lock, as a model's matrix product does.
    block = bytes(1 << 20)
    while not done.is_set():
        hashlib.sha256(block)


def _emit(event: Event) -> None:
    os.write(1, protocol.encode(event) + b"\n")


if __name__ == "__main__":
    main()
