"""Running out of GPU memory: what it looks like, and what would need less."""

from __future__ import annotations

import torch

from drkun_tui.engine.context import SMALLEST_CONTEXT
from drkun_tui.engine.context import smaller as smaller_context

_SIGNS = ("out of memory", "STATUS_ALLOC_FAILED")
"""What CUDA, Triton, cuBLAS and cuDNN say, which take memory outside of PyTorch's allocator."""


def ran_out(error: BaseException | None) -> bool:
    """Was there not enough memory on the GPU? What fails on its account, such as the end of a capture, may
    hide the reason."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


def smaller(kind: str, context: int, weights: str) -> tuple[str, dict[str, int]]:
    """The kind of error that proposes the next smaller setting, and what its sentence needs: half the
    context, then weights in four bits, then another model."""
    if context > SMALLEST_CONTEXT:
        return kind, {"context": context, "smaller": smaller_context(context)}
    return f"{kind}_{'4' if weights == 'nf4' else '16'}_bits", {"context": context}
