"""What training takes of a card's memory, or of the machine's, before anything is loaded."""

from __future__ import annotations

from drkun_tui.library.fit import NF4_WEIGHT_BYTES, Shape
from drkun_tui.training.recipe import Precision, Recipe

GIB = 1024**3
_CHUNK = 256
"""Tokens whose logits are held at once: TRL computes the loss without the whole of them."""
_CPU_BYTES, _CUDA_BYTES = int(0.9 * GIB), int(0.8 * GIB)
"""The process with PyTorch, Transformers and TRL in it; CUDA's context and the allocator's slack."""


def needed(recipe: Recipe, shape: Shape, *, on_gpu: bool, processes: int = 1) -> int:
    """Bytes that one process of a run takes at most.

    Frozen weights in their precision; adapter weights, gradients and Adam's two moments in 32 bits (one byte
    each for the moments in 8-bit AdamW); for each token of a batch the input of every layer (with gradient
    checkpointing, Chen and others 2016, arXiv:1604.06174) or everything that a layer keeps for the backward
    pass (34 bytes for each of hidden's elements at 16 bits and no dropout, Korthikanti and others 2022,
    arXiv:2205.05198, without the attention matrix, which no kernel keeps); logits of one chunk.

    Args:
        processes: of the run; where the recipe shards the base, each holds its part.
    """
    training = recipe.training
    moments = 2 if "8bit" in training.optimizer and on_gpu else 8
    adapter = adapter_parameters(recipe, shape) * (8 + moments)
    element = 2 if on_gpu else 4
    tokens = training.batch_size * training.context_length
    layer = tokens * 17 * element * max(shape.embedding, shape.feed_forward // 3)
    kept = tokens * shape.embedding * element * shape.layers + layer
    activations = kept if training.gradient_checkpointing else layer * shape.layers
    logits = 3 * 4 * min(tokens, _CHUNK) * shape.vocabulary
    weights = _weights(recipe, shape, on_gpu=on_gpu, processes=processes)
    return weights + adapter + activations + logits + (_CUDA_BYTES if on_gpu else _CPU_BYTES)


def precision(recipe: Recipe, *, on_gpu: bool) -> Precision:
    """Of the frozen weights. Shards are in 16 bits on a GPU: bitsandbytes' four bits cannot be sharded."""
    if recipe.base.precision != "auto":
        return recipe.base.precision
    if not on_gpu:
        return "fp32"
    return "bf16" if recipe.training.sharding == "full" else "nf4"


def _weights(recipe: Recipe, shape: Shape, *, on_gpu: bool, processes: int) -> int:
    """The frozen ones. Of a sharded base (FSDP, Zhao and others 2023, arXiv:2304.11277) each process holds
    its part, and whole: the layer that is computed, the next one, which is fetched meanwhile, and the output
    embedding from the forward pass to the backward one."""
    parameters = shape.parameters or shape.weight_bytes * (2 if shape.is_gguf else 1) // 2
    kind = precision(recipe, on_gpu=on_gpu)
    if kind == "nf4":
        rest = parameters - shape.embedding_parameters
        return int(rest * NF4_WEIGHT_BYTES) + 2 * shape.embedding_parameters
    element = 4 if kind == "fp32" else 2
    if recipe.training.sharding != "full" or processes == 1:
        return parameters * element
    layer = (parameters - shape.embedding_parameters) // max(shape.layers, 1)
    head = shape.vocabulary * shape.embedding
    return (parameters // processes + 2 * layer + head) * element


def adapter_parameters(recipe: Recipe, shape: Shape) -> int:
    """Parameters of the LoRA: rank x (inputs + outputs) of each target, summed over the layers."""
    hidden, wide, layers = shape.embedding, shape.feed_forward, max(shape.layers, 1)
    queries = shape.heads // layers * shape.head_length
    values = shape.cache_bytes // layers // 4
    sides = {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, values),
        "v_proj": (hidden, values),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, wide),
        "up_proj": (hidden, wide),
        "down_proj": (wide, hidden),
    }
    per_layer = sum(sum(sides.get(name, (hidden, hidden))) for name in recipe.adapter.targets)
    return recipe.adapter.rank * per_layer * layers
