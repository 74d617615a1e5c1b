"""The card of an exported model."""

from __future__ import annotations

import json

from drkun_tui.library.provenance import Provenance, public_model
from drkun_tui.publishing import targets
from drkun_tui.publishing.protocol import Proved, Request


def base_named(request: Request, trained: Provenance | None) -> str:
    """What the base is called elsewhere; a path of this machine would mean nothing there."""
    return public_model(trained.base_model if trained and trained.base_model else request.base_name)


def of_export(request: Request, trained: Provenance | None, proved: Proved, before: str) -> str:
    """The card of an exported model, Markdown with the hubs' metadata on top.

    Args:
        before: the card of what it was made from, without metadata; its settings are kept.
    """
    base = base_named(request, trained)
    lora, gguf = request.target == targets.LORA, request.target != targets.MERGED
    form = "GGUF LoRA" if lora else f"GGUF {request.target}" if gguf else "safetensors"
    tags = ["medical", *(["gguf"] if gguf else []), *(["lora"] if lora else [])]
    made = f"{request.model.rpartition('/')[2]} with {base}" if request.adapter else base
    demonstration = trained is not None and trained.demonstration
    warning = "\nThe base is a demonstration model; so is this.\n" if demonstration else ""
    settings = before[before.index("## Settings") :] if "## Settings" in before else ""
    text = f"""---
base_model: {json.dumps(base)}
library_name: {"llama.cpp" if gguf else "transformers"}
pipeline_tag: text-generation
tags: {json.dumps(tags)}
---

# {request.name.rpartition("/")[2]}

{made} as {form}. Its answers are a model's and no medical advice.
{warning}
The licences of the base model and of the data apply.

At {proved.positions} positions it was compared with its source: the same next token at
{proved.agreement:.1%}, a mean Kullback-Leibler divergence of {proved.divergence:.2g} nats.

{settings}"""
    return text.rstrip() + "\n"
