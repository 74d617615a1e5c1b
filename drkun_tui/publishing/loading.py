"""A GGUF in llama.cpp, for the stages that ask it; in the exporting processes only."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp as binding

from drkun_tui.publishing.faults import PublishingError

_ERROR = 4


@contextmanager
def context(path: str, params: Any, lora: str = "") -> Iterator[tuple[Any, Any]]:
    """A model and a context of it, on the processor.

    Args:
        params: ``llama_context_params``.
        lora: a GGUF LoRA to attach, or "".

    Raises:
        PublishingError: ``not_loadable``.
    """
    errors: list[str] = []

    def hear(level: int, text: bytes, _: object) -> None:
        line = text.decode("utf8", "replace")
        sys.stderr.write(line)
        if level == _ERROR:
            errors.append(line.strip()[:200])

    def made(what: Any) -> Any:
        if not what:
            raise PublishingError("not_loadable", file=Path(path).name, reason=(errors or ["?"])[0])
        return what

    callback = binding.llama_log_callback(hear)
    binding.llama_log_set(callback, ctypes.c_void_p(0))
    binding.llama_backend_init()
    of_model = binding.llama_model_default_params()
    of_model.n_gpu_layers = 0
    # The processor's special layouts crash on some machines, and are not what is to be looked at.
    of_model.use_extra_bufts = False
    model = made(binding.llama_model_load_from_file(path.encode(), of_model))
    opened = made(binding.llama_init_from_model(model, params))
    if lora:
        adapter = made(binding.llama_adapter_lora_init(model, lora.encode()))
        adapters = (binding.llama_adapter_lora_p_ctypes * 1)(adapter)
        binding.llama_set_adapters_lora(opened, adapters, 1, (ctypes.c_float * 1)(1.0))
    try:
        yield model, opened
    finally:
        binding.llama_free(opened)
        binding.llama_model_free(model)
        binding.llama_log_set(binding.llama_log_callback(), ctypes.c_void_p(0))


def evaluate(opened: Any, tokens: list[int], at: int) -> None:
    """Read these tokens behind the first `at`, with an output behind each.

    Raises:
        PublishingError: ``not_loadable``.
    """
    batch = binding.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = at + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = 1
        if binding.llama_decode(opened, batch):
            raise PublishingError("not_loadable", file="GGUF", reason="llama_decode")
    finally:
        binding.llama_batch_free(batch)
