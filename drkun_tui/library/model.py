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
from drkun_tui.library.fit import USUAL, Fit, Shape, Wish, fit, with_cache
from drkun_tui.library.provenance import Provenance
from drkun_tui.library.speed import Known, Speed, estimate
from drkun_tui.library.tensors import Tensors
from drkun_tui.profiles import Profile

_FIT_PROFILES = (Profile.CPU, Profile.GPU8, Profile.GPU16)


class Kind(StrEnum):
    """What a model is."""

    BASE = "base"
    LORA = "lora"
    GGUF = "gguf"
    GGUF_LORA = "gguf-lora"
    REMOTE = "remote"
    """A server's, and not on disk."""


class Source(StrEnum):
    """Whose folder a model lies in."""

    DRKUN = "drkun"
    """The project's own store, the only place where anything is removed."""
    BUNDLED = "bundled"
    FOLDER = "folder"
    """One that the user named."""
    HUGGINGFACE = "huggingface"
    MODELSCOPE = "modelscope"
    LMSTUDIO = "lmstudio"
    OLLAMA = "ollama"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a model, and what to do about it: one sentence each."""

    text: str
    remedy: str

    def __str__(self) -> str:
        return t("inventory.problem", problem=self.text, remedy=self.remedy)


def problem(key: str, remedy: str, **values: str | int) -> Problem:
    """The problem ``library.KEY`` of the catalogue with its ``inventory.remedy_REMEDY``."""
    return Problem(t(f"library.{key}", **values), t(f"inventory.remedy_{remedy}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model on disk. Texts from files are fit for a screen; None is unknown."""

    name: str
    """Unique among the models of one scan: the user's alias, else `disk_name`."""
    disk_name: str = ""
    """What it is called without an alias. Both names find it."""
    kind: Kind
    path: Path
    """The GGUF file (of a split one its first part), else the folder."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """Its weight files."""
    source: Source = Source.FOLDER
    size_bytes: int = 0
    """Of its weight files, as far as they are here."""
    expected_bytes: int | None = None
    """Of an unfinished download: what it will have."""
    title: str | None = None
    """The name that its makers gave it."""
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_length: int | None = None
    base_model: str | None = None
    """For an adapter: what it was trained on, as it says."""
    rank: int | None = None
    alpha: float | None = None
    """For an adapter: its output is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ()
    """For an adapter: the layers that it changes."""
    provenance: Provenance | None = field(default=None, repr=False)
    """For an adapter that was trained here, and for what was exported with it: how."""
    complete: bool = True
    """Are its own files whole?"""
    problems: tuple[Problem, ...] = ()
    """What keeps it from being used; for an adapter also a base that is absent or of another shape."""
    demonstration: bool = False
    """Is it the bundled starter, wherever its copy lies?"""
    shape: Shape | None = field(default=None, repr=False)
    """What its memory depends on; None where too little could be read."""
    tensors: Tensors | None = field(default=None, repr=False, compare=False)
    """What an adapter is held against; None where no header could be read."""
    error: DrkunError | None = field(default=None, repr=False, compare=False)
    """Why its file cannot be read."""

    @property
    def key(self) -> tuple[Path, str]:
        """What tells it from every other: several of Ollama's names may mean one file."""
        return self.path, self.disk_name

    @property
    def removable(self) -> bool:
        """Is it this program's to remove? Caches and other programs' stores are only read."""
        return self.source is Source.DRKUN

    @property
    def is_adapter(self) -> bool:
        """Does it need a base?"""
        return self.kind in (Kind.LORA, Kind.GGUF_LORA)

    def as_dict(
        self,
        hardware: Hardware,
        known: Known | None = None,
        *,
        wish: Wish = USUAL,
        base: Model | None = None,
    ) -> dict[str, Any]:
        """The object of ``drkun models --json``.

        Args:
            known: how fast this machine is; without it no speeds are told.
            wish: as `fits` takes it.
            base: of an adapter.
        """
        fields = (
            "name", "kind", "source", "path", "size_bytes", "expected_bytes", "architecture", "parameters",
            "quantization", "context_length", "base_model", "complete", "problems", "demonstration",
            "removable",
        )  # fmt: skip
        told = {name: getattr(self, name) for name in fields}
        told |= {
            "kind": self.kind.value,
            "source": self.source.value,
            "path": os.fsencode(self.path).decode("utf8", "replace"),
            "problems": [str(problem) for problem in self.problems],
        }
        fits: dict[str, dict[str, Any]] = {
            name: {"fits": fit.fits, "need_bytes": fit.need_bytes, "reason": fit.reason}
            for name, fit in self.fits(hardware, wish, base).items()
        }
        for profile in _FIT_PROFILES:
            if known and (speed := self.speed(profile, hardware, known, base)):
                fits[profile.value]["speed"] = speed.as_dict()
        return told | {"fits": fits}

    def speed(
        self, profile: Profile, hardware: Hardware, known: Known, base: Model | None = None
    ) -> Speed | None:
        """How fast it answers under a profile, an adapter with its base; None where nothing can be said."""
        answering = base or self
        if answering.shape is None:
            return None
        return estimate(answering.path, answering.shape, profile, hardware, known, adapter=base is not None)

    def fits(self, hardware: Hardware, wish: Wish = USUAL, base: Model | None = None) -> dict[str, Fit]:
        """Does it fit, for each of the profiles ``cpu``, ``gpu8`` and ``gpu16``?

        Args:
            wish: for what it is counted.
            base: of an adapter, which is then judged together with it.
        """
        shape = (base or self).shape
        if shape is None:
            return {p.value: Fit(False, 0, t("library.unknown_size")) for p in _FIT_PROFILES}
        if shape.is_gguf:
            shape = with_cache(shape, wish.kv_cache)
        added = self.size_bytes if base else 0
        return {p.value: fit(shape, p, hardware, wish.context or None, added) for p in _FIT_PROFILES}
