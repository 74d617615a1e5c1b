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
from drkun_tui.library.fit import Shape, size_text
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.plan import folders
from drkun_tui.settings import Settings
from drkun_tui.training import memory, pace, ranks, sharding
from drkun_tui.training.memory import GIB
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import Runs, adapter_name, error_of

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "pyarrow")
UNPACKED = "drkun/starter-bf16"
"""What the bundled model is called once its weights are unpacked to be trained on."""

_ROWS_SHARE, _TOKENS_SHARE = 1.5, 3
"""What a run keeps of its data, by the size of the files: the rows in UTF-8 (those of a file in GB18030 grow
by half), and their tokens, once as they are and once packed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """A run that can begin.

    Attributes:
        recipe: with the adapter's name filled in, and with the sharding decided.
        base: what is trained on.
        memory_bytes: what training will take at most, by `memory`, on each GPU where there are some.
        available_bytes: what is free there now.
        disk_bytes: what data, checkpoints and adapter will take at most.
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
    recipe = _checked_data(recipe)
    shape = base.shape or Shape(weight_bytes=base.size_bytes)
    recipe = sharding.decided(recipe, shape, machine, ranks.wanted(recipe))
    if recipe.base.precision == "nf4" and not on_gpu:
        raise error_of("nf4_needs_gpu", {})
    if memory.precision(recipe, on_gpu=on_gpu) == "nf4":
        _require([name for name in ("bitsandbytes",) if importlib.util.find_spec(name) is None])
    if unheard := [name for name in recipe.training.report_to if not _is_installed(name)]:
        raise error_of("reporters_missing", {"packages": " ".join(unheard)})
    name = recipe.adapter.name or _free_name(adapter_name(recipe, base.name))
    target = adapter_folder(name)
    if target.exists():
        raise error_of("adapter_exists", {"name": name})
    if run := next((run for run in Runs()._all() if run.running and run.name == name), None):
        raise error_of("adapter_promised", {"name": name, "id": run.id})
    recipe = msgspec.structs.replace(recipe, adapter=msgspec.structs.replace(recipe.adapter, name=name))
    space = room_of(recipe, base, machine)
    disk = _disk(recipe, shape, target)
    warnings = []
    if space.needed > space.free:
        size = {"need": f"{space.needed / GIB:.1f}", "free": f"{space.free / GIB:.1f}"}
        warnings.append(t("training.tight_memory", **size))
    warnings += [
        t("training.tight_disk", folder=str(place), need=size_text(need), free=size_text(left))
        for place, need in disk.items()
        if need > (left := shutil.disk_usage(place).free)
    ]
    return Preflight(
        recipe=recipe,
        base=base,
        memory_bytes=space.needed,
        available_bytes=space.free,
        disk_bytes=sum(disk.values()),
        warnings=warnings,
    )


def _disk(recipe: Recipe, shape: Shape, target: Path) -> dict[Path, int]:
    """Bytes that a run takes at most, by a folder on each of the file systems that it writes to."""
    adapter = 4 * memory.adapter_parameters(recipe, shape)
    # Weights and Adam's two moments, and a checkpoint more while it is written.
    checkpoints = 3 * adapter * (recipe.training.keep_checkpoints + 1)
    share = _ROWS_SHARE + _TOKENS_SHARE * (2 if recipe.training.packing else 1)
    data = int(pace.source_bytes(recipe) * share)
    found: dict[int, tuple[Path, int]] = {}
    for folder, size in ((paths.home() / "runs", checkpoints + data), (target, adapter)):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        device = place.stat().st_dev
        first, before = found.get(device, (place, 0))
        found[device] = first, before + size
    return dict(found.values())


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
    return room_of(recipe, find_base(recipe, settings), hardware.read())


def room_of(recipe: Recipe, base: Model, machine: hardware.Hardware) -> Room:
    """The same on another base than the recipe's.

    Raises:
        DrkunError: sharding that cannot be (`sharding.decided`).
    """
    on_gpu, processes = machine.nvidia is not None, ranks.wanted(recipe)
    shape = base.shape or Shape(weight_bytes=base.size_bytes)
    recipe = sharding.decided(recipe, shape, machine, processes)
    needed = memory.needed(recipe, shape, on_gpu=on_gpu, processes=processes)
    # Processes on the CPU share its memory.
    shared = 1 if on_gpu else processes
    return Room(needed * shared, sharding.free_bytes(machine, processes) * shared, on_gpu)


def _is_installed(reporter: str) -> bool:
    names = ("tensorboard", "tensorboardX") if reporter == "tensorboard" else (reporter,)
    return any(importlib.util.find_spec(name) is not None for name in names)


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
    """The name, or the name with the first number that neither an adapter has nor an unfinished run."""
    promised = {run.name for run in Runs()._all() if run.phase != "done"}
    tried, number = name, 1
    while tried in promised or adapter_folder(tried).exists():
        number += 1
        tried = f"{name}-{number}"
    return tried


def _checked_data(recipe: Recipe) -> Recipe:
    """The recipe, whose data are found from every folder."""
    data = recipe.data
    if not data.path and not data.hub:
        raise error_of("no_data", {})
    if not data.path or data.path == "demo":
        return recipe
    path = Path(data.path).expanduser().absolute()
    if not path.exists():
        raise error_of("data_missing", {"path": data.path})
    return msgspec.structs.replace(recipe, data=msgspec.structs.replace(data, path=str(path)))
