"""Fine-tuning on a GPU against the tutorials' script: ``python -m benchmarks.training_gpu DATA.csv``.

Makes a model in the shapes of Qwen3-4B with random weights, which are honest for speed and memory and for
nothing else. Each side runs in processes of its own on the same card, one after the other; ours is ``drkun
train`` as people start it, its figures are those of the run's events.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.children import telling_train
from benchmarks.gpu import GIB, where
from drkun_tui import hardware
from drkun_tui.library import inventory
from drkun_tui.library.fit import Shape
from drkun_tui.training import memory
from drkun_tui.training.protocol import Planned, Step, decode
from drkun_tui.training.recipe import Adapter, Base, Data, Recipe, dump, presets
from drkun_tui.training.runs import Runs

STEPS, WARM_UP = 30, 5
LONGEST_ANSWER = 200
"""Characters, as in the tutorials' script."""


def recipe(base: Path, data: Path, name: str, backend: str, sizes: tuple[int, int], steps: int) -> Recipe:
    """The preset for Toyhom's rows."""
    return Recipe(
        base=Base(model=str(base)),
        data=Data(path=str(data), longest_answer=LONGEST_ANSWER),
        adapter=Adapter(name=f"benchmark/{name}"),
        training=replace(
            presets()["qwen3-4b-medical"].training,
            backend=backend,
            batch_size=sizes[0],
            gradient_accumulation=sizes[1],
            max_steps=steps,
            save_every=0,
            evaluate_every=0,
            sample_every=0,
        ),
    )


def ours(chosen: Recipe, log: Path) -> dict[str, Any]:
    """What a run of ours tells."""
    file = log.with_suffix(".toml")
    file.write_text(dump(chosen), "utf8")
    command = [sys.executable, "-m", "drkun_tui", "train", str(file), "--json"]
    steps: list[tuple[float, Step]] = []
    plan: Planned | None = None
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as running:
        assert running.stdout
        for line in running.stdout:
            event = decode(line)
            if isinstance(event, Planned):
                plan = event
            elif isinstance(event, Step):
                steps.append((time.perf_counter(), event))
    if running.returncode or plan is None:
        raise RuntimeError(f"{log.name}: {log.read_text('utf8').strip().splitlines()[-1:]}")
    (began, first), (ended, last) = steps[WARM_UP - 1], steps[-1]
    return {
        "tok_s": (last.tokens - first.tokens) / (ended - began),
        "reserved_bytes": last.memory_bytes,
        "rows_per_step": plan.rows_per_step,
        "backend": plan.backend,
        "first_loss": steps[0][1].loss,
        "last_loss": last.loss,
    }


def telling(chosen: Recipe) -> dict[str, Any]:
    """The same run, telling of its steps half the time."""
    folder = Runs().make(chosen)
    return _child("telling_train", str(folder))


def _child(name: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.children.{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:])
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told: dict[str, Any] = json.loads(lines[-1])
    return told


TELLING = "telling"

