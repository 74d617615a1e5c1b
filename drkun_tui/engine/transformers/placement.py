"""Which parts of a model go to the GPU where not all of them find room there."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from drkun_tui.engine.protocol import Load


def blocks(model: nn.Module, weights: str) -> dict[str, int]:
    """Bytes of the parts of a model that stay whole: each of its layers, and whatever is beside them. What
    parts share counts for the first."""
    parts: dict[str, nn.Module] = {}

    def descend(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            if isinstance(module, nn.ModuleList) or not any(
                isinstance(part, nn.ModuleList) for part in child.modules()
            ):
                parts[prefix + name] = child
            else:
                descend(child, f"{prefix}{name}.")

    descend(model, "")
    seen: set[int] = set()
    sizes = {}
    for name, part in parts.items():
        own = [parameter for parameter in part.parameters() if id(parameter) not in seen]
        seen |= set(map(id, own))
        sizes[name] = int(
            sum(
                parameter.numel() * bytes_of(weights, quantised=is_layer(name) and parameter.ndim == 2)
                for parameter in own
            )
        )
    return sizes


def place(sizes: dict[str, int], room: float, device: torch.device) -> dict[str, torch.device | str]:
    """Where each of the `blocks` goes: of the layers the first on the device, as many as there is room for;
    the others in the CPU's memory; everything else on the device, since each token needs it."""
    placed: dict[str, torch.device | str] = dict.fromkeys(sizes, device)
    left = room - sum(size for name, size in sizes.items() if not is_layer(name))
    for name in filter(is_layer, sizes):
        left -= sizes[name]
        if left < 0:
            placed[name] = "cpu"
    return placed


def is_layer(name: str) -> bool:
    """Is one of the `blocks` a layer?"""
    return name.rpartition(".")[2].isdecimal()


def context_bytes(config: Any, request: Load) -> int:
    """Keys and values of the whole context."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    in_all = 2 * config.num_hidden_layers * heads * head_dim * request.context_length * request.sequences
    return int(in_all * bytes_of("full" if request.weights == "full" else "half"))


def bytes_of(weights: str, *, quantised: bool = False) -> float:
    """What a number takes, in nf4 with its share of the scales."""
    return 0.52 if weights == "nf4" and quantised else 4 if weights == "full" else 2
