"""What a run leaves: the adapter with its tokenizer, how it was trained, and its card; whole or not."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from drkun_tui.library import provenance
from drkun_tui.library.model import Model
from drkun_tui.library.provenance import Prompt, Provenance
from drkun_tui.training import recipe as recipes
from drkun_tui.training.card import card
from drkun_tui.training.history import History
from drkun_tui.training.recipe import Recipe

_PACKAGES = ("torch", "transformers", "peft", "trl", "unsloth", "bitsandbytes")


def write(
    model: Any,
    tokenizer: Any,
    target: Path,
    *,
    run: str,
    recipe: Recipe,
    base: Model,
    base_name: str,
    reasons: bool,
    fingerprint: str,
    history: History,
) -> None:
    """Write the adapter's folder aside, and rename it.

    Args:
        model: a PEFT model.
        target: the folder; it does not exist.
        run: the id of the run.
        base: what was trained on.
        base_name: what the base is called in the library; a path of this machine would mean nothing
            elsewhere.
        reasons: did the examples have reasoning?
        fingerprint: of the data.
        history: what the run has told.

    Raises:
        OSError: it cannot be written.
    """
    aside = target.with_name(f".{target.name}.{run}.unfinished")
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
            base_revision=revision_of(base),
            prompt=Prompt(template=named, system=recipe.data.system, thinking_tags=tags if reasons else None),
            data_fingerprint=fingerprint,
            recipe=recipes.dump(recipe),
            seed=recipe.training.seed,
            run=run,
            versions=_versions(),
            demonstration=base.demonstration,
        )
        provenance.write(aside, told)
        (aside / "README.md").write_text(card(recipe, base, base_name, history), "utf8")
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def trained_weights(model: Any) -> dict[str, Any]:
    """The adapter's tensors by name. Every process holds them whole, also beside a sharded base, which is not
    touched."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def revision_of(base: Model) -> str:
    """The commit of the base where its place tells it, as in the cache of Hugging Face's hub; else ""."""
    return base.path.name if base.path.parent.name == "snapshots" else ""


def is_of(target: Path, run: str) -> bool:
    """Was the adapter in this folder made by this very run?"""
    try:
        told = provenance.read(target)
    except ValueError:
        return False
    return told is not None and told.run == run


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
