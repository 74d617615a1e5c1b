"""What a run leaves: the adapter with its tokenizer, how it was trained, and its card; whole or not."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from drkun_tui.library import provenance
from drkun_tui.library.provenance import Prompt, Provenance
from drkun_tui.training import recipe as recipes
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Planned
from drkun_tui.training.recipe import Recipe

_PACKAGES = ("torch", "transformers", "peft", "trl", "unsloth", "bitsandbytes")


def write(
    model: Any,
    tokenizer: Any,
    target: Path,
    *,
    recipe: Recipe,
    base_name: str,
    demonstration: bool,
    reasons: bool,
    fingerprint: str,
    history: History,
) -> None:
    """Write the adapter's folder aside, and rename it.

    Args:
        model: a PEFT model.
        target: the folder; it does not exist.
        base_name: what the base is called in the library; a path of this machine would mean nothing
            elsewhere.
        reasons: did the examples have reasoning?
        fingerprint: of the data.
        history: what the run has told.

    Raises:
        OSError: it cannot be written.
    """
    aside = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        model.save_pretrained(aside, safe_serialization=True, state_dict=trained_weights(model))
        tokenizer.save_pretrained(aside)
        config = json.loads((aside / "adapter_config.json").read_text("utf8"))
        config["base_model_name_or_path"] = base_name
        (aside / "adapter_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), "utf8")
        named = "" if recipe.data.template == "chat" else recipe.data.template
        tags = ("<思考>", "</思考>") if named else ("<think>", "</think>")
        told = Provenance(
            base_model=base_name,
            prompt=Prompt(template=named, system=recipe.data.system, thinking_tags=tags if reasons else None),
            data_fingerprint=fingerprint,
            recipe=recipes.dump(recipe),
            seed=recipe.training.seed,
            versions=_versions(),
            demonstration=demonstration,
        )
        provenance.write(aside, told)
        (aside / "README.md").write_text(card(recipe, base_name, history, demonstration), "utf8")
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def trained_weights(model: Any) -> dict[str, Any]:
    """The adapter's tensors by name. Every process holds them whole, also beside a sharded base, which is not
    touched."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def is_of(target: Path, recipe: Recipe) -> bool:
    """Was the adapter in this folder made by this very recipe?"""
    try:
        told = provenance.read(target)
    except ValueError:
        return False
    return told is not None and told.recipe == recipes.dump(recipe)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _trained_through(planned: Planned) -> str:
    return f"{planned.backend}, on {planned.device}{', the base sharded' if planned.sharded else ''}"


def card(recipe: Recipe, base_name: str, history: History, demonstration: bool) -> str:
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
        rows.append(("tokens", f"{told.tokens}, of which {told.trained_tokens} in responses"))
    if planned:
        rows.append(("examples in a step", f"{planned.rows_per_step:.1f}"))
        rows.append(("trained through", _trained_through(planned)))
    if history.steps:
        rows.append(
            ("loss, first to last step", f"{history.steps[0].loss:.3f} to {history.steps[-1].loss:.3f}")
        )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    looked = "\n".join(f"| {told.step} | {told.loss:.4f} |" for told in history.held_out)
    curve = f"\n## Held-out response loss\n\n| step | loss |\n| --- | --- |\n{looked}\n" if looked else ""
    warning = "\nThe base is a demonstration model; so is this.\n" if demonstration else ""
    return f"""---
base_model: {json.dumps(base_name)}
library_name: peft
pipeline_tag: text-generation
tags: [lora, medical]
---

# {adapter.name.rpartition("/")[2]}

A LoRA for {base_name}, fine-tuned on medical dialogues. Its answers are a model's and no medical advice.
{warning}
The licences of the base model and of the data apply.

## Settings

| | |
| --- | --- |
{table}
{curve}"""
