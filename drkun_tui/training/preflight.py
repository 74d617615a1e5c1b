"""What is looked at before a run begins, so that it is refused now and not in an hour."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drkun_tui import hardware, paths
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import inventory
from drkun_tui.library.fit import NF4_WEIGHT_BYTES, Shape
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.plan import folders
from drkun_tui.settings import Settings
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import adapter_name, error_of

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "pyarrow")
UNPACKED = "drkun/starter-bf16"
"""What the bundled model is called once its weights are unpacked to be trained on."""

GIB = 1024**3
_CHUNK = 256
"""Tokens whose logits are held at once: TRL computes the loss without the whole of them."""
_CPU_BYTES, _CUDA_BYTES = int(0.9 * GIB), int(0.8 * GIB)
"""The process with PyTorch, Transformers and TRL in it; CUDA's context and the allocator's slack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """A run that can begin.

    Attributes:
        recipe: with the adapter's name filled in.
        base: what is trained on.
        memory_bytes: what training will take at most, by `memory`, on the GPU where there is one.
        available_bytes: what is free there now.
        disk_bytes: what checkpoints and adapter will take.
        warnings: sentences that somebody should read before it begins.
    """

    recipe: Recipe
    base: Model
    memory_bytes: int
    available_bytes: int
    disk_bytes: int
    warnings: list[str]


