"""Makes the files of a base of Qwen3-4B's shapes with random weights, and of a LoRA for it, without a model:
``random_files.py FOLDER``. What is merged has the size that people merge, and would answer nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

LAYERS, HIDDEN, INNER, VOCABULARY = 36, 2560, 9728, 151936
QUERIES, KEYS = 32 * 128, 8 * 128
RANK = 16
SHARD_BYTES = 4 * 10**9

PROJECTIONS = {
    "self_attn.q_proj": (QUERIES, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, QUERIES),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
"""(outputs, inputs) of what the LoRA changes."""

NORMS = {
    "input_layernorm": HIDDEN,
    "post_attention_layernorm": HIDDEN,
    "self_attn.q_norm": 128,
    "self_attn.k_norm": 128,
}


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every weight; the embedding is also the output."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        for name, shape in PROJECTIONS.items():
            yield f"model.layers.{layer}.{name}.weight", shape
        for name, size in NORMS.items():
            yield f"model.layers.{layer}.{name}.weight", (size,)
    yield "model.norm.weight", (HIDDEN,)


def main(folder: Path) -> None:
    """Write ``base`` and ``adapter``; a shard is in memory at a time."""
    torch.manual_seed(0)
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir()
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    size = total = 0

    def write() -> None:
        name = f"model-{len(set(places.values())) + 1:05}.safetensors"
        save_file(shard, base / name, {"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, shape in shapes():
        weight = torch.empty(shape, dtype=torch.bfloat16).normal_(0.0, 0.02)
        if size + weight.nbytes > SHARD_BYTES:
            write()
            size = 0
        shard[name] = weight
        size += weight.nbytes
        total += weight.nbytes
    write()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), "utf8")
    (base / "config.json").write_text(json.dumps({"model_type": "qwen3", "dtype": "bfloat16"}), "utf8")
    pairs: dict[str, torch.Tensor] = {}
    for layer in range(LAYERS):
        for name, (outputs, inputs) in PROJECTIONS.items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            pairs[f"{module}.lora_A.weight"] = torch.randn(RANK, inputs) * 0.01
            pairs[f"{module}.lora_B.weight"] = torch.randn(outputs, RANK) * 0.01
    save_file(pairs, adapter / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    (adapter / "adapter_config.json").write_text(json.dumps(told), "utf8")


if __name__ == "__main__":
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    main(Path(sys.argv[1]))
