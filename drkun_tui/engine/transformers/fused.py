"""One decode step over a `LeanDecoder`'s weights with our own kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor

from drkun_tui.engine.transformers.kernels import attention_kernel, matvec_kernel, merge_kernel, rope_kernel
from drkun_tui.engine.transformers.weights import Projection

if TYPE_CHECKING:
    from drkun_tui.engine.transformers.lean import LeanDecoder

SPLITS = 16
"""Shares that each head's attention is cut into, so that one question fills the GPU."""

ATTENTION_BLOCK = 64
"""Positions read at once."""

_NONE = 1 << 30


class FusedStep:
    """Evaluates the picker's token at its position and moves on; fit to be captured.

    Raises:
        ValueError: the kernels have no form for this model.
    """

    def __init__(self, decoder: LeanDecoder) -> None:
        self._of = decoder
        shapes = (decoder.head_dim, decoder.heads, decoder.kv_heads)
        projections = [projection for layer in decoder.layers for projection in layer.projections]
        stacked = all(projection.nf4 or not projection.quantised for projection in projections)
        if shapes[0] & (shapes[0] - 1) or not 16 <= shapes[0] <= 256 or not stacked:
            raise ValueError(f"no kernels for the shapes {shapes}")
        like = decoder.embedding
        first = decoder.layers[0]
        self._x = like.new_empty(first.qkv.columns)
        self._qkv = like.new_empty(sum(first.qkv.rows))
        self._queries = like.new_empty(decoder.heads * decoder.head_dim)
        self._attended = torch.empty_like(self._queries)
        self._hidden = like.new_empty(first.down.columns)

        def wide(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=like.device)

        self._lora = wide(max(0 if p.lora_a is None else len(p.lora_a) for p in projections))
        self._shares = wide(decoder.heads, SPLITS, decoder.head_dim)
        self._largest = wide(decoder.heads, SPLITS)
        self._sums = wide(decoder.heads, SPLITS)
        self._nothing = wide(1)

    def __call__(self) -> None:
        """Run it."""
        of, x = self._of, self._x
        torch.index_select(of.embedding, 0, of.picker.token, out=x.view(1, -1))
        position = of.picker.position
        half = of.head_dim // 2
        for layer in of.layers:
            self._project(layer.qkv, x, self._qkv, norm=layer.input_norm)
            q_gain, k_gain = layer.head_norms or (self._nothing, self._nothing)
            rope_kernel[(of.heads + 2 * of.kv_heads,)](
                self._qkv, self._queries, layer.keys, layer.values, q_gain, k_gain, of.cosine, of.sine,
                position, of.capacity, of.eps,
                HEADS=of.heads, KV_HEADS=of.kv_heads, HALF=half, NORM=layer.head_norms is not None,
                num_warps=1,
            )  # fmt: skip
            group = of.heads // of.kv_heads
            attention_kernel[(of.kv_heads, SPLITS)](
                self._queries, layer.keys, layer.values, self._shares, self._largest, self._sums,
                position, of.capacity, of.scale,
                GROUP=group, GROUP_PAD=max(16, triton.next_power_of_2(group)), HEAD_DIM=of.head_dim,
                SPLITS=SPLITS, BLOCK=ATTENTION_BLOCK,
            )  # fmt: skip
            merge_kernel[(of.heads,)](
                self._shares, self._largest, self._sums, self._attended,
                HEAD_DIM=of.head_dim, SPLITS=SPLITS,
            )  # fmt: skip
            self._project(layer.out, self._attended, x, residual=x)
            self._project(layer.gate_up, x, self._hidden, norm=layer.mlp_norm, gated=True)
            self._project(layer.down, self._hidden, x, residual=x)
        self._project(of.head, x, of.picker.logits, norm=of.norm)
        position.add_(1)

    def _project(
        self,
        projection: Projection,
        x: Tensor,
        out: Tensor,
        *,
        norm: Tensor | None = None,
        residual: Tensor | None = None,
        gated: bool = False,
    ) -> None:
        """See `matvec_kernel`."""
        rank = 0
        if projection.lora_a is not None and projection.lora_b is not None:
            rank = projection.lora_b.shape[1]
            self._launch(x, projection.lora_a, self._lora, len(projection.lora_a), projection.columns, norm)
        self._launch(
            x,
            projection.weight,
            out,
            projection.rows[0] if gated else sum(projection.rows),
            projection.columns,
            norm,
            projection=projection,
            residual=residual,
            gated=gated,
            rank=rank,
        )

    def _launch(
        self,
        x: Tensor,
        weight: Tensor,
        out: Tensor,
        rows: int,
        columns: int,
        norm: Tensor | None,
        *,
        projection: Projection | None = None,
        residual: Tensor | None = None,
        gated: bool = False,
        rank: int = 0,
    ) -> None:
        nothing = self._nothing
        bias = projection.bias if projection else None
        lora_b = projection.lora_b if projection and rank else None
        nf4 = projection.nf4 if projection else None
        bounds = [*(projection.starts[1:-1] if projection else ()), _NONE, _NONE]
        # Measured on an H100 with the shapes of Qwen3-4B, among ten tilings each.
        block_rows, block_columns = (4, 512) if nf4 is None else (16, 256) if gated else (8, 512)
        matvec_kernel[(triton.cdiv(rows, block_rows),)](
            x,
            weight,
            out,
            nothing if norm is None else norm,
            nothing if bias is None else bias,
            nothing if residual is None else residual,
            self._lora,
            nothing if lora_b is None else lora_b,
            nf4.values if nf4 else nothing,
            nf4.absmax if nf4 else nothing,
            nf4.absmax_values if nf4 else nothing,
            nf4.absmax_scale if nf4 else nothing,
            nf4.absmax_offset if nf4 else nothing,
            rows,
            bounds[0],
            bounds[1],
            self._of.eps,
            K=columns,
            BLOCK_N=block_rows,
            BLOCK_K=block_columns,
            NORM=norm is not None,
            SILU=gated,
            BIAS=bias is not None,
            RESIDUAL=residual is not None,
            RANK=rank,
            NF4=nf4 is not None,
        )
