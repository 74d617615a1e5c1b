"""The GPU profiles against plain ``generate``: ``python -m benchmarks.gpu`` on a machine with an NVIDIA GPU.

Makes a model in the shapes of Qwen3-4B with random weights, which are honest for speed and memory and for
nothing else. Each side runs in a process of its own on the same card, one after the other; ours is the engine
process that the program starts, spoken to over its pipes.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from drkun_tui import hardware, paths
from drkun_tui.engine import client, protocol
from drkun_tui.engine.protocol import (
    Cancel,
    ChatMessage,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Loading,
    Ready,
    Started,
)
from drkun_tui.sampling import Sampling

GIB = 1024**3
CONTEXT = 8192
PLAIN_TOKENS = 96
OUR_TOKENS = 512
PROMPT_CHARACTERS = 1100
"""About 512 tokens of the bundled model's tokenizer."""

GREEDY = Sampling(temperature=0, repeat_penalty=1, max_tokens=OUR_TOKENS)
TEXT = "最近总是头晕，有时恶心，走路不稳，睡眠也不好，血压偏高，应该做哪些检查，平时饮食要注意什么？"
PROFILES = {"gpu8": "nf4", "gpu16": "half"}


def make_model(folder: Path) -> None:
    """Qwen3-4B's shapes, random weights, the bundled model's tokenizer; an adapter of rank 16 beside it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

    config = Qwen3Config(
        hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        intermediate_size=9728, vocab_size=151_936, tie_word_embeddings=True, max_position_embeddings=40_960,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / "base")
    gguf = paths.starter()
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder / "base")
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora: Any = get_peft_model(
        model, LoraConfig(r=16, lora_alpha=16, target_modules=names, task_type="CAUSAL_LM")
    )
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.02)
    lora.save_pretrained(str(folder / "lora"))


class Engine:
    """The engine process, over its pipes."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", client.HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.began = time.perf_counter()
        self._coming: queue.Queue[tuple[float, Event]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._number = 0
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._coming.put((time.perf_counter(), protocol.decode_event(line)))

    def send(self, request: protocol.Request) -> None:
        """Ask."""
        assert self._process.stdin
        self._process.stdin.write(protocol.encode(request) + b"\n")
        self._process.stdin.flush()

    def until(self, *kinds: type) -> list[tuple[float, Event]]:
        """Events with the time at which they came, up to one of these kinds."""
        events = []
        while True:
            events.append(self._coming.get(timeout=400))
            if isinstance(events[-1][1], Failed):
                raise RuntimeError(f"the engine said {events[-1][1]}")
            if isinstance(events[-1][1], kinds):
                return events

    def ask(self, messages: list[ChatMessage], sampling: Sampling) -> Answer:
        """Ask, and wait for the end."""
        self._number += 1
        self.send(Generate(id=self._number, messages=messages, sampling=sampling, think=False))
        events = self.until(Finished)
        started = next(event for _, event in events if isinstance(event, Started))
        finished = events[-1][1]
        assert isinstance(finished, Finished)
        return Answer(started, finished)

    def cancel_in_prompt(self, messages: list[ChatMessage]) -> float:
        """Seconds from a cancel in the middle of a long prompt to the engine's word that it has stopped."""
        self._number += 1
        self.send(Generate(id=self._number, messages=messages, sampling=GREEDY, think=False))
        self.until(Started)
        time.sleep(0.05)
        began = time.perf_counter()
        self.send(Cancel(self._number))
        return self.until(Finished)[-1][0] - began


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and its times."""

    started: Started
    finished: Finished


def ours(folder: Path, profile: str, adapter: Path | None, log: Path) -> dict[str, Any]:
    """What the engine process does under a profile."""
    limit = 7 * GIB + GIB // 2 if profile == "gpu8" else 0
    with Engine(log) as engine:
        engine.send(
            Load(
                path=str(folder / "base"),
                context_length=CONTEXT,
                threads=4,
                engine="transformers",
                device="cuda",
                weights=PROFILES[profile],  # type: ignore[arg-type]
                memory_limit=limit,
                adapter=str(adapter) if adapter else None,
            )
        )
        events = engine.until(Ready)
        at, ready = events[-1]
        assert isinstance(ready, Ready)
        loaded_at = next(t for t, e in events if isinstance(e, Loading) and e.stage == "warmup")
        weights_s = ready.load_s - (at - loaded_at)
        question = ChatMessage("user", (TEXT * 30)[:PROMPT_CHARACTERS])
        first = engine.ask([question], GREEDY)
        first_token = time.perf_counter() - at - _decode_s(first.finished)
        again = [engine.ask([ChatMessage("user", f"{n}{question.content}")], GREEDY) for n in range(3)]
        long = [ChatMessage("user", (TEXT * 400)[: PROMPT_CHARACTERS * 10])]
        free = hardware.read().nvidia
        return {
            "load_s": weights_s,
            "ready_s": at - engine.began,
            "weight_bytes": ready.weight_bytes,
            "reserved_bytes": ready.reserved_bytes,
            "used_bytes": free.total_bytes - free.free_bytes if free else 0,
            "first_fast_token_s": first_token,
            "first_tok_s": first.finished.timings.decode_tok_s,
            "decode_tok_s": statistics.median(a.finished.timings.decode_tok_s for a in again),
            "prompt_tokens": again[-1].started.prompt_tokens,
            "prefill_s": statistics.median(a.finished.timings.ttft_s for a in again),
            "cancel_s": engine.cancel_in_prompt(long),
        }


def _decode_s(finished: Finished) -> float:
    tokens = finished.usage.thinking_tokens + finished.usage.answer_tokens
    return (tokens - 1) / finished.timings.decode_tok_s if finished.timings.decode_tok_s else 0.0


def plain(folder: Path, weights: str, adapter: Path | None) -> dict[str, Any]:
    """What `benchmarks.children.plain_generate` does."""
    command = [sys.executable, "-m", "benchmarks.children.plain_generate", str(folder / "base"), weights]
    command += [str(PLAIN_TOKENS), *([str(adapter)] if adapter else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The page's table."""
    rows = [["", "plain `generate`", "ours", "ratio", "target", "met"]]

    def row(
        name: str, plain: float, ours: float, form: str, ratio: float | None, target: str, met: bool | None
    ) -> None:
        told = "" if ratio is None else f"{ratio:.2f}"
        rows.append(
            [
                name,
                form.format(plain) if plain else "",
                form.format(ours),
                told,
                target,
                "" if met is None else "yes" if met else "**no**",
            ]
        )

    for name, sides in results.items():
        theirs, own = sides["plain"], sides["ours"]
        profile = name.split()[0]
        faster = own["decode_tok_s"] / theirs["decode_tok_s"]
        row(
            f"{name}: decode, tok/s",
            theirs["decode_tok_s"],
            own["decode_tok_s"],
            "{:.1f}",
            faster,
            "at least 10 ×",
            faster >= 10,
        )
        first = own["first_fast_token_s"]
        row(f"{name}: first token after loading, s", 0, first, "{:.2f}", None, "at most 5", first <= 5)
        row(
            f"{name}: prefill of {own['prompt_tokens']} tokens, ms",
            theirs["prefill_s"] * 1000,
            own["prefill_s"] * 1000,
            "{:.0f}",
            None,
            "at most 120",
            own["prefill_s"] <= 0.12,
        )
        longer = own["load_s"] / theirs["load_s"]
        row(
            f"{name}: load, s",
            theirs["load_s"],
            own["load_s"],
            "{:.1f}",
            longer,
            "at most 1.1 ×",
            longer <= 1.1,
        )
        ready = own["ready_s"] / theirs["ready_s"]
        row(
            f"{name}: process start to ready, s",
            theirs["ready_s"],
            own["ready_s"],
            "{:.1f}",
            ready,
            "",
            None,
        )
        most = 2.7 if profile == "gpu8" else 7.8
        weights = own["weight_bytes"] / GIB
        row(
            f"{name}: weights on the GPU, GiB",
            theirs["weight_bytes"] / GIB,
            weights,
            "{:.2f}",
            None,
            f"at most {most}",
            weights <= most,
        )
        reserved = own["reserved_bytes"] / GIB
        if profile == "gpu8":
            row(
                f"{name}: reserved with a context of {CONTEXT:,}, GiB",
                0,
                reserved,
                "{:.2f}",
                None,
                "at most 7.5",
                reserved <= 7.5,
            )
        row(
            f"{name}: cancel in a long prompt, ms",
            0,
            own["cancel_s"] * 1000,
            "{:.0f}",
            None,
            "at most 100",
            own["cancel_s"] <= 0.1,
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [rows[0], ["---"] * 6, *rows[1:]])


def where(*more: str) -> str:
    """Card, date and versions; of `more` packages, too."""
    card = hardware.read().nvidia
    names = ("torch", "transformers", "peft", "bitsandbytes", "triton", *more)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    named = f"{card.name}, {card.driver}" if card else "no GPU"
    return f"{named}; {datetime.date.today():%Y-%m-%d}; Python {platform.python_version()}, {versions}"


def page(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The whole page."""
    return f"""# Benchmarks on a GPU

Written by `python -m benchmarks.gpu --markdown docs/benchmarks-gpu.md`; do not edit by hand.

{where()}

A model in the shapes of Qwen3-4B with random weights, an adapter of rank 16 on all seven projections,
batch 1, greedy. "Plain" is the tutorials' way: nf4 with double quantisation and fp16, or bf16, and
`generate`; "ours" is the engine process over its pipes. Both on the same card, one after the other. Random
weights are honest for speed and memory, never for quality.

"Load" is `from_pretrained` on one side and the weights' stage on the other, imports counted on neither;
"process start to ready" counts everything, with ours also the compiling of kernels, the captured decode
step and the choice of the batch. "First token after loading" is that of a whole answer to a prompt of this
length, at full speed.

{table(results)}
"""


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--log", type=Path, default=Path("gpu-engine.log"), metavar="FILE")
    arguments = parser.parse_args()
    results: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-c", f"from benchmarks.gpu import *; make_model(Path({name!r}))"], check=True
        )
        for profile, weights in PROFILES.items():
            for adapter in (None, folder / "lora"):
                title = f"{profile} with a LoRA" if adapter else profile
                sides = {
                    "ours": ours(folder, profile, adapter, arguments.log),
                    "plain": plain(folder, weights, adapter),
                }
                results[title] = sides
                print(title, json.dumps(sides), file=sys.stderr, flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=1), "utf8")
    text = page(results)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text, "utf8")


if __name__ == "__main__":
    main()
