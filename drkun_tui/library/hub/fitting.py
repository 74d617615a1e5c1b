"""Would a model fit this machine? Judged before its header is read, by the size of its files alone;
`library.fit` says it exactly afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from drkun_tui import llama_build
from drkun_tui.hardware import Hardware
from drkun_tui.library.fit import CUDA_BYTES, Shape, need
from drkun_tui.library.hub.choose import Fits
from drkun_tui.profiles import Profile, budget, missing_packages, torch_has_cuda

_BESIDE_WEIGHTS = 768 * 1024 * 1024
"""Bytes for a context of some thousand tokens, buffers and the process."""

_EMBEDDING_SHARE = 0.15
"""Of a model's weights, those in its embeddings: 10 % in Qwen3-4B, 15 % in Qwen3-8B, more in small models,
for which it does not matter."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Does it fit, and of safetensors that do, under which profile?"""

    fits: bool
    profile: Profile | None = None


def fits_on(machine: Hardware) -> Fits:
    """Would a GGUF of so many bytes leave room to answer in the memory that is free now? Where the installed
    llama.cpp computes on the GPU, its layers are shared out between both memories."""
    free = budget(Profile.CPU, machine)
    if machine.nvidia is not None and llama_build.gpu_backend() == "CUDA":
        free += max(0, budget(Profile.GPU16, machine) - CUDA_BYTES)
    return lambda size: size + _BESIDE_WEIGHTS <= free


def judge_safetensors(size: int, machine: Hardware) -> Verdict:
    """Would safetensors leave room to answer in the memory that is free now, under the most precise profile
    that has it?

    Args:
        size: bytes of the weights, which are taken to be of 16 bits, as nearly all on the hubs are.
    """
    parameters = size // 2
    shape = Shape(
        weight_bytes=size,
        is_gguf=False,
        parameters=parameters,
        embedding_parameters=int(parameters * _EMBEDDING_SHARE),
    )
    # Packages that are not there yet can be installed; a PyTorch for the CPU alone is there to stay.
    profiles = [
        profile
        for profile in (Profile.GPU16, Profile.GPU8)
        if machine.nvidia is not None and (missing_packages(profile) or torch_has_cuda())
    ]
    for profile in (*profiles, Profile.CPU):
        if need(shape, profile, 0).weights + _BESIDE_WEIGHTS <= budget(profile, machine):
            return Verdict(True, profile)
    return Verdict(False)
