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
from drkun_tui.library.fit import Shape
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.plan import folders
from drkun_tui.settings import Settings
from drkun_tui.training import memory, ranks, sharding
from drkun_tui.training.memory import GIB
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import adapter_name, error_of

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "pyarrow")
UNPACKED = "drkun/starter-bf16"
"""What the bundled model is called once its weights are unpacked to be trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """A run that can begin.

    Attributes:
        recipe: with the adapter's name filled in, and with the sharding decided.
        base: what is trained on.
        memory_bytes: what training will take at most, by `memory`, on each GPU where there are some.
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
    if base.kind is Kind.GGUF and not importlib.util.find_spec("gguf"):
        missing.append("gguf")
    _require(missing)
    _check_data(recipe)
    shape = base.shape or Shape(weight_bytes=base.size_bytes)
    recipe = sharding.decided(recipe, shape, machine, ranks.wanted(recipe))
    if memory.precision(recipe, on_gpu=on_gpu) == "nf4" and on_gpu:
        _require([name for name in ("bitsandbytes",) if importlib.util.find_spec(name) is None])
    name = recipe.adapter.name or _free_name(adapter_name(recipe, base.name))
    target = adapter_folder(name)
    if target.exists():
        raise error_of("adapter_exists", {"name": name})
    recipe = msgspec.structs.replace(recipe, adapter=msgspec.structs.replace(recipe.adapter, name=name))
    space = _room(recipe, base, machine)
    disk = 4 * memory.adapter_parameters(recipe, shape) * (3 * recipe.training.keep_checkpoints + 1)
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
    """Bytes that a run needs where it trains, on each GPU where there are some, and bytes free there."""

    needed: int
    free: int
    on_gpu: bool

    def asks_for(self, held: int) -> bool:
        """Would training need what a loaded model holds?

        Args:
            held: bytes that it would give back where the run trains.
        """
        return held > 0 and self.needed > self.free


def room(recipe: Recipe, settings: Settings) -> Room:
    """What a run of this recipe needs now.

    Raises:
        DrkunError: ``no_base``, ``not_trainable``, or sharding that cannot be (`sharding.decided`).
    """
    return _room(recipe, find_base(recipe, settings), hardware.read())


def _room(recipe: Recipe, base: Model, machine: hardware.Hardware) -> Room:
    on_gpu, processes = machine.nvidia is not None, ranks.wanted(recipe)
    shape = base.shape or Shape(weight_bytes=base.size_bytes)
    recipe = sharding.decided(recipe, shape, machine, processes)
    needed = memory.needed(recipe, shape, on_gpu=on_gpu, processes=processes)
    # Processes on the CPU share its memory.
    shared = 1 if on_gpu else processes
    return Room(needed * shared, sharding.free_bytes(machine, processes) * shared, on_gpu)


def _require(missing: list[str]) -> None:
    if missing:
        raise error_of("packages_missing", {"packages": ", ".join(missing)})


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
