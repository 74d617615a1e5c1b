"""CUDA graphs: a fixed row of kernels, launched as one."""

from __future__ import annotations

from collections.abc import Callable

import torch

Step = Callable[[], None]


def captured(step: Step, device: torch.device) -> Step:
    """`step` as a CUDA graph, or as it is where there is no CUDA.

    Args:
        step: works on tensors that stay where they are, and waits for nothing.
        device: where these tensors are.
    """
    if device.type != "cuda":
        return step
    # What is compiled or chosen at a first call must not be captured.
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
