"""A GGUF on an NVIDIA GPU: llama.cpp's own ``llama-bench``, the engine process, and the chat screen.

Run as ``python -m benchmarks.gguf_gpu LLAMA_BENCH`` where llama-cpp-python was built for CUDA, with the
``llama-bench`` of the same sources. The model has the shapes of Qwen3-4B and random weights. The chat screen
is also measured under the profiles for safetensors, against the engine process alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import chat, random_models
from benchmarks.gpu import GREEDY, PROMPT_CHARACTERS, TEXT, Engine, where
from benchmarks.machine import Bench
from benchmarks.random_models import QWEN3_4B
from drkun_tui.engine.protocol import ChatMessage, Load, Ready
from drkun_tui.library.plan import plan_load
from drkun_tui.settings import Settings

CONTEXT = 8192
LLAMA_BENCH, SCREEN = 0.95, 0.95


def own_bench(program: Path, model: Path, tokens: int, prompt: int) -> dict[str, float]:
    """What ``llama-bench`` says: prefill, and decode behind a prompt as long as ours, tokens a second."""
    command = [str(program), "-m", str(model), "-ngl", "99", "-r", "3"]
    sides = {"prefill": ["-p", str(prompt), "-n", "0"], "decode": ["-p", "0", "-n", str(tokens)]}
    return {
        name: _own_bench([*command, *side, "-d", str(prompt if name == "decode" else 0)])
        for name, side in sides.items()
    }


def _own_bench(command: list[str]) -> float:
    done = subprocess.run([*command, "-fa", "1", "-o", "json"], capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return float(rows[0]["avg_ts"])


def engine(load: Load, log: Path) -> dict[str, float]:
    """The engine process alone."""
    with Engine(log) as process:
        process.send(load)
        ready = process.until(Ready)[-1][1]
        assert isinstance(ready, Ready)
        question = (TEXT * 30)[:PROMPT_CHARACTERS]
        answers = [process.ask([ChatMessage("user", f"{n}{question}")], GREEDY) for n in range(4)][1:]
    timings = [answer.finished.timings for answer in answers]
    return {
        "decode": statistics.median(one.decode_tok_s for one in timings),
        "prefill": statistics.median(
            a.started.prompt_tokens / a.finished.timings.ttft_s for a in answers if a.finished.timings.ttft_s
        ),
        "prompt": answers[-1].started.prompt_tokens,
    }


def screen(bench: Bench, settings: Settings) -> float:
    """Tokens a second in the chat screen, by the interface's clock, of the second of two tries."""
    bench.settings(**_written(settings))
    return [chat.ask(bench, TEXT[:40], patience_s=240).wall_tok_s for _ in range(2)][1]


def _written(settings: Settings) -> dict[str, object]:
    """As TOML has it, which knows no "nothing"."""
    told: dict[str, Any] = msgspec.to_builtins(settings)
    told["sampling"].pop("seed")
    return {name: value for name, value in told.items() if value is not None}


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gguf_gpu")
    parser.add_argument("llama_bench", type=Path)
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="also these safetensors on the screen")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--log", type=Path, default=Path("gguf-engine.log"), metavar="FILE")
    arguments = parser.parse_args()
    lines = ["| | reference | ours | ratio | target | met |", "| --- | --- | --- | --- | --- | --- |"]

    def row(name: str, reference: float, own: float, least: float | None) -> None:
        target, met = "", ""
        if least is not None:
            target, met = f"at least {least}", "yes" if own >= least * reference else "**no**"
        lines.append(f"| {name} | {reference:,.0f} | {own:,.0f} | {own / reference:.2f} | {target} | {met} |")
        print(lines[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        model = random_models.make(QWEN3_4B, bench.home, "Q4_K_M")
        settings = Settings(
            model=str(model), profile="gpu16", context_length=CONTEXT, sampling=GREEDY, think=False
        )
        alone = engine(plan_load(settings).load, arguments.log)
        reference = own_bench(arguments.llama_bench, model, GREEDY.max_tokens, int(alone["prompt"]))
        row("Q4_K_M: decode, tok/s, against llama-bench", reference["decode"], alone["decode"], LLAMA_BENCH)
        row("Q4_K_M: prefill, tok/s, against llama-bench", reference["prefill"], alone["prefill"], None)
        shown = screen(bench, settings)
        row("Q4_K_M: chat screen, tok/s, against the engine", alone["decode"], shown, SCREEN)
        for profile in ("gpu8", "gpu16") if arguments.base else ():
            chosen = msgspec.structs.replace(settings, model=str(arguments.base), profile=profile)
            alone = engine(plan_load(chosen).load, arguments.log)
            row(
                f"{profile}: chat screen, tok/s, against the engine",
                alone["decode"],
                screen(bench, chosen),
                SCREEN,
            )
    text = f"""# A GGUF on a GPU

Written by `python -m benchmarks.gguf_gpu LLAMA_BENCH --markdown docs/benchmarks-gguf-gpu.md`; do not edit by
hand.

{where("llama-cpp-python")}

A model in the shapes of Qwen3-4B with random weights. The reference is the `llama-bench` of the same sources,
whose decode samples nothing, behind a prompt as long; ours is the engine process over its pipes, greedy over
the whole vocabulary, and the chat screen in a terminal, by the interface's clock.

{chr(10).join(lines)}
"""
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text, "utf8")


if __name__ == "__main__":
    main()
