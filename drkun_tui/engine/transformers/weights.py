"""The weights of the common decoder architecture (Llama, Qwen2, Qwen3), stacked for few and large products.

Projections that share an input become one matrix, and the loaded model's own modules become views of it, so
nothing is held twice.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

ARCHITECTURES = {"llama", "qwen2", "qwen3"}

_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}
"""Rotary embeddings that do not depend on how long the text becomes."""


Changes = dict[int, tuple[Tensor, Tensor, float]]
"""Low-rank changes by ``id`` of the linear layer: A [rank, columns], B [rows, rank], scale."""


@dataclass(slots=True)
class Nf4:
    """Scales of stacked nf4 weights, as bitsandbytes keeps them (see `kernels.matvec_kernel`)."""

    values: Tensor
    absmax: Tensor
    absmax_values: Tensor
    absmax_scale: Tensor
    absmax_offset: Tensor


class Projection:
    """Linear layers with the same input, as one matrix [rows, columns].

    Args:
        linears: ``nn.Linear`` or bitsandbytes' ``Linear4bit``; their weights become views of the stack.
    """

    def __init__(self, linears: list[Any]) -> None:
        self.linears = linears = [_bare(linear) for linear in linears]
        self.rows = [linear.out_features for linear in linears]
        self.columns: int = linears[0].in_features
        self.starts = list(itertools.accumulate(self.rows, initial=0))
        self.nf4: Nf4 | None = None
        self.lora_a: Tensor | None = None
        """[linears · rank, columns]"""
        self.lora_b: Tensor | None = None
        """[rows, rank], with the adapter's scale in it."""
        state = getattr(linears[0].weight, "quant_state", None)
        self.quantised = state is not None
        if self.quantised:
            # On a CPU bitsandbytes keeps another layout, and no kernel of ours reads it.
            if linears[0].weight.is_cuda:
                self._stack_nf4()
        else:
            self.weight = _stack([linear.weight for linear in linears])
        biases = [linear.bias for linear in linears]
        self.bias: Tensor | None = None
        if any(bias is not None for bias in biases):
            self.bias = torch.cat(
                [
                    self._zeros(rows) if bias is None else bias.data
                    for bias, rows in zip(biases, self.rows, strict=True)
                ]
            )

    def _zeros(self, rows: int) -> Tensor:
        known = next(linear.bias for linear in self.linears if linear.bias is not None)
        return torch.zeros(rows, dtype=known.dtype, device=known.device)

    def _stack_nf4(self) -> None:
        """Stack packed weights where their blocks of scales come out even; else leave them apart."""
        states = [linear.weight.quant_state for linear in self.linears]
        even = all(
            state.nested
            and state.quant_type == "nf4"
            and state.blocksize == 64
            and state.state2.blocksize == 256
            and self.columns % 64 == 0
            and state.shape.numel() % (64 * 256) == 0
            for state in states
        )
        if not even:
            return
        self.weight = _stack([linear.weight for linear in self.linears])
        absmax = torch.cat([state.absmax for state in states])
        parts = absmax.split([len(state.absmax) for state in states])
        for state, part in zip(states, parts, strict=True):
            state.absmax = part
        self.nf4 = Nf4(
            values=states[0].code,
            absmax=absmax,
            absmax_values=states[0].state2.code,
            absmax_scale=torch.cat([state.state2.absmax for state in states]),
            absmax_offset=torch.cat(
                [torch.full_like(state.state2.absmax, float(state.offset)) for state in states]
            ),
        )

    def adapt(self, adapters: Changes) -> None:
        """Add what of these changes is for this projection, in the place of any other."""
        self.lora_a = self.lora_b = None
        ours = [adapters.get(id(linear)) for linear in self.linears]
        ranks = [len(found[0]) for found in ours if found]
        if not ranks:
            return
        # A power of two, which the kernel wants.
        rank = 1 << (max(ranks) - 1).bit_length()
        like = next(found[0] for found in ours if found)
        self.lora_a = like.new_zeros(len(ours) * rank, self.columns)
        self.lora_b = like.new_zeros(sum(self.rows), rank)
        for index, (found, start) in enumerate(zip(ours, self.starts[:-1], strict=True)):
            if found:
                a, b, scale = found
                self.lora_a[index * rank : index * rank + len(a)] = a
                self.lora_b[start : start + len(b), : len(a)] = b.float() * scale

    def __call__(self, x: Tensor) -> Tensor:
        """[tokens, columns] to [tokens, rows]."""
        if self.quantised:
            # bitsandbytes unpacks each of them for a matrix product.
            out = torch.cat([linear(x) for linear in self.linears], -1)
        else:
            out = F.linear(x, self.weight, self.bias)
        if self.lora_a is not None and self.lora_b is not None:
            small = F.linear(x, self.lora_a)
            rank = self.lora_b.shape[1]
            for index, (start, end) in enumerate(itertools.pairwise(self.starts)):
                part = small[:, index * rank : (index + 1) * rank]
                out[:, start:end].addmm_(part, self.lora_b[start:end].T)
        return out


def _stack(weights: list[nn.Parameter]) -> Tensor:
    """One tensor of several, which become views of it; a single one stays as it is."""
    if len(weights) == 1:
        return weights[0].data
    stacked = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, stacked.split([len(weight) for weight in weights]), strict=True):
        weight.data = part
    return stacked


@dataclass(slots=True)
class Layer:
    """One layer's weights, and its part of the KV cache [kv_heads, capacity, head_dim]."""

    input_norm: Tensor
    qkv: Projection
    head_norms: tuple[Tensor, Tensor] | None
    out: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection
    keys: Tensor
    values: Tensor

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All of them."""
        return self.qkv, self.out, self.gate_up, self.down


def supports(model: Any) -> bool:
    """Is this loaded model of the common architecture, all on one device?"""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in ARCHITECTURES
        and config.hidden_act == "silu"
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and rope.get("rope_type", "default") in _FIXED_ROPE
        and len({parameter.device for parameter in model.parameters()}) == 1
        and not hasattr(model, "_hf_hook")
    )


def linears(model: Any) -> list[Any]:
    """Every linear layer of a supported model that an adapter can change here, without PEFT's wrapping."""
    return [
        _bare(linear)
        for layer in model.model.layers
        for linear in (
            layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, layer.self_attn.o_proj,
            layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj,
        )
    ]  # fmt: skip


def _bare(linear: Any) -> Any:
    return getattr(linear, "base_layer", linear)