def check(recipe: Recipe, settings: Settings) -> Preflight:
    """Look at everything that can be known before the data are read.

    Raises:
        DrkunError: it cannot begin, and why.
    """
    base = find_base(recipe, settings)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    machine = hardware.read()
    on_gpu = machine.nvidia is not None
    if on_gpu and recipe.base.precision in ("auto", "nf4") and not importlib.util.find_spec("bitsandbytes"):
        missing.append("bitsandbytes")
    if base.kind is Kind.GGUF and not importlib.util.find_spec("gguf"):
        missing.append("gguf")
    if missing:
        raise error_of("packages_missing", {"packages": ", ".join(missing)})
    _check_data(recipe)
    name = recipe.adapter.name or _free_name(adapter_name(recipe, base.name))
    target = adapter_folder(name)
    if target.exists():
        raise error_of("adapter_exists", {"name": name})
    recipe = msgspec.structs.replace(recipe, adapter=msgspec.structs.replace(recipe.adapter, name=name))
    shape = base.shape or Shape(weight_bytes=base.size_bytes)
    space = _room(recipe, base, machine)
    disk = 4 * _adapter_parameters(recipe, shape) * (3 * recipe.training.keep_checkpoints + 1)
    warnings = []
    if space.needed > space.free:
        size = {"need": f"{space.needed / GIB:.1f}", "free": f"{space.free / GIB:.1f}"}
        warnings.append(t("training.tight_memory", **size))
    place = next(parent for parent in (target, *target.parents) if parent.exists())
    if disk > (left := shutil.disk_usage(place).free):
        size = {"need": f"{disk / GIB:.2f}", "free": f"{left / GIB:.2f}"}
        warnings.append(t("training.tight_disk", **size))
    return Preflight(
        recipe=recipe,
        base=base,
        memory_bytes=space.needed,
        available_bytes=space.free,
        disk_bytes=disk,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that a run needs where it trains, on the GPU where there is one, and bytes free there."""

    needed: int
    free: int
    on_gpu: bool

    def asks_for(self, held: int, *, on_gpu: bool) -> bool:
        """Would training need what a loaded model holds?

        Args:
            held: bytes that it would give back.
            on_gpu: does it hold them on the GPU?
        """
        return held > 0 and on_gpu == self.on_gpu and self.needed > self.free


def room(recipe: Recipe, settings: Settings) -> Room:
    """What a run of this recipe needs now.

    Raises:
        DrkunError: ``no_base`` or ``not_trainable``.
    """
    return _room(recipe, find_base(recipe, settings), hardware.read())


def _room(recipe: Recipe, base: Model, machine: hardware.Hardware) -> Room:
    on_gpu = machine.nvidia is not None
    free = machine.nvidia.free_bytes if machine.nvidia else machine.ram_available
    return Room(
        memory(recipe, base.shape or Shape(weight_bytes=base.size_bytes), on_gpu=on_gpu), free, on_gpu
    )


def find_base(recipe: Recipe, settings: Settings) -> Model:
    """The base model that a recipe names, if it can be trained on.

    Raises:
        DrkunError: ``no_base`` or ``not_trainable``.
    """
    if not recipe.base.model:
        raise error_of("no_base", {"name": '""'})
    try:
        base = inventory.find(recipe.base.model, folders(settings))
    except DrkunError as error:
        if error.kind != "model_not_found":
            raise
        raise error_of("no_base", {"name": recipe.base.model}) from error
    why = ""
    if base.is_adapter:
        why = t("training.is_adapter")
    elif base.problems:
        why = str(base.problems[0]).rstrip("。.")
    elif base.kind is Kind.GGUF and not base.demonstration:
        why = t("training.is_gguf")
    elif base.kind is Kind.BASE and base.shape is not None and not base.shape.parameters:
        why = t("training.is_quantised", method=base.quantization or "?")
    if why:
        raise error_of("not_trainable", {"name": base.name, "reason": why})
    return base


def adapter_folder(name: str) -> Path:
    """Where the adapter of this name goes."""
    return paths.model_store().joinpath(*(part for part in name.split("/") if part not in ("", ".", "..")))


def _free_name(name: str) -> str:
    """The name, or the name with the first number that is not taken."""
    number = 1
    while adapter_folder(tried := name if number == 1 else f"{name}-{number}").exists():
        number += 1
    return tried


def _check_data(recipe: Recipe) -> None:
    data = recipe.data
    if not data.path and not data.hub:
        raise error_of("no_data", {})
    if data.path and data.path != "demo" and not Path(data.path).expanduser().exists():
        raise error_of("data_missing", {"path": data.path})


def _adapter_parameters(recipe: Recipe, shape: Shape) -> int:
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


def memory(recipe: Recipe, shape: Shape, *, on_gpu: bool) -> int:
    """Bytes that training takes at most.

    Frozen weights in their precision; adapter weights, gradients and Adam's two moments in 32 bits (one byte
    each for the moments in 8-bit AdamW); for each token of a batch the input of every layer (with gradient
    checkpointing, Chen and others 2016, arXiv:1604.06174) or everything that a layer keeps for the backward
    pass (34 bytes for each of hidden's elements at 16 bits and no dropout, Korthikanti and others 2022,
    arXiv:2205.05198, without the attention matrix, which no kernel keeps); logits of one chunk.
    """
    training = recipe.training
    precision = recipe.base.precision
    if precision == "auto":
        precision = "nf4" if on_gpu else "fp32"
    parameters = shape.parameters or shape.weight_bytes * (2 if shape.is_gguf else 1) // 2
    if precision == "nf4":
        rest = parameters - shape.embedding_parameters
        weights = int(rest * NF4_WEIGHT_BYTES) + 2 * shape.embedding_parameters
    else:
        weights = parameters * (4 if precision == "fp32" else 2)
    moments = 2 if "8bit" in training.optimizer and on_gpu else 8
    adapter = _adapter_parameters(recipe, shape) * (8 + moments)
    element = 2 if on_gpu else 4
    tokens = training.batch_size * training.context_length
    layer = tokens * 17 * element * max(shape.embedding, shape.feed_forward // 3)
    kept = tokens * shape.embedding * element * shape.layers + layer
    activations = kept if training.gradient_checkpointing else layer * shape.layers
    logits = 3 * 4 * min(tokens, _CHUNK) * shape.vocabulary
    return weights + adapter + activations + logits + (_CUDA_BYTES if on_gpu else _CPU_BYTES)
