"""How long a token takes, and a prompt: from a model's shape and what a machine reaches.

On a CPU the weights that a token is multiplied with are counted by tensor type, each at the rate that was
measured for its kernel (`drkun_tui.engine.rates`); to that come attention over the context, the threads'
waiting for each other at every operation, and sampling. The constants were fitted on 2026-11-24 to the
bundled model and to random models of 270 M to 1.2 B parameters in F16, Q8_0 and Q4_K_M, on two cores, but
the one of sampling, which was measured by itself on 2026-12-01;
``benchmarks/speed_estimates.py`` shows how well they hold.

On a GPU a token takes the time to read the weights, and some time for every layer, which on a fast card is
most of it: the constants are those of Qwen3-4B on an H200.
"""

from __future__ import annotations

from collections.abc import Mapping

from drkun_tui.engine.rates import Rates
from drkun_tui.library.fit import NF4_WEIGHT_BYTES, Shape
from drkun_tui.library.gguf_header import Part
from drkun_tui.library.gguf_types import TENSOR_TYPES
from drkun_tui.profiles import Profile

OPERATIONS = 370
"""Empty operations that a layer's own overhead is worth: twenty operations at which all threads wait for
each other, those with weights several times, and the first cache lines of each matrix."""

USUAL = 1.08
"""How much longer a kernel takes in the run of a model than when it was measured at its best."""

CACHED = 0.4
"""Of the time for weights and layers, what is left where the whole model stays in the last cache, as the
bundled one does on most machines; then its keys and values do, too."""

SAMPLING_S = 7e-10
"""Seconds for each token of the vocabulary to find the few that can be picked (`engine.llama_sampler`)."""

TOKEN_S = 1.3e-4
"""Seconds of a token that depend on nothing: from the sampled token to its text and the next graph."""

BATCH = 512
"""Tokens of a prompt that are evaluated in one go."""

CACHE_STEP = 256
"""llama.cpp attends to the context rounded up to this."""

GPU_BANDWIDTH_SHARE = 0.88
"""Of a card's nominal bandwidth, what kernels reach: 4.3 of 4.9 TB/s on an H200."""

GPU_LAYER_S = {"llama_cpp": 60e-6, "transformers": 220e-6}
"""Seconds of a layer in decoding, beyond reading its weights: llama.cpp's CUDA kernels made 338 tokens/s in
Q4_K_M and 275 in BF16, a Transformers model captured as a CUDA graph 114 in nf4 and 106 in bf16."""

GPU_PROMPT_LAYER_S = {"llama_cpp": 0.4e-3, "transformers": 1.8e-3}
"""Seconds of a layer for a prompt, however short: a Transformers model is started operation by operation,
36 layers took 65 ms."""

GPU_COMPUTE = 30
"""Multiply-adds for each byte of bandwidth that a card reaches on a prompt; the data sheets' tensor cores
could do 38 (RTX 3090) to 148 (H100)."""

_PER_ELEMENT = {name: size / block for name, block, size in TENSOR_TYPES.values()}
"""Tensor type to bytes of one weight."""


def decode_s(shape: Shape, rates: Rates, context: float) -> float:
    """Seconds of one token on the CPU after `context` others."""
    # Most of attention's cost is for each position, not for each of a head's elements.
    head_s = rates.attention_s * (0.6 + 0.4 * shape.head_length / 128)
    cache_s = 0.0 if _stays_cached(shape, rates) else rates.cache_s
    attention = context * (shape.heads * head_s + shape.cache_bytes * cache_s)
    return _weights_s(shape, rates, "layers", "experts") + attention + _token_s(shape, rates)


