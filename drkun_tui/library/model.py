"""One model on disk: what is known of it, and whether it fits this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library.fit import Fit, Shape, fit
from drkun_tui.library.speed import Known, Speed, estimate
from drkun_tui.profiles import Profile

_FIT_PROFILES = (Profile.CPU, Profile.GPU8, Profile.GPU16)


class Kind(StrEnum):
    """What a model is."""

    BASE = "base"
    LORA = "lora"
    GGUF = "gguf"
    GGUF_LORA = "gguf-lora"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model on disk. Texts from files are fit for a screen; None is unknown."""

    name: str
    """Unique among the models of one scan."""
    kind: Kind
    path: Path
    """The GGUF file (of a split one its first part), else the folder."""
    size_bytes: int = 0
    """Of its weight files."""
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_length: int | None = None
    base_model: str | None = None
    """For an adapter: what it was trained on, as it says."""
    rank: int | None = None
    complete: bool = True
    problems: tuple[str, ...] = ()
    """Short sentences."""
    demonstration: bool = False
    """Is it the bundled starter, wherever its copy lies?"""
    shape: Shape | None = field(default=None, repr=False)
    """What its memory depends on; None where too little could be read."""
    error: DrkunError | None = field(default=None, repr=False, compare=False)
    """Why its file cannot be read."""

    def as_dict(self, hardware: Hardware, known: Known | None = None) -> dict[str, Any]:
        """The object of ``drkun models --json``.

        Args:
            known: how fast this machine is; without it no speeds are told.
        """
        fields = (
            "name", "kind", "path", "size_bytes", "architecture", "parameters", "quantization",
            "context_length", "base_model", "complete", "problems", "demonstration",
        )  # fmt: skip
        told = {name: getattr(self, name) for name in fields}
        told |= {
            "kind": self.kind.value,
            "path": os.fsencode(self.path).decode("utf8", "replace"),
            "problems": list(self.problems),
        }
        fits: dict[str, dict[str, Any]] = {
            name: {"fits": fit.fits, "need_bytes": fit.need_bytes, "reason": fit.reason}
            for name, fit in self.fits(hardware).items()
        }
        for profile in _FIT_PROFILES:
            if known and (speed := self.speed(profile, hardware, known)):
                fits[profile.value]["speed"] = speed.as_dict()
        return told | {"fits": fits}

    def speed(self, profile: Profile, hardware: Hardware, known: Known) -> Speed | None:
        """How fast it answers under a profile; None where nothing can be said."""
        return estimate(self.path, self.shape, profile, hardware, known) if self.shape else None

    def fits(self, hardware: Hardware) -> dict[str, Fit]:
        """Does it fit, for each of the profiles ``cpu``, ``gpu8`` and ``gpu16``?"""
        if self.shape is None:
            return {p.value: Fit(False, 0, t("library.unknown_size")) for p in _FIT_PROFILES}
        return {p.value: fit(self.shape, p, hardware) for p in _FIT_PROFILES}
