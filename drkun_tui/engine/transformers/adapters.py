"""LoRA adapters of PEFT: attached, read out, merged and taken away again, the base staying loaded.

PEFT reads the folder and knows every variant. What is then done depends on the weights. Sixteen-bit ones
are merged in place, which costs nothing while decoding; taking an adapter away reads the changed weights
from the checkpoint again, so they are the same to the bit. Four-bit ones cannot be merged without loss, so
the low-rank products are added while decoding.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.transformers.memory import ran_out

NAME = "drkun"


class Adapters:
    """What is attached to a model.

    Args:
        model: the loaded base.
        folder: its checkpoint.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._wrapped: Any = None
        self._merged: list[str] = []
        """Names of the weights that a merge has changed."""

    def attach(self, path: Path, scale: float) -> None:
        """Attach a LoRA to the bare model.

        Raises:
            EngineError: ``adapter_failed``, it is damaged, or was not made for this base.
        """
        # Imported late: most models are used without an adapter.
        from peft import PeftConfig, PeftModel

        try:
            if not (path / "adapter_model.safetensors").is_file():
                raise FileNotFoundError("adapter_model.safetensors is missing")
            config = PeftConfig.from_pretrained(str(path), local_files_only=True)
            config.inference_mode = True
            self._wrapped = PeftModel(self._model, config, NAME, autocast_adapter_dtype=False)
            told = self._wrapped.load_adapter(str(path), NAME, local_files_only=True)
            # PEFT attaches what it finds a place for; what is left over belongs to another model.
            if left := [*told.unexpected_keys, *told.missing_keys]:
                raise ValueError(f"{len(left)} of its weights have no place in this base, e.g. {left[0]}")
            for layer in self._layers():
                layer.scaling[NAME] *= scale
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            self.unwrap()
            if ran_out(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise EngineError("adapter_failed", file=path.name, reason=reason) from error

    def detach(self) -> None:
        """The bare model again."""
        self.unwrap()
        if self._merged:
            originals = _Originals(self._folder)
            for name in self._merged:
                weight = self._model.get_parameter(name)
                weight.data.copy_(originals.read(name))
            self._merged = []

    def unwrap(self) -> None:
        """Take PEFT's modules out of the model; merged weights stay as they are."""
        if self._wrapped is not None:
            self._wrapped.unload()
            self._wrapped = None
        # What PEFT had wrapped when it failed half-way.
        for name, layer in list(self._named_layers()):
            parent, _, own = name.rpartition(".")
            setattr(self._model.get_submodule(parent), own, layer.get_base_layer())

    def merge(self) -> bool:
        """Put the changes into the weights themselves; False where that cannot be undone exactly, or would
        change more than what the adapter was made for.

        One that fails half-way is taken back by `detach`.
        """
        layers = [(f"{name}.weight", layer) for name, layer in self._named_layers()]
        originals = _Originals(self._folder)
        # A tied weight is another layer's, too, which PEFT leaves as it is.
        held = Counter(id(weight) for _, weight in self._model.named_parameters(remove_duplicate=False))
        if not self._is_plain() or not all(
            name in originals
            and layer.base_layer.weight.is_floating_point()
            and held[id(layer.base_layer.weight)] == 1
            for name, layer in layers
        ):
            return False
        for name, layer in layers:
            weight = layer.base_layer.weight.data
            self._merged.append(name)
            # Rounded once, from 32 bits.
            weight.copy_(weight.float() + layer.get_delta_weight(NAME).float())
        self.unwrap()
        return True

    def low_rank(self, linears: list[Any]) -> dict[int, tuple[Tensor, Tensor, float]] | None:
        """A, B and scale by ``id`` of the base layer, or None if there is more to it than those."""
        if self._wrapped is None:
            return {}
        wanted = {id(linear) for linear in linears}
        like = next(iter(self._model.parameters()))
        found = {}
        for layer in self._layers():
            base = layer.base_layer
            if id(base) not in wanted:
                return None
            a, b = layer.lora_A[NAME].weight.data, layer.lora_B[NAME].weight.data
            found[id(base)] = a.to(like.dtype), b.to(like.dtype), float(layer.scaling[NAME])
        return found if self._is_plain() else None

    def _is_plain(self) -> bool:
        """Is the adapter nothing but ``scale · B · A`` on linear layers?"""
        config = self._wrapped.peft_config[NAME]
        return not (config.modules_to_save or config.lora_bias or config.trainable_token_indices) and not any(
            NAME in layer.lora_variant for layer in self._layers()
        )

    def _named_layers(self) -> Iterator[tuple[str, Any]]:
        from peft.tuners.lora import LoraLayer

        return (
            (name, module) for name, module in self._model.named_modules() if isinstance(module, LoraLayer)
        )

    def _layers(self) -> Iterator[Any]:
        return (layer for _, layer in self._named_layers())


class _Originals:
    """The weights of a checkpoint, by name."""

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        self._folder = folder
        self._files: dict[str, str] = {}
        if index.is_file():
            self._files = json.loads(index.read_text("utf8"))["weight_map"]
        elif (folder / "model.safetensors").is_file():
            with safe_open(folder / "model.safetensors", framework="pt") as file:
                self._files = dict.fromkeys(file.keys(), "model.safetensors")

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> Tensor:
        with safe_open(self._folder / self._files[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor
