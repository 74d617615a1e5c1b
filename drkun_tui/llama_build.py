"""Which llama.cpp is installed: what it can compute on beside the CPU, found out without loading it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

BACKENDS = {"cuda": "CUDA", "hip": "ROCm", "metal": "Metal", "vulkan": "Vulkan", "sycl": "SYCL"}
"""By the name of ggml's library for each."""

CUDA_BUILD = (
    'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-deps --no-cache-dir '
    "--no-binary llama-cpp-python llama-cpp-python"
)
"""The command that builds it for NVIDIA GPUs; it wants CUDA's compiler."""

CPU_BUILD = "pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"
"""The command that builds it for the CPU alone."""


def gpu_backend() -> str:
    """What the installed build computes on beside the CPU, e.g. ``"CUDA"``; "" where it is the CPU alone."""
    spec = importlib.util.find_spec("llama_cpp")
    for folder in spec.submodule_search_locations or () if spec else ():
        for name, shown in BACKENDS.items():
            if any(Path(folder, "lib").glob(f"*ggml-{name}.*")):
                return shown
    return ""