SIDES = {
    "unsloth, 1 × 1 packed": ("unsloth", (1, 1), STEPS * 2),
    "unsloth, 2 × 4 packed": ("unsloth", (2, 4), STEPS // 3),
    "PEFT, 1 × 1 packed": ("peft", (1, 1), STEPS * 2),
}


def estimates(base: Path, data: Path) -> dict[str, int]:
    """What the program says beforehand that each side will take of the GPU, in bytes."""
    shape = inventory.at(base).shape or Shape(weight_bytes=0)
    return {
        name: memory.needed(recipe(base, data, "x", *side), shape, on_gpu=True)
        for name, side in SIDES.items()
    }


def table(results: dict[str, dict[str, Any]], expected: dict[str, int]) -> str:
    """The page's table."""
    tutorial = results["tutorial"]["tok_s"]
    whole = "| | tokens/s | × tutorial | rows in a step | peak reserved, GiB | estimated before, GiB |"
    lines = [whole, "| --- | --- | --- | --- | --- | --- |"]
    for name, side in results.items():
        if name == TELLING:
            continue
        before = f"{expected[name] / GIB:.2f}" if name in expected else ""
        lines.append(
            f"| {name} | {side['tok_s']:,.0f} | {side['tok_s'] / tutorial:.2f} | {side['rows_per_step']:.0f} "
            f"| {side['reserved_bytes'] / GIB:.2f} | {before} |"
        )
    return "\n".join(lines)


def verdicts(results: dict[str, dict[str, Any]]) -> str:
    """The targets, and whether they were met."""
    tutorial = results["tutorial"]["tok_s"]
    one, eight = results["unsloth, 1 × 1 packed"], results["unsloth, 2 × 4 packed"]
    plain = results["PEFT, 1 × 1 packed"]
    cost = 1 - results[TELLING]["told_tok_s"] / results[TELLING]["silent_tok_s"]
    gib = {name: side["reserved_bytes"] / GIB for name, side in results.items() if "reserved_bytes" in side}
    least = {
        "2 × 4 packed against the tutorial": (eight["tok_s"] / tutorial, 10),
        "1 × 1 packed against the tutorial": (one["tok_s"] / tutorial, 5),
        "PEFT against unsloth, 1 × 1": (plain["tok_s"] / one["tok_s"], 0.6),
    }
    most = {
        "2 × 4 packed, GiB": (gib["unsloth, 2 × 4 packed"], 8),
        "PEFT, 1 × 1 packed, GiB": (gib["PEFT, 1 × 1 packed"], 5),
        "cost of telling, %": (cost * 100, 1),
    }
    told = [(name, got, f"at least {bound}", got >= bound) for name, (got, bound) in least.items()]
    told += [(name, got, f"at most {bound}", got <= bound) for name, (got, bound) in most.items()]
    rows = [f"| {n} | {v:.2f} | {t} | {'yes' if ok else '**no**'} |" for n, v, t, ok in told]
    return "\n".join(["| | | target | met |", "| --- | --- | --- | --- |", *rows])


def apart(results: dict[str, dict[str, Any]]) -> str:
    """Which sides were not measured on the card of the others, "" where all were."""
    usual = results["tutorial"].get("card")
    others = [name for name, side in results.items() if side.get("card") != usual]
    return f" Measured later, on another card of the kind: {', '.join(others)}." if others else ""


def page(results: dict[str, dict[str, Any]], expected: dict[str, int]) -> str:
    """The whole page."""
    return f"""# Fine-tuning on a GPU

Written by `python -m benchmarks.training_gpu DATA.csv --markdown docs/benchmarks-training-gpu.md`; do not
edit by hand.

{where("unsloth", "trl")}

A model in the shapes of Qwen3-4B with random weights, nf4, a LoRA of rank 16 on all seven projections, length
2048, AdamW (the tutorial's in 8 bits, ours in 32 and one kernel), Toyhom's internal-medicine sample with
answers of at most {LONGEST_ANSWER} characters. The tutorial's script trains through unsloth on 2 × 4 rows a
step, without packing; ours is `drkun train`. Tokens are those of text, padding not counted, over the steps
behind the first {WARM_UP}. All on the same card, one after the other. What telling costs comes from one run
of 1 × 1 that tells of its steps in every other block
of ten; where it is below nothing, it is less than what differs from block to block. Random weights are honest
for speed and memory, never for quality.{apart(results)}

{table(results, expected)}

{verdicts(results)}
"""


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_gpu")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="with base/, as benchmarks.gpu makes it")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keeps the sides; those in it are not run")
    parser.add_argument("--logs", type=Path, default=Path(), metavar="FOLDER")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    if arguments.json and arguments.json.exists():
        results = json.loads(arguments.json.read_text("utf8"))
    with tempfile.TemporaryDirectory() as name:
        os.environ["DRKUN_HOME"] = name
        folder = arguments.model or Path(name)
        if not (folder / "base").exists():
            made = f"from benchmarks.gpu import *; make_model(Path({str(folder)!r}))"
            subprocess.run([sys.executable, "-c", made], check=True)
        base, data = folder / "base", arguments.data

        def keep(side: str, told: dict[str, Any]) -> None:
            card = hardware.read().nvidia
            results[side] = {**told, "card": card.uuid if card else ""}
            print(side, json.dumps(told), file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1), "utf8")

        for number, (side, settings) in enumerate(SIDES.items()):
            log = arguments.logs / f"training-{number}.log"
            if side not in results:
                keep(side, ours(recipe(base, data, str(number), *settings), log))
        if TELLING not in results:
            backend, sizes, _ = SIDES["unsloth, 1 × 1 packed"]
            keep(TELLING, telling(recipe(base, data, TELLING, backend, sizes, telling_train.STEPS)))
        if "tutorial" not in results:
            keep("tutorial", _child("tutorial_train", str(base), str(data), str(STEPS // 2)))
        text = page(results, estimates(base, data))
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text, "utf8")


if __name__ == "__main__":
    main()
