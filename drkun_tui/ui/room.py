"""A job that needs the memory of the model that answers: may it leave?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from drkun_tui import hardware
from drkun_tui.engine.protocol import Ready
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library import fit
from drkun_tui.library.plan import Plan
from drkun_tui.profiles import Profile
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp


@dataclass(frozen=True, slots=True)
class Held:
    """What the loaded model holds.

    Attributes:
        bytes: that it would give back.
        on_gpu: does it hold them on a GPU?
        card: the UUID of that; "" where it is not known.
    """

    bytes: int
    on_gpu: bool
    card: str


async def make_room(app: DrkunApp, needed: Callable[[Held], bool]) -> bool:
    """Where a job needs what the loaded model holds, ask whether it may leave; False to begin nothing.

    Args:
        needed: asked in a thread; what it cannot find out, whoever begins the job says.
    """
    session = app.session
    ready = session.engine.ready
    if session.plan is None or ready is None or not session.engine.loaded:
        return True
    plan = session.plan
    try:
        if not await asyncio.to_thread(lambda: needed(_held(plan, ready))):
            return True
    except DrkunError:
        return True
    name = one_line(plan.model.name, 40)
    if await app.push_screen_wait(Confirm(t("room.unload", name=name), t("room.unload_keys"))):
        if session.turn is not None:
            for notice in app.screen.query(Notice):
                notice.say(t("consult.busy"), "warning")
            return False
        await session.engine.close()
    return True


def gains_on_gpu(planned: Callable[[Hardware], Iterable[Plan]]) -> Callable[[Held], bool]:
    """What `make_room` asks where models are loaded: would one go to a GPU, more of it, or in more bits, if
    the loaded model gave back what it holds there?

    Args:
        planned: how they are loaded on such a machine.
    """

    def needed(held: Held) -> bool:
        machine = hardware.read()
        at = next((gpu for gpu in machine.gpus if held.card and gpu.uuid == held.card), machine.nvidia)
        if not held.on_gpu or at is None:
            return False
        freed = [
            replace(gpu, free_bytes=gpu.free_bytes + held.bytes) if gpu is at else gpu for gpu in machine.gpus
        ]
        return _places(planned, replace(machine, gpus=freed)) != _places(planned, machine)

    return needed


def _places(
    planned: Callable[[Hardware], Iterable[Plan]], machine: Hardware
) -> list[tuple[Profile, int]] | None:
    """Profile and layers on the GPU of each; None where they cannot be loaded."""
    try:
        return [(plan.profile, plan.load.gpu_layers) for plan in planned(machine)]
    except DrkunError:
        return None


def _held(plan: Plan, ready: Ready) -> Held:
    """What the model that was loaded by this plan holds; llama.cpp does not tell what it took of a GPU, so
    that is what the plan reckoned with."""
    load = plan.load
    if load.device == "cuda":
        return Held(ready.reserved_bytes, on_gpu=True, card=load.gpu)
    if not load.gpu_layers:
        return Held(ready.size_bytes, on_gpu=False, card="")
    shape = fit.with_cache(plan.model.shape or fit.Shape(weight_bytes=ready.size_bytes), load.kv_cache)
    whole = fit.need(shape, plan.profile, load.context_length).total
    return Held(int(whole * min(1.0, load.gpu_layers / (shape.layers + 1))), on_gpu=True, card=load.gpu)
