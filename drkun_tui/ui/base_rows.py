"""A base in the list of those that a run can begin with: its name, its size, what it takes to train it."""

from __future__ import annotations

from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library.model import Model
from drkun_tui.training import preflight
from drkun_tui.training.recipe import Recipe
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import one_line


def cells(base: Model, recipe: Recipe, machine: Hardware) -> tuple[str, str, str]:
    """Name, bytes on the disk, and whether this recipe would have the memory for it now."""
    return one_line(base.name, 40), size(base.size_bytes), one_line(_told(base, recipe, machine), 80)


def _told(base: Model, recipe: Recipe, machine: Hardware) -> str:
    if base.problems:
        return str(base.problems[0])
    try:
        room = preflight.room_of(recipe, base, machine)
    except DrkunError as error:
        return error.message
    told = "base_fits" if room.needed <= room.free else "base_too_large"
    return t(f"training_screen.{told}", need=size(room.needed), free=size(room.free))
