"""Any causal language model, evaluated by Transformers' own forward over a KV cache of fixed size.

Slower than `lean` by the kernels that Transformers launches, and free of assumptions: other architectures,
layers in the CPU's memory, adapters of every kind that PEFT knows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.transformers.graphs import Step, captured
from drkun_tui.engine.transformers.sampling import Picker

SMALLEST_WINDOW = 1024
"""Positions that a captured step reads at least; twice as many each time that this is too few."""


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, in memory that never moves."""

    is_sliding = False
    is_croppable = True
    keys: Tensor
    values: Tensor

    def __init__(self, cache: _FixedCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_zeros(*states.shape[:2], self._cache.capacity, states.shape[-1])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if (position := self._cache.position) is not None:
            self.keys.index_copy_(2, position, key_states)
            self.values.index_copy_(2, position, value_states)
            end = self._cache.window
        else:
            end = self._cache.length + key_states.shape[2]
            self.keys[:, :, self._cache.length : end] = key_states
            self.values[:, :, self._cache.length : end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._cache.length + query_length, 0

    def get_seq_length(self) -> int:
        return self._cache.length

    def get_max_length(self) -> int:
        return self._cache.capacity


class _FixedCache(Cache):
    """Every layer's; filled up to `length`."""

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.position: Tensor | None = None
        """Where a captured step writes, in device memory; None while the host says where."""
        self.window = 0
        """How many positions a captured step reads."""
        super().__init__(layers=[_Layer(self) for _ in range(layers)])


def refuse_recurrent(model: Any) -> set[str]:
    """The kinds of the model's layers.

    Raises:
        EngineError: ``load_failed``, a layer keeps a state that cannot be taken back to an earlier one.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if model._is_stateful or not kinds <= {"full_attention", "sliding_attention"}:
        reason = f"{config.model_type} keeps a recurrent state"
        raise EngineError("load_failed", file=Path(model.name_or_path).name, reason=reason)
    return kinds


class GenericDecoder:
    """See `Decoder`.

    Raises:
        EngineError: ``load_failed``, a layer keeps a state that cannot be taken back to an earlier one.
    """

    fused = False

    def __init__(self, model: Any, capacity: int, picker: Picker) -> None:
        self.picker = picker
        self._model = model
        self._capacity = capacity
        kinds = refuse_recurrent(model)
        config = model.config.get_text_config()
        self._cache = _FixedCache(config.num_hidden_layers, capacity)
        self._device: torch.device = picker.logits.device
        window = getattr(config, "sliding_window", None)
        self._capturable = (
            self._device.type == "cuda"
            and not hasattr(model, "_hf_hook")
            and (kinds == {"full_attention"} and (not window or window >= capacity))
        )
        self._graphs: dict[int, Step] = {}

    @torch.inference_mode()
    def evaluate(self, tokens: list[int], start: int) -> None:
        """Evaluate tokens at the positions from `start`; the last one's logits go to the picker."""
        self._forward(torch.tensor([tokens], device=self._device), start)

    @torch.inference_mode()
    def step(self, position: int) -> None:
        """Evaluate the picker's token at its position, which `position` repeats for the host."""
        graph = self._graph(position) if self._capturable else None
        if graph is not None:
            graph()
            return
        self._forward(self.picker.token[None], position)
        self.picker.position.add_(1)

    def _forward(self, tokens: Tensor, start: int) -> None:
        self._cache.length = start
        told = self._model(input_ids=tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self.picker.logits.copy_(told.logits[0, -1])

    def _graph(self, position: int) -> Step | None:
        window = SMALLEST_WINDOW
        while window <= position:
            window *= 2
        window = min(window, self._capacity)
        if window not in self._graphs:
            kept = self.picker.position.clone(), self.picker.token.clone()
            try:
                self._graphs[window] = captured(lambda: self._captured_step(window), self._device)
            except RuntimeError as error:
                # Some models decide on the host what to launch.
                print(f"no captured decode step: {error}", file=sys.stderr)  # noqa: T201  # the engine's log
                self._capturable = False
                return None
            finally:
                self._cache.position = None
                # Capturing has evaluated the token once already; the same values are written again.
                self.picker.position.copy_(kept[0])
                self.picker.token.copy_(kept[1])
        return self._graphs[window]

    def _captured_step(self, window: int) -> None:
        position = self.picker.position
        self._cache.position, self._cache.window = position, window
        mask = (torch.arange(window, device=self._device) <= position)[None, None, None]
        told = self._model(
            input_ids=self.picker.token[None],
            position_ids=position[None],
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.picker.logits.copy_(told.logits[0, -1])
        position.add_(1)
