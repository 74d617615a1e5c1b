"""Profiles: policies of how much memory a model may take, and in which precision.

A profile is no engine. ``auto`` looks at the machine and picks one of the others, and says why.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from drkun_tui import remote
from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.settings import Settings

GIB = 1024**3


class Profile(StrEnum):
    """What the user may ask for."""

    AUTO = "auto"
    CPU = "cpu"
    GPU8 = "gpu8"
    """An 8 GB GPU: weights in four bits."""
    GPU16 = "gpu16"
    """A GPU of 16 GB or more: weights in sixteen bits."""
    REMOTE = "remote"
    """A server elsewhere."""


PACKAGES = {
    Profile.CPU: ("torch", "transformers", "peft", "accelerate"),
    Profile.GPU8: ("torch", "transformers", "peft", "accelerate", "bitsandbytes"),
    Profile.GPU16: ("torch", "transformers", "peft", "accelerate"),
}
"""What models in safetensors form need under each; a GGUF needs none of them."""

CLASS_BYTES = {Profile.GPU8: 15 * GIB // 2, Profile.GPU16: 15 * GIB}
"""What a card of each class leaves to a model: its nominal memory less the driver's and the screen's."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A profile that works here, and the sentence that says why it was chosen."""

    profile: Profile
    reason: str


def availability(profile: Profile, hardware: Hardware, settings: Settings | None = None) -> tuple[bool, str]:
    """Can this profile be used on this machine now, and why, in one sentence.

    Args:
        settings: where the address of a server may be.
    """
    if profile in (Profile.AUTO, Profile.CPU):
        return True, t("hardware.profile_cpu", cores=hardware.physical_cores)
    if profile is Profile.REMOTE:
        try:
            server = remote.server(settings or Settings())
        except DrkunError as error:
            return False, error.message
        return (True, server.notice) if server else (False, t("hardware.profile_remote_none"))
    if gpu := hardware.nvidia:
        if missing := missing_packages(profile):
            return False, t("hardware.profile_gpu_packages", gpu=gpu.name, packages=", ".join(missing))
        return True, t(f"hardware.profile_{profile}", gpu=gpu.name)
    if hardware.gpus:
        return False, t("hardware.profile_gpu_other", gpu=hardware.gpus[0].name)
    return False, hardware.gpu_note or t("hardware.no_nvidia")


def missing_packages(profile: Profile) -> list[str]:
    """Which of `PACKAGES` are not installed. None of them is imported to find out."""
    return [name for name in PACKAGES[profile] if importlib.util.find_spec(name) is None]


def choose(wanted: Profile, hardware: Hardware, fits: Callable[[Profile], bool] | None = None) -> Choice:
    """The profile to use: the wanted one, or for ``auto`` the best that works here.

    Args:
        wanted: what the user asks for.
        hardware: this machine.
        fits: of a model in safetensors form, does it fit under a profile? None for a GGUF, which llama.cpp
            runs on the CPU.

    Raises:
        DrkunError: ``profile_unavailable``, the wanted one does not work here.
    """
    if wanted is not Profile.AUTO:
        usable, reason = availability(wanted, hardware)
        if not usable:
            raise DrkunError(
                "profile_unavailable", reason, t("hardware.profile_unavailable_hint"), EXIT_BAD_INPUT
            )
        if wanted in CLASS_BYTES and fits is None:
            return Choice(Profile.CPU, t("hardware.profile_gguf"))
        return Choice(wanted, reason)
    if fits is not None:
        for profile in (Profile.GPU16, Profile.GPU8):
            usable, reason = availability(profile, hardware)
            if usable and fits(profile):
                return Choice(profile, t("hardware.profile_auto_gpu", reason=reason))
    elif hardware.nvidia is not None:
        return Choice(Profile.CPU, t("hardware.profile_gguf"))
    usable, gpu_reason = availability(Profile.GPU16, hardware)
    if usable:
        gpu_reason = t("hardware.profile_gpu_full")
    return Choice(Profile.CPU, t("hardware.profile_auto", reason=gpu_reason.rstrip("。.")))


def budget(profile: Profile, hardware: Hardware) -> int:
    """Bytes that a model may take under this profile: what is free now, in four bits no more than a small
    card has; for a GPU profile on a machine without one, what a card of that class would leave."""
    if profile not in CLASS_BYTES:
        return hardware.ram_available
    if hardware.nvidia is None:
        return CLASS_BYTES[profile]
    free = hardware.nvidia.free_bytes
    return min(free, CLASS_BYTES[profile]) if profile is Profile.GPU8 else free