def prefill_s(shape: Shape, rates: Rates, tokens: int, start: int = 0) -> float:
    """Seconds from a prompt of so many tokens to the first one of its answer, on the CPU.

    Args:
        tokens: those that must be evaluated.
        start: those before them that are in the KV cache already.
    """
    reading = _weights_s(shape, rates, "layers", "experts")
    taken = 0.0
    for begin in range(0, tokens, BATCH):
        batch = min(BATCH, tokens - begin)
        computing = USUAL * sum(
            count * batch / rates.prefill[_like(kind, rates.prefill)]
            for kind, count in _elements(shape, "layers", "experts").items()
        )
        seen = -(-(start + begin + batch) // CACHE_STEP) * CACHE_STEP
        attention = shape.heads * batch * seen * 2 * shape.head_length / rates.prefill_attention
        # A short batch waits for the memory like a single token.
        taken += max(computing, reading) + attention
    return taken + _token_s(shape, rates)


def _token_s(shape: Shape, rates: Rates) -> float:
    """Seconds of whatever is done once for each token that is sampled."""
    output = _weights_s(shape, rates, "output" if _has_output(shape) else "embedding")
    waiting = shape.layers * OPERATIONS * rates.operation_s
    if _stays_cached(shape, rates):
        waiting *= CACHED
    return output + waiting + shape.vocabulary * SAMPLING_S + TOKEN_S


def _weights_s(shape: Shape, rates: Rates, *parts: Part) -> float:
    """Seconds to multiply one token with these parts of the model."""
    seconds = 0.0
    for kind, count in _elements(shape, *parts).items():
        like = _like(kind, rates.decode)
        seconds += USUAL * count * _PER_ELEMENT[like] / rates.decode[like]
    return seconds * CACHED if _stays_cached(shape, rates) else seconds


def _stays_cached(shape: Shape, rates: Rates) -> bool:
    return shape.weight_bytes < rates.last_cache


def _elements(shape: Shape, *parts: Part) -> dict[str, float]:
    """Weights that one token is multiplied with, by tensor type."""
    counts: dict[str, float] = {}
    for part, kind, size in shape.parts:
        if part in parts:
            share = shape.expert_share if part == "experts" else 1.0
            counts[kind] = counts.get(kind, 0.0) + size / _PER_ELEMENT[kind] * share
    return counts


def _has_output(shape: Shape) -> bool:
    """Without an output of its own a model multiplies with its input embedding; else of that one row is
    read."""
    return any(part == "output" for part, _, _ in shape.parts)


def _like(kind: str, measured: Mapping[str, float]) -> str:
    """The measured tensor type that is the most like this one: itself, or the nearest in size."""
    return min(measured, key=lambda name: (name != kind, abs(_PER_ELEMENT[name] - _PER_ELEMENT[kind])))


def gpu_decode_s(shape: Shape, profile: Profile, bandwidth: int, context: float) -> float:
    """Seconds of one token on an NVIDIA GPU.

    Args:
        profile: ``gpu8`` has safetensors in nf4, ``gpu16`` in 16 bits.
        bandwidth: of the card's memory, nominal, bytes a second.
    """
    layers = sum(_elements(shape, "layers", "experts").values())
    output = sum(_elements(shape, "output" if _has_output(shape) else "embedding").values())
    if shape.is_gguf:
        used = _elements(shape, "layers", "experts", "output" if _has_output(shape) else "embedding")
        read = sum(count * _PER_ELEMENT[kind] for kind, count in used.items())
    else:
        read = layers * (NF4_WEIGHT_BYTES if profile is Profile.GPU8 else 2) + output * 2
    read += shape.cache_bytes * context
    return read / (bandwidth * GPU_BANDWIDTH_SHARE) + shape.layers * GPU_LAYER_S[engine_of(shape)]


def gpu_prefill_s(shape: Shape, bandwidth: int, tokens: int) -> float:
    """Seconds from a prompt of so many tokens to the first one of its answer, on an NVIDIA GPU."""
    computing = sum(_elements(shape, "layers", "experts").values()) * tokens / (bandwidth * GPU_COMPUTE)
    return computing + shape.layers * GPU_PROMPT_LAYER_S[engine_of(shape)]


def engine_of(shape: Shape) -> str:
    """Which engine runs it."""
    return "llama_cpp" if shape.is_gguf else "transformers"
