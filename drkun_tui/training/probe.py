"""``python -m drkun_tui.training.probe``: what matrix products reach where a run would train, as JSON."""

from __future__ import annotations

import json
import sys
import time

import torch

SIZE = 2048
"""Rows of both matrices: as many tokens as a sequence has, as wide as a small model."""

LONGEST_S = 1.0


def measure() -> float:
    """Floating-point operations a second, in 16 bits on an NVIDIA GPU, in 32 on a CPU.

    On a CPU the time of its cores counts, and not the clock's: other programs are not part of the machine.
    """
    on_gpu = torch.cuda.is_available()
    kind = {"device": "cuda", "dtype": torch.bfloat16} if on_gpu else {"dtype": torch.float32}
    one, other = (torch.randn(SIZE, SIZE, **kind) for _ in range(2))
    clock = time.perf_counter if on_gpu else time.process_time
    workers = 1 if on_gpu else torch.get_num_threads()
    one @ other
    if on_gpu:
        torch.cuda.synchronize()
    began, made = clock(), 0
    while clock() - began < LONGEST_S * workers:
        one @ other
        made += 1
        if on_gpu:
            torch.cuda.synchronize()
    return 2 * SIZE**3 * made * workers / (clock() - began)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"flops_s": measure()}) + "\n")
