"""How much memory a model needs, and whether it is there.

What is counted: the weights, the KV cache at the chosen context, an adapter, the engine's compute buffer
and its process. The formulas are llama.cpp's own for the cache, and measured ones for the rest;
`cpu_overhead` says how and how well. Models with sliding-window or recurrent layers need less cache than
counted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library.gguf_header import GgufHeader, Part
from drkun_tui.profiles import CLASS_BYTES, Profile, budget

DEFAULT_CONTEXT = 8192
"""Tokens, when nobody wished for another number: room for a long consultation at little memory."""

SMALLEST_CONTEXT = 512
"""Tokens; with fewer no conversation fits."""

CONTEXT_STEP = 256
"""llama.cpp rounds contexts to this."""

KV_ELEMENT_BYTES = 2
"""The cache is kept in 16-bit floats, where nothing else is asked for."""

CACHE_SHARE = {"f16": 1.0, "q8_0": 34 / 64, "q4_0": 18 / 64}
"""What a quantised cache takes of that: blocks of 32 elements with a 16-bit scale."""

NF4_WEIGHT_BYTES = 0.52
"""Four bits, and the doubly quantised scales of blocks of 64 (bitsandbytes)."""

QUANTISATIONS = (("Q8_0", 8.50), ("Q6_K", 6.56), ("Q5_K_M", 5.70), ("Q4_K_M", 4.89), ("Q3_K_M", 4.00))
"""Bits a weight, the largest first: llama.cpp's ``tools/quantize/README.md``, for Llama-3.1-8B. Q3_K_M is
not in that table and lies between Q3_K_S (3.64) and Q3_K_L (4.30). Small models with large vocabularies
have up to a tenth more."""

MIB = 1024**2
_BATCH = 512
CUDA_BYTES = 600 * MIB
"""CUDA context, kernels and the allocator's slack."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's memory depends on. Zero stands for unknown."""

    weight_bytes: int
    """As stored; loaded so from a GGUF."""
    is_gguf: bool = True
    is_adapter: bool = False
    parameters: int = 0
    embedding_parameters: int = 0
    """Those in the input and output embeddings, which nf4 leaves in 16 bits."""
    cache_bytes: int = 0
    """Keys and values of one token, in all layers."""
    vocabulary: int = 0
    embedding: int = 0
    feed_forward: int = 0
    context_length: int = 0
    """Tokens that it was trained for."""
    layers: int = 0
    heads: int = 0
    """Query heads of all layers."""
    head_length: int = 0
    """Elements of one head's key."""
    parts: tuple[tuple[Part, str, int], ...] = ()
    """The weights by part and tensor type, in bytes as stored."""
    expert_share: float = 1.0
    """Of the experts' weights, the share that one token is sent through."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How the user wants models to be loaded."""

    context: int = 0
    """Tokens; 0 is `DEFAULT_CONTEXT`."""
    kv_cache: str = "f16"
    """What a GGUF's keys and values are kept as, one of `CACHE_SHARE`."""


