"""Models that are folders: base models as the transformers library lays them out, LoRAs as PEFT does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drkun_tui.library import provenance
from drkun_tui.library.files import read_json
from drkun_tui.library.fit import Shape, cache_bytes
from drkun_tui.library.gguf_header import Part
from drkun_tui.library.model import Kind, Model, problem
from drkun_tui.library.printable import printable
from drkun_tui.library.provenance import Provenance
from drkun_tui.library.safetensors import Weights
from drkun_tui.library.tensors import MAX_NUMBER

MAX_MODULES = 64
"""Most target modules that are told of an adapter."""


def describe_lora(folder: Path, files: set[str], name: str) -> Model:
    """A PEFT adapter."""
    config = read_json(folder / "adapter_config.json")
    problems = [] if config else [problem("bad_config", "fetch_again", file="adapter_config.json")]
    weights = Weights(folder)
    if "adapter_model.safetensors" in files:
        weights.add("adapter_model.safetensors")
    elif "adapter_model.bin" in files:
        weights.add_pickle("adapter_model.bin")
    else:
        problems.append(problem("weights_missing", "fetch_again", file="adapter_model.safetensors"))
    method = config.get("peft_type", "LORA")
    if method != "LORA":
        problems.append(problem("not_lora", "another_adapter", type=printable(str(method))))
    trained = None
    if provenance.FILE in files:
        try:
            trained = provenance.read(folder)
        except ValueError:
            problems.append(problem("bad_config", "fetch_again", file=provenance.FILE))
    base = config.get("base_model_name_or_path")
    alpha = config.get("lora_alpha")
    targets = config.get("target_modules")
    modules = targets if isinstance(targets, list) else [targets]
    mapping = config.get("auto_mapping")
    return Model(
        name=name,
        kind=Kind.LORA,
        path=folder,
        files=tuple(weights.files),
        size_bytes=weights.size,
        architecture=_text(mapping, "base_model_class") if isinstance(mapping, dict) else None,
        parameters=weights.parameters or None,
        quantization=weights.dtype,
        base_model=printable(base) if isinstance(base, str) and base else None,
        rank=_int(config, "r") or None,
        alpha=alpha if isinstance(alpha, int | float) and abs(alpha) <= MAX_NUMBER else None,
        target_modules=tuple(printable(m) for m in modules[:MAX_MODULES] if isinstance(m, str)),
        provenance=trained,
        complete=not problems and not weights.problems,
        problems=(*problems, *weights.problems),
        shape=Shape(weights.size, is_gguf=False, is_adapter=True),
        tensors=weights.tensors,
    )


def describe_base(folder: Path, shards: list[str], pickles: list[str], name: str) -> Model:
    """A model in the layout of the transformers library."""
    config = read_json(folder / "config.json")
    problems = [] if config else [problem("bad_config", "fetch_again", file="config.json")]
    weights = Weights(folder)
    weights.add_shards(shards)
    if not shards and not pickles and not weights.missing:
        problems.append(problem("weights_missing", "fetch_again", file="model.safetensors"))
    if not shards:
        for pickle in pickles:
            weights.add_pickle(pickle)
    # Models of several modalities keep the language model's numbers one level down.
    inner = config.get("text_config")
    text = config | inner if isinstance(inner, dict) else config
    architectures = config.get("architectures")
    named = (
        architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    )
    stored = config.get("quantization_config")
    method = _text(stored, "quant_method") if isinstance(stored, dict) else None
    hidden, heads = _int(text, "hidden_size"), _int(text, "num_attention_heads")
    head = _int(text, "head_dim") or (hidden // heads if heads else 0)
    layers, kv_heads = _int(text, "num_hidden_layers"), _int(text, "num_key_value_heads") or heads
    tied = text.get("tie_word_embeddings") is not False
    embeddings = _int(text, "vocab_size") * hidden * (1 if tied else 2)
    # Packed weights hide how many there are; they are loaded as they are stored.
    parameters = 0 if stored else weights.parameters
    shape = Shape(
        weight_bytes=weights.size,
        is_gguf=False,
        parameters=parameters,
        embedding_parameters=min(embeddings, parameters),
        cache_bytes=cache_bytes(layers * kv_heads, head, head),
        vocabulary=_int(text, "vocab_size"),
        embedding=hidden,
        feed_forward=_int(text, "intermediate_size"),
        context_length=_int(text, "max_position_embeddings"),
        layers=layers,
        heads=layers * heads,
        head_length=head,
        parts=_parts(text, parameters, min(embeddings, parameters), tied=tied),
        expert_share=_expert_share(text),
    )
    numbers = (shape.heads, layers, layers * kv_heads, head, hidden, shape.vocabulary, shape.feed_forward)
    if not (plausible := max(numbers) <= MAX_NUMBER):
        problems.append(problem("bad_config", "fetch_again", file="config.json"))
    made = _made(folder)
    return Model(
        name=name,
        kind=Kind.BASE,
        path=folder,
        files=tuple(weights.files),
        size_bytes=weights.size,
        architecture=printable(named) if isinstance(named, str) else None,
        parameters=parameters or None,
        quantization=method or weights.dtype,
        context_length=shape.context_length or None,
        complete=not problems and not weights.problems,
        problems=(*problems, *weights.problems),
        provenance=made if made and made.trained else None,
        demonstration=made is not None and made.demonstration,
        shape=shape if weights.size and plausible and not weights.missing else None,
        # Packed weights hide their shapes, too.
        tensors=None if stored else weights.tensors,
    )


def _made(folder: Path) -> Provenance | None:
    """How it was made, if that was here: unpacked from the bundled starter, or merged with an adapter."""
    try:
        return provenance.read(folder)
    except ValueError:
        return None


def _parts(
    config: Mapping[str, Any], parameters: int, embeddings: int, *, tied: bool
) -> tuple[tuple[Part, str, int], ...]:
    """The weights by part, in bytes at 16 bits."""
    experts = min(
        _experts(config)[0]
        * _int(config, "num_hidden_layers")
        * 3
        * _int(config, "hidden_size")
        * _int(config, "moe_intermediate_size"),
        parameters - embeddings,
    )
    sizes: dict[Part, int] = {"layers": parameters - embeddings - experts, "experts": experts}
    sizes |= {"embedding": embeddings} if tied else {"embedding": embeddings // 2, "output": embeddings // 2}
    return tuple((part, "BF16", 2 * size) for part, size in sizes.items() if size)


def _experts(config: Mapping[str, Any]) -> tuple[int, int]:
    """How many a layer has, and how many each token is sent through."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return max(_int(config, name) for name in names), _int(config, "num_experts_per_tok")


def _expert_share(config: Mapping[str, Any]) -> float:
    count, used = _experts(config)
    return min(1.0, used / count) if used and count else 1.0


def _int(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def _text(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    return printable(value) if isinstance(value, str) and value else None
