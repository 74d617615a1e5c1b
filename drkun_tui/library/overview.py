"""The library at a glance: every model with what it needs here and how fast it will be, adapters after
their base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drkun_tui import profiles
from drkun_tui.hardware import Hardware
from drkun_tui.library import adapters, inventory
from drkun_tui.library.fit import USUAL, Fit, Wish
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.speed import Known, Speed
from drkun_tui.library.walk import Unreadable
from drkun_tui.profiles import Profile


@dataclass(frozen=True, slots=True)
class Entry:
    """One model.

    Attributes:
        base: of an adapter, the model that it goes with; None where that is not here.
        fits: by the name of the profile; of an adapter together with its base.
        speed: under the profile that would be used here; None where too little is known.
        speeds: under each profile that can load it here, by the profile's name.
    """

    model: Model
    base: Model | None
    fits: dict[str, Fit]
    speed: Speed | None
    speeds: dict[str, Speed | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Overview:
    """All models, and the folders that could not be looked into."""

    entries: list[Entry]
    unreadable: list[Unreadable]


def overview(folders: Iterable[Path], machine: Hardware, known: Known, wish: Wish = USUAL) -> Overview:
    """Look through the folders, and put everything together.

    Takes as long as a scan does: not for the thread that draws.

    Args:
        known: how fast this machine is, as far as that is known.
        wish: how models would be loaded.
    """
    found = inventory.survey(folders)
    works = {gguf: _working(machine, gguf=gguf) for gguf in (True, False)}
    entries = []
    for model, base in zip(found.models, adapters.bases(found.models), strict=True):
        fits = model.fits(machine, wish, base)
        speed, speeds = None, {}
        if not model.problems:
            gguf = (base or model).kind is Kind.GGUF
            chosen = _profile(fits, machine, gguf=gguf)
            speed = model.speed(chosen, machine, known, base)
            if base is not None or not model.is_adapter:
                speeds = {
                    profile.value: speed if profile is chosen else model.speed(profile, machine, known, base)
                    for profile in works[gguf]
                    if profile is chosen or fits[profile.value].fits
                }
        entries.append(Entry(model, base, fits, speed, speeds))
    return Overview(_adapters_after_bases(entries), found.unreadable)


def _profile(fits: Mapping[str, Fit], machine: Hardware, *, gguf: bool) -> Profile:
    """What ``auto`` would take."""

    def fitting(profile: Profile) -> int:
        found = fits[profile.value]
        return found.context if found.fits else 0

    return profiles.choose(Profile.AUTO, machine, fitting, gguf=gguf).profile


def _working(machine: Hardware, *, gguf: bool) -> list[Profile]:
    """The profiles under which a model of this format can be loaded here, if it fits."""
    own = gguf or not profiles.missing_packages(Profile.CPU)
    gpu = [p for p in profiles.CLASS_BYTES if profiles.availability(p, machine, gguf=gguf)[0]]
    return [*([Profile.CPU] if own else []), *gpu]


def _adapters_after_bases(entries: Sequence[Entry]) -> list[Entry]:
    below: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.base is not None:
            below.setdefault(id(entry.base), []).append(entry)
    ordered: list[Entry] = []
    for entry in entries:
        if entry.base is None:
            ordered += [entry, *below.get(id(entry.model), ())]
    return ordered
