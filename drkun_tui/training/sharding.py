"""Whether the processes of a run share out one base (FSDP) or hold it whole, each for itself."""

from __future__ import annotations

import importlib.metadata

import msgspec

from drkun_tui.hardware import Hardware
from drkun_tui.library.fit import Shape
from drkun_tui.training import memory
from drkun_tui.training.recipe import Recipe, Sharding
from drkun_tui.training.runs import error_of

LEAST_TRANSFORMERS = (5, 24)
"""It shards a base while it reads it, and keeps an adapter that is put on later alike in all processes."""


def decided(recipe: Recipe, shape: Shape, machine: Hardware, processes: int) -> Recipe:
    """The recipe with ``auto`` decided: a base is sharded where one card does not hold what training takes,
    and its part of a sharded one fits each.

    Args:
        processes: of the run, one for each GPU.

    Raises:
        DrkunError: ``sharding_alone``, ``sharding_nf4``, ``sharding_unsloth`` or ``sharding_outdated``: the
            recipe wants it, and it cannot be.
    """
    asked = recipe.training.sharding
    if asked == "none":
        return recipe
    hindrance = _hindrance(recipe, processes)
    if asked == "full":
        if hindrance:
            least = ".".join(map(str, LEAST_TRANSFORMERS))
            raise error_of(hindrance, {"least": least, "backend": recipe.training.backend})
        return recipe
    whole, sharded = _with(recipe, "none"), _with(recipe, "full")
    free = free_bytes(machine, processes)
    if hindrance or machine.nvidia is None or memory.needed(whole, shape, on_gpu=True) <= free:
        return whole
    return sharded if memory.needed(sharded, shape, on_gpu=True, processes=processes) <= free else whole


def free_bytes(machine: Hardware, processes: int) -> int:
    """What each process may take: of the fullest of its cards, or an equal part of the machine's memory."""
    cards = [gpu.free_bytes for gpu in machine.gpus if gpu.vendor == "nvidia"]
    if not cards:
        return machine.ram_available // processes
    return max(cards) if processes == 1 else min(cards[:processes])


def _hindrance(recipe: Recipe, processes: int) -> str:
    """Why a base cannot be sharded in this run, as a kind of error; "" where it can."""
    if processes == 1:
        return "sharding_alone"
    if recipe.base.precision == "nf4":
        return "sharding_nf4"
    if recipe.training.backend == "unsloth":
        return "sharding_unsloth"
    return "sharding_outdated" if _transformers() < LEAST_TRANSFORMERS else ""


def _transformers() -> tuple[int, ...]:
    """The first two numbers of the installed version; none where there is none."""
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(number) for number in version.split(".")[:2])


def _with(recipe: Recipe, sharding: Sharding) -> Recipe:
    return msgspec.structs.replace(
        recipe, training=msgspec.structs.replace(recipe.training, sharding=sharding)
    )
