"""The model card that an adapter is born with."""

from __future__ import annotations

import json
from collections.abc import Sequence

from drkun_tui.library import provenance
from drkun_tui.library.inspection import licence_of, raw_card
from drkun_tui.library.model import Model
from drkun_tui.training.history import History
from drkun_tui.training.protocol import HeldOut, Planned, Step
from drkun_tui.training.recipe import Recipe

MOST_STEPS = 10
"""Steps whose loss stands in the card."""


def _some(steps: Sequence[Step]) -> Sequence[Step]:
    """The first step, the last one, and some between."""
    if len(steps) <= MOST_STEPS:
        return steps
    return [steps[number * (len(steps) - 1) // (MOST_STEPS - 1)] for number in range(MOST_STEPS)]


def _curve(title: str, points: Sequence[Step | HeldOut]) -> str:
    rows = "\n".join(f"| {point.step} | {point.loss:.4f} |" for point in points)
    return f"\n## {title}\n\n| step | loss |\n| --- | --- |\n{rows}\n" if rows else ""


def _trained_through(planned: Planned) -> str:
    return f"{planned.backend}, on {planned.device}{', the base sharded' if planned.sharded else ''}"


def card(recipe: Recipe, base: Model, base_name: str, history: History) -> str:
    """The model card, Markdown with the hubs' metadata on top; it names no path of this machine."""
    data = recipe.data
    hub = f"{provenance.public_data(data.hub)} {data.config}".strip()
    source = hub if data.hub else provenance.last_part(data.path)
    training, adapter, planned = recipe.training, recipe.adapter, history.planned
    rows = [
        ("base model", base_name),
        ("data", source),
        ("rank, alpha, dropout", f"{adapter.rank}, {adapter.alpha}, {adapter.dropout:g}"),
        ("layers", ", ".join(adapter.targets)),
        ("optimizer steps", str(history.step)),
        (
            "learning rate",
            f"{training.learning_rate:g}, {training.scheduler}, warm-up {training.warmup_steps}",
        ),
        ("optimizer", f"{training.optimizer}, weight decay {training.weight_decay:g}"),
        ("context length", f"{training.context_length}{', packed' if training.packing else ''}"),
        ("seed", str(training.seed)),
    ]
    if history.prepared:
        told = history.prepared
        rows.append(("examples", f"{told.rows}, and {told.held_out} held out"))
        dropped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in told.dropped.items())
        rows.append(("rows left out", dropped or "none"))
        rows.append(("tokens", f"{told.tokens}, of which {told.trained_tokens} in responses"))
        rows.append(("data fingerprint", told.fingerprint))
    if planned:
        rows.append(("examples in a step", f"{planned.rows_per_step:.1f}"))
        rows.append(("trained through", _trained_through(planned)))
    if history.steps:
        rows.append(
            ("loss, first to last step", f"{history.steps[0].loss:.3f} to {history.steps[-1].loss:.3f}")
        )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    curves = _curve("Held-out response loss", history.held_out)
    curves += _curve("Training loss", _some(history.steps))
    warning = "\nThe base is a demonstration model; so is this.\n" if base.demonstration else ""
    licence = licence_of(raw_card(base))
    license_line = f"license: {licence}\n" if licence else ""
    return f"""---
base_model: {json.dumps(base_name)}
library_name: peft
pipeline_tag: text-generation
{license_line}tags: [lora, medical]
---

# {adapter.name.rpartition("/")[2]}

A LoRA for {base_name}, fine-tuned on medical dialogues. Its answers are a model's and no medical advice.
{warning}
The licences of the base model ({licence or "unknown"}) and of the data apply.

## Settings

| | |
| --- | --- |
{table}
{curves}"""
