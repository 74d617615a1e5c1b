"""A base shared out over several GPUs against a whole one on each: ``python -m benchmarks.training_sharded``.

Makes a model in the shapes of Qwen3-4B with random weights, and trains it twice by the same recipe in 16
bits, once with ``sharding = "none"`` and once with ``"full"``. Both learn from the same batches, so their
losses are the same but for rounding, and the memory of each card tells what was shared out. On a machine
without a GPU the processes share the CPU: give a small model then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.gpu import GIB
from benchmarks.training_gpu import ours
from drkun_tui import hardware
from drkun_tui.library import inventory
from drkun_tui.library.fit import Shape
from drkun_tui.training import memory
from drkun_tui.training.recipe import Adapter, Base, Data, Recipe, Sharding, presets

CLOSE = 0.02
"""Share by which the last losses may differ: 16-bit products are added up in another order."""


def recipe(base: Path, sharding: Sharding, devices: int, steps: int, length: int) -> Recipe:
    """The dialogues that come with the program, a packed sequence for each card and step."""
    return Recipe(
        base=Base(model=str(base), precision="bf16"),
        data=Data(path="demo"),
        adapter=Adapter(name=f"benchmark/{sharding}"),
        training=replace(
            presets()["qwen3-4b-medical"].training,
            backend="peft",
            devices=devices,
            sharding=sharding,
            max_steps=steps,
            context_length=length,
            save_every=0,
            evaluate_every=0,
            sample_every=0,
        ),
    )


def table(results: dict[Sharding, dict[str, Any]], expected: dict[Sharding, int]) -> str:
    """What each side took."""
    lines = [
        "| sharding | tokens/s | first loss | last loss | peak reserved a card, GiB | estimated, GiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {side['tok_s']:,.0f} | {side['first_loss']:.4f} | {side['last_loss']:.4f} "
        f"| {side['reserved_bytes'] / GIB:.2f} | {expected[name] / GIB:.2f} |"
        for name, side in results.items()
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; the exit code is 1 where the two sides do not learn the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_sharded")
    parser.add_argument("--devices", type=int, default=2, metavar="N")
    parser.add_argument("--steps", type=int, default=20, metavar="N")
    parser.add_argument("--length", type=int, default=2048, metavar="TOKENS")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a base in safetensors form")
    parser.add_argument("--logs", type=Path, default=Path(), metavar="FOLDER")
    arguments = parser.parse_args()
    sides: tuple[Sharding, ...] = ("none", "full")
    on_gpu = hardware.read().nvidia is not None
    with tempfile.TemporaryDirectory() as name:
        os.environ["DRKUN_HOME"] = name
        base = arguments.model
        if base is None:
            made = f"from benchmarks.gpu import *; make_model(Path({name!r}))"
            subprocess.run([sys.executable, "-c", made], check=True)
            base = Path(name) / "base"
        shape = inventory.at(base).shape or Shape(weight_bytes=0)
        recipes = {
            side: recipe(base, side, arguments.devices, arguments.steps, arguments.length) for side in sides
        }
        results = {
            side: ours(made, arguments.logs / f"sharding-{side}.log") for side, made in recipes.items()
        }
        expected = {
            side: memory.needed(made, shape, on_gpu=on_gpu, processes=arguments.devices)
            for side, made in recipes.items()
        }
    print(table(results, expected))
    whole, parts = results["none"]["last_loss"], results["full"]["last_loss"]
    alike = abs(whole - parts) <= CLOSE * whole
    print(f"\nThe last losses are {'alike' if alike else 'NOT alike'}: {whole:.4f} and {parts:.4f}.")
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
