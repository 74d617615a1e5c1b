"""Models to begin with, by class of machine. The list itself is ``recommended.toml``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from drkun_tui.hardware import Hardware
from drkun_tui.i18n import language
from drkun_tui.library.hub.fitting import Verdict, fits_on, judge_safetensors
from drkun_tui.library.hub.protocol import HubName, Request
from drkun_tui.profiles import GIB

CLASSES = ("cpu-8gb", "cpu-16gb", "gpu8", "gpu16", "gpu24")

_LEAST_GPU = {"gpu24": 23 * GIB, "gpu16": 15 * GIB, "gpu8": 7 * GIB}
"""What a card of a class has at least: its nominal memory less what the driver keeps."""

_LARGE_RAM = 12 * GIB


class Recommendation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of the list.

    Attributes:
        hubs: where it is; the first is used.
        quant: of a GGUF repository, else "".
        needs: a repository that is used together with it, else "".
        bytes: of the download, rounded; 0 where unknown.
        licence: by its usual short name; "" where its authors tell none.
    """

    repo: str
    hubs: list[HubName]
    bytes: int
    licence: str
    zh: str
    en: str
    quant: str = ""
    needs: str = ""

    @property
    def text(self) -> str:
        """What it is good for, one line in the reader's language."""
        return self.zh if language() == "zh" else self.en

    def hub(self, usual: HubName) -> HubName:
        """Where to fetch it: the usual hub, if it is there."""
        return usual if usual in self.hubs else self.hubs[0]

    def request(self, store: Path, usual: HubName) -> Request:
        """The download of it into a model store."""
        return Request(hub=self.hub(usual), repo=self.repo, store=str(store.absolute()), quant=self.quant)


def machine_class(machine: Hardware) -> str:
    """Which of `CLASSES` a machine is of."""
    if gpu := machine.nvidia:
        for name, least in _LEAST_GPU.items():
            if gpu.total_bytes >= least:
                return name
    return "cpu-16gb" if machine.ram_total >= _LARGE_RAM else "cpu-8gb"


def recommended(machine: Hardware) -> list[Recommendation]:
    """The models for a machine, the most suitable first; after its own class's, those of the smaller ones
    that run without a GPU."""
    own = machine_class(machine)
    smaller = [name for name in ("cpu-16gb", "cpu-8gb") if CLASSES.index(name) < CLASSES.index(own)]
    if machine.ram_total < _LARGE_RAM:
        smaller = [name for name in smaller if name == "cpu-8gb"]
    lists = _lists()
    return list({model.repo: model for name in (own, *smaller) for model in lists[name]}.values())


def base_of(model: Recommendation) -> Recommendation | None:
    """Of the list, the model that this one is used together with; None where it stands alone."""
    every = [each for models in _lists().values() for each in models]
    return next((each for each in every if each.repo == model.needs), None)


def judge(model: Recommendation, machine: Hardware) -> Verdict:
    """Does it fit in what is free now? An adapter, whose own weights are small, with its base."""
    base = base_of(model)
    size = model.bytes + (base.bytes if base else 0)
    return Verdict(fits_on(machine)(size)) if model.quant else judge_safetensors(size, machine)


def first_choice(machine: Hardware) -> Recommendation:
    """What to propose to someone who has no model yet: the best that a program without further packages
    can load, which is a GGUF, and that fits in what is free now; the smallest, when none does."""
    ggufs = [model for model in recommended(machine) if model.quant]
    fitting = (model for model in ggufs if judge(model, machine).fits)
    return next(fitting, min(ggufs, key=lambda model: model.bytes))


def _lists() -> dict[str, list[Recommendation]]:
    raw = (Path(__file__).parent / "recommended.toml").read_bytes()
    return msgspec.toml.decode(raw, type=dict[str, list[Recommendation]])
