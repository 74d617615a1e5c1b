"""What a PEFT LoRA changes of its base, weight by weight; in the exporting processes only."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from drkun_tui import hardware
from drkun_tui.publishing import sources
from drkun_tui.publishing.faults import PublishingError

BLOCK = 1 << 19
"""Elements that are computed on at once: in 32 bits they stay in the processor's cache."""

_LOW_RANK = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.default)?(?:\.weight)?"
)
_PREFIX = "base_model.model."
_UNDER = ".base_layer.weight"

Shapes = Mapping[str, tuple[int, ...]]


@functools.cache
def threads() -> ThreadPoolExecutor:
    """A thread for each core, with blocks of its own. PyTorch's own threads wait for each other at every
    operation, and almost stop when another program wants a core."""
    return ThreadPoolExecutor(hardware.read().physical_cores, "lora", torch.set_num_threads, (1,))


def rows_of(columns: int) -> int:
    """How many rows of so many columns are a block."""
    return max(1, BLOCK // max(1, columns))


Adding = Callable[[torch.Tensor, int], None]
"""Changes rows of a weight in their place. Takes the rows, (count, columns) in 32 bits, and the first one's
number."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """``W + scale * B A`` in the place of a weight ``W``.

    Attributes:
        down: A, (rank, inputs).
        up: B, (outputs, rank).
        scale: see `read`.
        transposed: is the weight stored as (inputs, outputs)?
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    transposed: bool

    def adding(self) -> Adding:
        """What changes the weight block by block, computed in 32 bits."""
        # (outputs, rank) and (rank, inputs), or both the other way round for a transposed weight.
        up, down = (self.down.T, self.up.T) if self.transposed else (self.up, self.down)
        up, down = up.float().contiguous(), down.float().contiguous()

        def add(rows: torch.Tensor, first: int) -> None:
            rows.addmm_(up[first : first + len(rows)], down, alpha=self.scale)

        return add


@dataclass(frozen=True, slots=True)
class Whole:
    """Another weight in the place of the base's, as PEFT's ``modules_to_save`` has it."""

    weight: torch.Tensor

    def adding(self) -> Adding:
        """As `LowRank.adding`."""

        def add(rows: torch.Tensor, first: int) -> None:
            count, columns = rows.shape
            rows.copy_(self.weight.reshape(-1, columns)[first : first + count])

        return add


Change = LowRank | Whole


@dataclass(frozen=True, slots=True)
class Changes:
    """All that an adapter changes, by the names of its base's weights."""

    of: Mapping[str, Change] = field(default_factory=dict)

    def apply(self, name: str, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The weight as it is with the adapter."""
        change = self.of.get(name)
        if change is None:
            return weight.to(dtype)
        changed = torch.empty_like(weight, dtype=dtype, memory_format=torch.contiguous_format)
        into, columns = changed.view(-1, weight.shape[-1]), weight.shape[-1]
        stored, rows, add = weight.reshape(-1, columns), rows_of(columns), change.adding()

        @torch.inference_mode()
        def work(first: int) -> None:
            wide = stored[first : first + rows].to(torch.float32, copy=True)
            add(wide, first)
            into[first : first + rows] = wide

        # Reading the results raises what went wrong.
        list(threads().map(work, range(0, len(stored), rows)))
        return changed


def read(adapter: Path, base: Shapes) -> Changes:
    """What the adapter in this folder changes of a base with these weights.

    The scale is ``alpha / rank``, or ``alpha / sqrt(rank)`` for rank-stabilised LoRA (Kalajdzievski 2023,
    arXiv:2312.03732), with the patterns that PEFT allows for single modules.

    Args:
        adapter: a folder of PEFT's with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the shape of each of the base's weights by name.

    Raises:
        PublishingError: ``not_only_lora``, ``no_tensor``, ``tied`` or ``wrong_shape``.
    """
    config = json.loads((adapter / "adapter_config.json").read_text("utf8"))
    if other := sources.other_method(config):
        raise PublishingError("not_only_lora", tensor=other)
    changes: dict[str, Change] = {}
    sides: dict[tuple[str, bool], dict[str, torch.Tensor]] = {}
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118  # it is no dictionary
            named = key.removeprefix(_PREFIX)
            if found := _LOW_RANK.fullmatch(named):
                name = _checked(f"{found['module']}.weight", base, "no_tensor")
                sides.setdefault((name, bool(found["embedding"])), {})[found["side"]] = file.get_tensor(key)
            elif named.endswith(_UNDER):
                # PEFT saves an embedding that it changes along with the change; it is the base's own.
                name = _checked(named.removesuffix(_UNDER) + ".weight", base, "no_tensor")
                if tuple(file.get_slice(key).get_shape()) != base[name]:
                    raise PublishingError("wrong_shape", tensor=name)
            else:
                saved = re.sub(r"\.modules_to_save(\.default)?\.", ".", named)
                changes[_checked(saved, base, "not_only_lora")] = Whole(file.get_tensor(key))
    for name, change in changes.items():
        if not isinstance(change, Whole) or tuple(change.weight.shape) != base[name]:
            raise PublishingError("wrong_shape", tensor=name)
    for (name, embedding), pair in sides.items():
        if name in changes or pair.keys() != {"A", "B"}:
            raise PublishingError("wrong_shape", tensor=name)
        changes[name] = _low_rank(name, pair["A"], pair["B"], base[name], config, embedding=embedding)
    return Changes(changes)


def _checked(name: str, base: Shapes, otherwise: str) -> str:
    """The name of a weight that the base has."""
    if name in base:
        return name
    tied = name == "lm_head.weight" and any(known.endswith("embed_tokens.weight") for known in base)
    raise PublishingError("tied" if tied else otherwise, tensor=name)


def _low_rank(
    name: str,
    down: torch.Tensor,
    up: torch.Tensor,
    shape: tuple[int, ...],
    config: dict[str, Any],
    *,
    embedding: bool,
) -> LowRank:
    transposed = embedding or bool(config.get("fan_in_fan_out"))
    outputs_inputs = shape[::-1] if transposed else shape
    if down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1]:
        raise PublishingError("wrong_shape", tensor=name)
    if (up.shape[0], down.shape[1]) != outputs_inputs:
        raise PublishingError("wrong_shape", tensor=name)
    rank = down.shape[0]
    alpha = float(_for_module(name.removesuffix(".weight"), config))
    return LowRank(down, up, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), transposed)


def _for_module(module: str, config: dict[str, Any]) -> Any:
    """A module's alpha. PEFT's rule: a pattern is a regular expression for the end of its name."""
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            return value
    return config.get("lora_alpha", 8)


def shapes_of(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """The shape of each weight in these safetensors files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes
