"""What the model that answers would give back: to the one that is loaded next, or to a job that asks whether
it may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from drkun_tui import hardware
from drkun_tui.consult.session import Session
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library.held import Held, freed
from drkun_tui.library.plan import Plan
from drkun_tui.profiles import Profile
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.typeset.sanitise import one_line
from drkun_tui.ui.widgets.notice import Notice

if TYPE_CHECKING:
    from drkun_tui.app import DrkunApp


def held(session: Session) -> Held:
    """What the model that answers holds; nothing while none is loaded."""
    plan, ready = session.plan, session.engine.ready
    if plan is None or ready is None or not session.engine.loaded:
        return Held()
    return plan.held(ready, session.engine.pid)


def machine(session: Session) -> Hardware:
    """This machine as it is for the model that is loaded next: the one that answers leaves first."""
    return freed(hardware.read(), held(session))


async def make_room(app: DrkunApp, needed: Callable[[Held], bool]) -> bool:
    """Where a job needs what the loaded model holds, ask whether it may leave; False to begin nothing.

    Args:
        needed: asked in a thread; what it cannot find out, whoever begins the job says.
    """
    session = app.session
    plan = session.plan
    if plan is None or not session.engine.loaded:
        return True
    try:
        if not await asyncio.to_thread(lambda: needed(held(session))):
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
        if not held.gpu or machine.nvidia is None:
            return False
        return _places(planned, freed(machine, held)) != _places(planned, machine)

    return needed


def _places(
    planned: Callable[[Hardware], Iterable[Plan]], machine: Hardware
) -> list[tuple[Profile, int]] | None:
    """Profile and layers on the GPU of each; None where they cannot be loaded."""
    try:
        return [(plan.profile, plan.load.gpu_layers) for plan in planned(machine)]
    except DrkunError:
        return None
