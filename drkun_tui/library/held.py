"""What a loaded model holds of this machine's memory, and the machine as it is once that is given back."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from drkun_tui.engine.protocol import Load, Ready
from drkun_tui.hardware import Hardware
from drkun_tui.library import fit


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that a loaded model would give back.

    Attributes:
        gpu: of a GPU's memory.
        ram: of the machine's.
        card: the UUID of the GPU; "" where it is not known.
    """

    gpu: int = 0
    ram: int = 0
    card: str = ""


def held_by(load: Load, ready: Ready, need: fit.Need, pid: int | None) -> Held:
    """What the model that was loaded so holds.

    Args:
        need: what was reckoned with when it was loaded.
        pid: of its engine process.
    """
    ram = _taken(pid) if pid is not None else 0
    if load.device != "cuda":
        return Held(ram=ram)
    if load.engine == "transformers":
        # PyTorch tells what it has reserved, which CUDA's own part is not in.
        return Held(ready.reserved_bytes + fit.CUDA_BYTES, ram, load.gpu)
    # llama.cpp does not tell.
    layers = ready.cpu_layers + load.gpu_layers
    share = load.gpu_layers / layers if ready.cpu_layers else 1.0
    return Held(int((need.weights + need.cache) * share) + need.overhead + need.adapter, ram, load.gpu)


def freed(machine: Hardware, held: Held) -> Hardware:
    """The machine once that is given back. Of a card that is not known it is the one with the most room."""
    at = next((gpu for gpu in machine.gpus if held.card and gpu.uuid == held.card), machine.nvidia)
    gpus = [
        replace(gpu, free_bytes=min(gpu.total_bytes, gpu.free_bytes + held.gpu)) if gpu is at else gpu
        for gpu in machine.gpus
    ]
    return replace(machine, gpus=gpus, ram_available=min(machine.ram_total, machine.ram_available + held.ram))


def _taken(pid: int) -> int:
    """Bytes of memory that come free when a process ends. Files that it has mapped are in the page cache,
    which counts as available all the time."""
    if sys.platform != "linux":
        import psutil

        try:
            return int(psutil.Process(pid).memory_full_info().uss)
        except psutil.Error:
            return 0
    try:
        told = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return 0
    values = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    return int(values.get("RssAnon", "0").split()[0]) * 1024
