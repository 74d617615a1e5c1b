"""Profiles: policies of how much memory a model may take, and in which precision.

A profile is no engine. ``auto`` looks at the machine and picks one of the others, and says why.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from drkun_tui import llama_build, remote
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
"""What models in safetensors form need under each; a GGUF needs a llama.cpp that was built for the GPU."""

CLASS_BYTES = {Profile.GPU8: 15 * GIB // 2, Profile.GPU16: 15 * GIB}
"""What a card of each class leaves to a model: its nominal memory less the driver's and the screen's."""


_NO_CUDA = re.compile(r"^cuda\b[^=\n]*= *None", re.MULTILINE)
"""How ``torch/version.py`` says that a build is for the CPU, or for AMD's GPUs."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A profile that works here, and the sentence that says why it was chosen."""

    profile: Profile
    reason: str


def availability(
    profile: Profile, hardware: Hardware, settings: Settings | None = None, *, gguf: bool | None = None
) -> tuple[bool, str]:
    """Can this profile be used on this machine now, and why, in one sentence.

    Args:
        settings: where the address of a server may be.
        gguf: for a GGUF, or for safetensors; None where either is enough.
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
        missing = missing_packages(profile)
        if not missing and not gguf and torch_has_cuda():
            return True, t(f"hardware.profile_{profile}", gpu=gpu.name)
        if gguf is not False and llama_build.gpu_backend() == "CUDA":
            return True, t(f"hardware.profile_{profile}_gguf", gpu=gpu.name)
        if gguf:
            return False, t("hardware.profile_gguf")
        if not missing:
            return False, t("hardware.profile_gpu_torch", gpu=gpu.name)
        return False, t("hardware.profile_gpu_packages", gpu=gpu.name, packages=", ".join(missing))
    if hardware.gpus:
        return False, t("hardware.profile_gpu_other", gpu=hardware.gpus[0].name)
    return False, hardware.gpu_note or t("hardware.no_nvidia")


def missing_packages(profile: Profile) -> list[str]:
    """Which of `PACKAGES` are not installed. None of them is imported to find out."""
    return [name for name in PACKAGES[profile] if not installed(name)]


_installed: set[str] = set()
"""Packages that were found: a list of thousands of models asks for each of them."""


def installed(package: str) -> bool:
    """Is it there, or was it when it was asked for before?"""
    if package not in _installed and importlib.util.find_spec(package) is not None:
        _installed.add(package)
    return package in _installed


@functools.cache
def torch_has_cuda() -> bool:
    """Was the installed PyTorch built for NVIDIA's GPUs? Its file of versions says so, without an import."""
    spec = importlib.util.find_spec("torch")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [Path(folder, "version.py") for folder in folders]
    return not any(_NO_CUDA.search(file.read_text("utf8", "replace")) for file in files if file.is_file())


def ensure_available(wanted: Profile, hardware: Hardware, *, gguf: bool | None = None) -> None:
    """Nothing, where a model can be loaded under this profile.

    Raises:
        DrkunError: ``profile_unavailable``.
    """
    usable, reason = availability(wanted, hardware, gguf=gguf)
    if not usable:
        hint = t("hardware.profile_unavailable_hint")
        raise DrkunError("profile_unavailable", reason, hint, EXIT_BAD_INPUT)


def choose(wanted: Profile, hardware: Hardware, context: Callable[[Profile], int], *, gguf: bool) -> Choice:
    """The profile to use: the wanted one, or for ``auto`` the best that works here: the one with room for the
    longest context, and of equal ones that with the more precise weights.

    Args:
        wanted: what the user asks for.
        hardware: this machine.
        context: tokens, no more than are wished for, with which the model fits under a profile, a GGUF at
            least with some of its layers; 0 where it does not.
        gguf: is it one? Where llama.cpp was not built for the GPU, that runs on the CPU whatever is wanted.

    Raises:
        DrkunError: ``profile_unavailable``, the wanted one does not work here.
    """
    if wanted is not Profile.AUTO:
        usable, reason = availability(wanted, hardware, gguf=gguf)
        if not usable and gguf and hardware.nvidia is not None:
            return Choice(Profile.CPU, reason)
        ensure_available(wanted, hardware, gguf=gguf)
        return Choice(wanted, reason)
    found = []
    for profile in (Profile.GPU16, Profile.GPU8):
        usable, reason = availability(profile, hardware, gguf=gguf)
        if usable and (tokens := context(profile)):
            found.append((tokens, Choice(profile, t("hardware.profile_auto_gpu", reason=reason))))
    if found:
        return max(found, key=lambda each: each[0])[1]
    usable, reason = availability(Profile.GPU16, hardware, gguf=gguf)
    if usable:
        reason = t("hardware.profile_gpu_full")
    elif gguf and hardware.nvidia is not None:
        return Choice(Profile.CPU, reason)
    return Choice(Profile.CPU, t("hardware.profile_auto", reason=reason.rstrip("。.")))


def budget(profile: Profile, hardware: Hardware) -> int:
    """Bytes that a model may take under this profile: what is free now, in four bits no more than a small
    card has; for a GPU profile on a machine without one, what a card of that class would leave."""
    if profile not in CLASS_BYTES:
        return hardware.ram_available
    if hardware.nvidia is None:
        return CLASS_BYTES[profile]
    free = hardware.nvidia.free_bytes
    return min(free, CLASS_BYTES[profile]) if profile is Profile.GPU8 else free
