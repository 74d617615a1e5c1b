"""The common decoder architecture (Llama, Qwen2, Qwen3), evaluated over the weights of a loaded model.

Transformers' own forward launches some thirty kernels a layer, and a GPU waits for most of them.
`LeanDecoder.evaluate` is plain PyTorch for any number of tokens and any device; on a GPU single tokens go
through `FusedStep`, captured in a CUDA graph.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from drkun_tui.engine.transformers.graphs import Step, captured
from drkun_tui.engine.transformers.memory import ran_out
from drkun_tui.engine.transformers.sampling import Picker
from drkun_tui.engine.transformers.weights import Changes, Layer, Projection


class LeanDecoder:
    """Evaluates tokens into a KV cache of fixed size; see `Decoder`."""

    def __init__(self, model: Any, capacity: int, picker: Picker) -> None:
        config, inner = model.config, model.model
        self.picker = picker
        self.capacity = capacity
        self.embedding: Tensor = inner.embed_tokens.weight.data
        self.norm: Tensor = inner.norm.weight.data
        self.head = Projection([model.lm_head])
        self.eps = float(config.rms_norm_eps)
        attention = inner.layers[0].self_attn
        self.head_dim: int = attention.head_dim
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.scale = float(attention.scaling)
        positions = torch.arange(capacity, device=self.device)
        cosine, sine = inner.rotary_emb(self.embedding[:1, None], positions[None])
        self.cosine, self.sine = cosine[0], sine[0]
        self.layers = [self._layer(layer) for layer in inner.layers]
        self._graph: Step | None = None
        self._adapted = False
        self._scratch: list[Tensor] = []
        self.not_fused = ""
        """Why single tokens do not go through our own kernels on a GPU."""

    @property
    def device(self) -> torch.device:
        """Where it all is."""
        return self.embedding.device

    @property
    def fused(self) -> bool:
        """Do single tokens go through our own kernels?"""
        return self._graph is not None

    def _layer(self, layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        norms = None
        if hasattr(attention, "q_norm"):
            norms = attention.q_norm.weight.data, attention.k_norm.weight.data
        cache = torch.zeros(
            2, self.kv_heads, self.capacity, self.head_dim, dtype=self.embedding.dtype, device=self.device
        )
        return Layer(
            input_norm=layer.input_layernorm.weight.data,
            qkv=Projection([attention.q_proj, attention.k_proj, attention.v_proj]),
            head_norms=norms,
            out=Projection([attention.o_proj]),
            mlp_norm=layer.post_attention_layernorm.weight.data,
            gate_up=Projection([mlp.gate_proj, mlp.up_proj]),
            down=Projection([mlp.down_proj]),
            keys=cache[0],
            values=cache[1],
        )

    def adapt(self, adapters: Changes) -> None:
        """Be ready to decode with these low-rank changes; see `Projection.adapt`."""
        for layer in self.layers:
            for projection in layer.projections:
                projection.adapt(adapters)
        # A graph without any serves every merged adapter: the weights change where they are.
        if self.device.type == "cuda" and (self._graph is None or adapters or self._adapted):
            self._graph = self._capture()
        self._adapted = bool(adapters)

    def _capture(self) -> Step | None:
        try:
            from drkun_tui.engine.transformers.fused import FusedStep

            self.picker.position.zero_()
            with torch.inference_mode():
                step = FusedStep(self)
                graph = captured(step, self.device)
            # The graph writes to these for as long as it lives, and does not hold them.
            self._scratch = [value for value in vars(step).values() if isinstance(value, Tensor)]
            return graph
        except Exception as error:
            if ran_out(error):
                raise
            # No Triton, no C compiler, a head size without a kernel: slower, and still right.
            print(f"no fused decode step: {error!r}", file=sys.stderr)  # noqa: T201  # the engine's log
            self.not_fused = " ".join(str(error).split())[:200] or type(error).__name__
            return None

    @torch.inference_mode()
    def evaluate(self, tokens: list[int], start: int) -> None:
        """Evaluate tokens at the positions from `start`; the last one's logits go to the picker."""
        self._forward(torch.tensor(tokens, device=self.device), start)

    @torch.inference_mode()
    def step(self, position: int) -> None:
        """Evaluate the picker's token at its position, which `position` repeats for the host."""
        if self._graph is not None:
            self._graph()
        else:
            self._forward(self.picker.token, position)
            self.picker.position.add_(1)

    def _forward(self, tokens: Tensor, start: int) -> None:
        end = start + len(tokens)
        x = F.embedding(tokens, self.embedding)
        cosine, sine = self.cosine[start:end, None], self.sine[start:end, None]
        mask = None
        if start and len(tokens) > 1:
            mask = causal_lower_right(len(tokens), end)
        for layer in self.layers:
            qkv = layer.qkv(self._norm(x, layer.input_norm)).view(len(tokens), -1, self.head_dim)
            rotated = qkv[:, : self.heads + self.kv_heads]
            if layer.head_norms:
                q_gain, k_gain = layer.head_norms
                rotated = torch.cat(
                    [
                        self._norm(rotated[:, : self.heads], q_gain),
                        self._norm(rotated[:, self.heads :], k_gain),
                    ],
                    1,
                )
            first, second = rotated.chunk(2, -1)
            rotated = rotated * cosine + torch.cat([-second, first], -1) * sine
            layer.keys[:, start:end] = rotated[:, self.heads :].transpose(0, 1)
            layer.values[:, start:end] = qkv[:, self.heads + self.kv_heads :].transpose(0, 1)
            attended = F.scaled_dot_product_attention(
                rotated[:, : self.heads].transpose(0, 1)[None],
                layer.keys[None, :, :end],
                layer.values[None, :, :end],
                attn_mask=mask,
                is_causal=not start and len(tokens) > 1,
                scale=self.scale,
                enable_gqa=self.heads != self.kv_heads,
            )
            x = x + layer.out(attended[0].transpose(0, 1).reshape(len(tokens), -1))
            gate, up = layer.gate_up(self._norm(x, layer.mlp_norm)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        self.picker.logits.copy_(self.head(self._norm(x[-1:], self.norm))[0])

    def _norm(self, x: Tensor, gain: Tensor) -> Tensor:
        # Rounded before the gain, as Transformers does it.
        return F.rms_norm(x, gain.shape, None, self.eps) * gain