USUAL = Wish()


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model takes, by what for."""

    weights: int
    cache: int
    overhead: int
    adapter: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.cache + self.overhead + self.adapter


@dataclass(frozen=True, slots=True)
class Fit:
    """Does a model fit under a profile, with how much, and why: one sentence."""

    fits: bool
    need_bytes: int
    reason: str
    """Where it does not fit, also what would."""
    need: Need | None = None
    """`need_bytes` by what for; None where too little is known."""
    context: int = 0
    """Tokens for which it was counted."""


@dataclass(frozen=True, slots=True)
class ContextChoice:
    """Tokens of context to load a model with, and what decided: one sentence."""

    tokens: int
    reason: str
    limited: bool = False
    """Memory allows no more."""


def cache_bytes(kv_heads_in_all: int, key_length: int, value_length: int) -> int:
    """KV cache of one token: kv heads of all layers × (key + value elements) × 2 bytes."""
    return kv_heads_in_all * (key_length + value_length) * KV_ELEMENT_BYTES


def shape_of(header: GgufHeader) -> Shape:
    """The shape of a model in one GGUF file."""
    return Shape(
        weight_bytes=header.tensor_bytes,
        is_adapter=header.general_type == "adapter",
        parameters=header.parameters,
        cache_bytes=cache_bytes(
            header.kv_heads_in_all or 0, header.key_length or 0, header.value_length or 0
        ),
        vocabulary=header.vocabulary or 0,
        embedding=header.embedding_length or 0,
        feed_forward=header.feed_forward_length or 0,
        context_length=header.context_length or 0,
        layers=header.block_count or 0,
        heads=header.heads_in_all or 0,
        head_length=header.key_length or 0,
        parts=tuple((part, name, size) for (part, name), size in header.part_bytes.items()),
        expert_share=header.expert_share,
    )


def with_cache(shape: Shape, kind: str) -> Shape:
    """The shape of a model whose cache is kept as one of `CACHE_SHARE`."""
    return replace(shape, cache_bytes=int(shape.cache_bytes * CACHE_SHARE[kind]))


def joined(shapes: Sequence[Shape]) -> Shape:
    """The shape of a split model: the first part says what it is, the weights of all add up."""
    return replace(
        shapes[0],
        weight_bytes=sum(shape.weight_bytes for shape in shapes),
        parameters=sum(shape.parameters for shape in shapes),
        parts=tuple(part for shape in shapes for part in shape.parts),
    )


def cpu_overhead(shape: Shape) -> int:
    """Bytes beside weights and cache, for the llama.cpp engine on a CPU.

    Fitted to the memory that is really touched (unique set size after a batch of 512 tokens, only the
    last one's logits asked for; llama-cpp-python 0.3.36, flash attention, 2 threads): a process of
    48 MiB; some 200 bytes a token of vocabulary, as much again for its merges; activations, of which
    the MLP's are the largest. For the starter and for the shapes of Qwen3-0.6B, Qwen3-4B and
    Llama-3-8B the sum with weights and cache came within 3 % of the measured one. Weights count once:
    where llama.cpp re-packs them, the mapped file stays in the page cache and can be dropped.
    """
    activations = _BATCH * 4 * (4 * shape.feed_forward + 2 * shape.embedding)
    return 48 * MIB + 400 * shape.vocabulary + min(activations, _compute_buffer(shape))


def _compute_buffer(shape: Shape) -> int:
    """What llama.cpp reserves for a batch: its logits in 32 bits and two residual streams. Seen exact to
    the MiB on the four shapes above."""
    return _BATCH * 4 * (shape.vocabulary + 2 * shape.embedding)


def need(shape: Shape, profile: Profile, context: int, adapter_bytes: int = 0) -> Need:
    """Bytes for a model under a profile.

    Args:
        shape: the model's.
        profile: ``gpu8`` loads safetensors in nf4, ``gpu16`` and the CPU in 16 bits; a GGUF is loaded
            as it is.
        context: tokens of KV cache.
        adapter_bytes: of a LoRA that is attached, as stored.
    """
    if shape.is_adapter:
        return Need(shape.weight_bytes, 0, 0)
    weights = shape.weight_bytes
    if not shape.is_gguf and shape.parameters:  # unknown where the weights are packed
        weights = shape.parameters * 2
        if profile is Profile.GPU8:
            quantised = shape.parameters - shape.embedding_parameters
            weights = int(quantised * NF4_WEIGHT_BYTES) + shape.embedding_parameters * 2
    # A GPU's buffers are taken whole when they are made.
    overhead = CUDA_BYTES + _compute_buffer(shape) if profile in CLASS_BYTES else cpu_overhead(shape)
    return Need(weights, shape.cache_bytes * context, overhead, adapter_bytes)


def fit(
    shape: Shape,
    profile: Profile,
    hardware: Hardware,
    context: int | None = None,
    adapter_bytes: int = 0,
) -> Fit:
    """Does the model fit, if need be with a shorter context than `context` or the default?

    On a machine without an NVIDIA GPU the GPU profiles are judged by what a card of their class has;
    the reason says so.
    """
    free = budget(profile, hardware)
    chosen = _choose(shape, profile, free - adapter_bytes, context)
    tokens = chosen.tokens
    needed = need(shape, profile, tokens, adapter_bytes)
    fits = needed.total <= free
    values = {"need": size_text(needed.total), "free": size_text(free), "context": f"{tokens:,}"}
    if shape.is_adapter:
        reason = t("fit.adapter", **values)
    elif fits:
        reason = t("fit.fits_shorter" if chosen.limited else "fit.fits", **values)
    else:
        why = t("fit.weights_too_big" if needed.weights > free else "fit.too_big", **values)
        reason = why + _remedy(shape, profile, hardware, context, adapter_bytes)
    return Fit(fits, needed.total, f"{reason}{_where(shape, profile, hardware)}", needed, tokens)


def _remedy(
    shape: Shape, profile: Profile, hardware: Hardware, context: int | None, adapter_bytes: int
) -> str:
    """What would fit instead of a model that is too big even with the shortest context."""
    free = budget(profile, hardware) - adapter_bytes
    if profile is Profile.GPU16 and not shape.is_gguf:
        least = need(shape, Profile.GPU8, SMALLEST_CONTEXT).total
        if least <= free:
            return t("fit.remedy_nf4", need=size_text(least))
    if profile in CLASS_BYTES and (layers := gpu_layers(shape, free, hardware.ram_available)):
        return t("fit.remedy_layers", layers=layers, all=shape.layers)
    if (smaller := smaller_quantisation(shape, profile, free, context)) is not None:
        name, size = smaller
        return t("fit.remedy_quantisation", quantization=name, size=size_text(size))
    return t("fit.remedy_model")


def smaller_quantisation(
    shape: Shape, profile: Profile, free: int, context: int | None = None
) -> tuple[str, int] | None:
    """The best quantisation that fits and is smaller than the model as it is, with the size of its file.

    With room for `context` tokens or the default if any leaves it, else with the shortest context. None
    where none fits, or for a profile that would not load it.

    Args:
        free: bytes that may be taken.
    """
    if not shape.is_gguf and profile in CLASS_BYTES:
        return None
    wanted = min(context or DEFAULT_CONTEXT, shape.context_length or DEFAULT_CONTEXT)
    for tokens in (wanted, min(wanted, SMALLEST_CONTEXT)):
        for name, bits in QUANTISATIONS:
            size = int(shape.parameters * bits / 8)
            quantised = replace(shape, weight_bytes=size, is_gguf=True)
            if 0 < size < shape.weight_bytes and need(quantised, profile, tokens).total <= free:
                return name, size
    return None


def gpu_layers(shape: Shape, free: int, ram: int, context: int = SMALLEST_CONTEXT) -> int:
    """How many layers of a GGUF that is too big for a GPU fit on it, the others on the CPU; 0 where none
    do, or where the CPU has no room for the others.

    Args:
        free: bytes of the GPU's memory.
        ram: bytes of the machine's memory.
        context: tokens; each layer's cache lies where the layer does.
    """
    inner = sum(size for part, _, size in shape.parts if part in ("layers", "experts"))
    if not shape.is_gguf or not shape.layers or not inner:
        return 0
    if not (layer := (inner + shape.cache_bytes * context) // shape.layers):  # no model is so small
        return 0
    # What is no layer: the output goes with them, the input embedding stays on the CPU.
    output = sum(size for part, _, size in shape.parts if part == "output")
    left = free - CUDA_BYTES - _compute_buffer(shape) - output
    layers = min(left // layer, shape.layers - 1)
    on_cpu = (shape.layers - layers) * layer + shape.weight_bytes - inner - output
    return layers if layers > 0 and on_cpu + cpu_overhead(shape) <= ram else 0


def _where(shape: Shape, profile: Profile, hardware: Hardware) -> str:
    """What else must be known: whose memory was meant, or that another format is faster."""
    if profile in CLASS_BYTES:
        gpu = hardware.nvidia
        return t("fit.on_gpu", gpu=gpu.name) if gpu else t("fit.no_gpu", profile=profile.value)
    return t("fit.on_cpu") if shape.is_gguf else t("fit.cpu_prefers_gguf")


def context_for(
    model: GgufHeader | Shape,
    available_bytes: int,
    wanted: int | None = None,
    profile: Profile = Profile.CPU,
) -> ContextChoice:
    """The context to load a model with.

    The least of what it was trained for, what is `wanted` (or `DEFAULT_CONTEXT`) and what
    `available_bytes` allow; a multiple of 256, never below 512 unless it was trained for less.

    Args:
        model: its header; of a split model its shape, which counts every part.
        available_bytes: memory that may be taken.
        wanted: tokens; None or 0 leaves it to this function.
        profile: which decides what the model takes beside its context.
    """
    shape = model if isinstance(model, Shape) else shape_of(model)
    return _choose(shape, profile, available_bytes, wanted)


def _choose(shape: Shape, profile: Profile, free: int, wanted: int | None) -> ContextChoice:
    trained = shape.context_length
    tokens, why = (wanted, "wanted") if wanted and wanted > 0 else (DEFAULT_CONTEXT, "default")
    if trained and trained <= tokens:
        tokens, why = trained, "trained"
    left = free - need(shape, profile, 0).total
    if shape.cache_bytes and left < shape.cache_bytes * tokens:
        tokens, why = left // shape.cache_bytes, "memory"
    elif left < 0:
        tokens, why = 0, "memory"
    floor = min(SMALLEST_CONTEXT, trained or SMALLEST_CONTEXT)
    if why == "memory" and tokens < floor:
        reason = t("fit.context_no_memory", context=f"{floor:,}", free=size_text(free))
        return ContextChoice(floor, reason, limited=True)
    tokens = max(floor, tokens // CONTEXT_STEP * CONTEXT_STEP)
    return ContextChoice(tokens, t(f"fit.context_{why}", context=f"{tokens:,}"), limited=why == "memory")


def size_text(size: int) -> str:
    """Bytes for people, e.g. ``"2.3 GiB"``."""
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / MIB:.0f} MiB"
