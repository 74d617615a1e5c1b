"""Do packed steps learn as much from the same tokens? ``python -m benchmarks.learning DIALOGUES.csv``

The bundled model is trained on a slice of the dialogues, once as the tutorials train and once as the preset
does, from the same seeds and through the code that trains every run. Both see every example once, so they see
the same trained tokens; what is compared is the loss on the responses of the same held-out rows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drkun_tui.settings import Settings
from drkun_tui.training import job, preflight, recipe
from drkun_tui.training.protocol import Finished
from drkun_tui.training.recipe import Recipe, Training
from drkun_tui.training.runs import Runs

PRESET = "qwen3-4b-medical"
"""The preset for dialogues of this kind. Its tutorial makes steps of 2 x 4 rows, without packing."""

TUTORIAL_RATE = 2e-4


@dataclass(frozen=True, slots=True)
class Learned:
    """What one run came to: losses in nats a token, before and after."""

    seed: int
    before: float
    after: float
    trained_tokens: int
    steps: int
    rows_per_step: float
    learning_rate: float


def sides(rows_packed: int) -> dict[str, Training]:
    """What is compared, by name, with the CPU's optimizer and a warm-up as short as the run.

    Args:
        rows_packed: 0 packs as the preset does. Else as many rows share a step and are padded instead.
            Examples in a pack do not see each other, so that learns the same; a CPU, which has no kernel for
            packs, computes it in a fraction of the time.
    """
    ours = msgspec.structs.replace(
        recipe.presets()[PRESET].training,
        optimizer="adamw",
        gradient_checkpointing=False,
        warmup_steps=1,
        max_steps=0,
        epochs=1.0,
        save_every=0,
        sample_every=0,
        # Before the first step and behind the last it is looked at in any case.
        evaluate_every=10**6,
    )
    tutorial = msgspec.structs.replace(
        ours, packing=False, batch_size=2, gradient_accumulation=4, learning_rate=TUTORIAL_RATE
    )
    if rows_packed:
        ours = msgspec.structs.replace(
            ours, packing=False, batch_size=max(1, rows_packed // 3), gradient_accumulation=3
        )
    return {"tutorial": tutorial, "preset": ours}


def train(name: str, training: Training, dialogues: Path, rows: int) -> Learned:
    """One run to its end.

    Raises:
        SystemExit: it has failed.
    """
    made = Recipe(
        base=recipe.Base(model="starter", precision="fp32"),
        # The seed draws the rows and splits them: both sides of a seed hold out the same ones.
        data=recipe.Data(path=str(dialogues), rows=rows, held_out=0.1),
        adapter=recipe.Adapter(name=f"drkun/{name}"),
        training=training,
    )
    runs = Runs()
    folder = runs.make(preflight.check(made, Settings()).recipe)
    job.run(folder)
    told = asyncio.run(runs.history(folder.name))[0]
    if not isinstance(told.end, Finished) or told.prepared is None or told.planned is None:
        raise SystemExit(f"{name}: {told.end}")
    return Learned(
        seed=training.seed,
        before=told.held_out[0].loss,
        after=told.held_out[-1].loss,
        trained_tokens=told.prepared.trained_tokens,
        steps=told.step,
        rows_per_step=told.planned.rows_per_step,
        learning_rate=training.learning_rate,
    )


def table(found: dict[str, list[Learned]]) -> str:
    """A row for each run, then the differences by seed, their mean, and a verdict."""
    lines = ["| side | seed | rows a step | steps | rate | trained tokens | before | after |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        for one in runs:
            cells = (
                f"{one.rows_per_step:.1f}",
                one.steps,
                f"{one.learning_rate:g}",
                f"{one.trained_tokens:,}",
            )
            figures = " | ".join(map(str, cells))
            lines.append(f"| {name} | {one.seed} | {figures} | {one.before:.4f} | {one.after:.4f} |")
    for name, runs in found.items():
        if name == "tutorial":
            continue
        pairs = zip(runs, found["tutorial"], strict=True)
        differences = [ours.after - theirs.after for ours, theirs in pairs]
        mean, each = statistics.mean(differences), ", ".join(f"{one:+.4f}" for one in differences)
        verdict = "no worse" if mean <= 0 else "worse"
        lines += ["", f"{name} - tutorial, by seed: {each}; mean {mean:+.4f} nats: **{verdict}**"]
    return "\n".join(lines)


def main() -> int:
    """Train, print the table; 1 when the preset learns less."""
    arguments = _parser().parse_args()
    chosen = sides(arguments.padded)
    for rate in arguments.rate:
        chosen[f"preset at {rate:g}"] = msgspec.structs.replace(chosen["preset"], learning_rate=rate)
    found: dict[str, list[Learned]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory(prefix="drkun-learning-") as home:
        os.environ["DRKUN_HOME"] = home
        for seed in arguments.seed or (1, 2, 3):
            for name, training in chosen.items():
                seeded = msgspec.structs.replace(training, seed=seed)
                slug = f"{name.replace(' ', '-')}-{seed}"
                one = train(slug, seeded, Path(arguments.dialogues).resolve(), arguments.rows)
                found[name].append(one)
                print(f"{name}, seed {seed}: {one}", file=sys.stderr, flush=True)
    told = table(found)
    print(told)
    return int("**worse**" in told)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("dialogues", help="a file of dialogues, such as Toyhom's")
    parser.add_argument("--rows", type=int, default=400, help="of them, drawn by the seed (400)")
    parser.add_argument("--seed", type=int, action="append", help="may be given again (1, 2 and 3)")
    parser.add_argument("--padded", type=int, default=0, metavar="N", help="N rows a step, not packed")
    parser.add_argument(
        "--rate", type=float, action="append", default=[], help="also the preset at this rate"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
