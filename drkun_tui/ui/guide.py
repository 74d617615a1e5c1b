"""What someone is told who has no model but the bundled one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from drkun_tui import hardware, paths
from drkun_tui.i18n import t
from drkun_tui.library import inventory
from drkun_tui.library.hub.downloads import Download
from drkun_tui.library.hub.protocol import HubName, Request
from drkun_tui.library.hub.recommended import Recommendation, first_choice, judge
from drkun_tui.library.plan import folders, loadable
from drkun_tui.settings import Settings
from drkun_tui.ui.table import size

USUAL_SPEED = 10_000_000
"""Bytes a second of a usual line, to give an idea of how long it takes."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A model that suits this machine.

    Attributes:
        text: a sentence or two, with the key to press.
        arrived: the model's name once it is here.
    """

    model: Recommendation
    text: str
    arrived: str | None = None

    def request(self, hub: HubName) -> Request:
        """The download of it."""
        return self.model.request(paths.model_store(), hub)


def proposal(
    settings: Settings, downloads: Sequence[Download], before: Proposal | None = None
) -> Proposal | None:
    """What to propose; None for someone who has chosen or brought a model. Scans folders.

    Args:
        before: the proposal at the last look, after which only what is fetched can be new. It stays the same
            model, whatever other programs leave free meanwhile.
    """
    looked = [paths.model_store()] if before else folders(settings)
    models = [model for model in inventory.scan(looked) if not model.demonstration]
    machine = hardware.read()
    model = before.model if before else first_choice(machine)
    values = {"model": f"{model.repo} {model.quant}", "size": size(model.bytes)}
    place = paths.model_store().joinpath(*model.repo.split("/"))
    arrived = next((m for m in models if loadable(m) and m.path.is_relative_to(place)), None)
    if settings.model != Settings().model or any(loadable(m) for m in models if m is not arrived):
        return None
    if arrived is not None:
        return Proposal(model, t("guide.arrived", **values), arrived.name)
    if any(download.request.repo == model.repo and download.running for download in downloads):
        return Proposal(model, t("guide.coming", **values))
    minutes = math.ceil(model.bytes / USUAL_SPEED / 60)
    told = "guide.propose" if judge(model, machine).fits else "guide.propose_tight"
    return Proposal(model, t(told, minutes=minutes, free=size(machine.ram_available), **values))
