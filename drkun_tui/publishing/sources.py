"""What is exported: the files of a base model in the layout of the transformers library, and the kind of an
adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drkun_tui.library.files import is_file, read_json
from drkun_tui.library.safetensors import INDEX

__all__ = ["INDEX", "other_method", "side_files", "weight_files"]

_KINDS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_PAPERS = ("license", "licence", "notice", "use_policy")
_LEFT = {INDEX, "drkun.json", "adapter_config.json", "tf_model.h5.index.json", "pytorch_model.bin.index.json"}

_OTHER_METHODS = (
    *("use_dora", "use_qalora", "use_bdlora", "layer_replication", "target_parameters", "kasa_config"),
    *("velora_config", "monteclora_config", "alora_invocation_tokens", "trainable_token_indices"),
)
"""Fields of ``adapter_config.json`` under which an adapter is more than ``B A`` beside a weight."""


def other_method(config: Mapping[str, Any]) -> str:
    """What makes an adapter something else than LoRA, as its ``adapter_config.json`` says; "" for nothing."""
    method = config.get("peft_type", "LORA")
    return (
        str(method) if method != "LORA" else next((name for name in _OTHER_METHODS if config.get(name)), "")
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make the model: those of its index, else all."""
    index = read_json(folder / INDEX).get("weight_map")
    names = set(index.values()) if isinstance(index, dict) else {f.name for f in folder.glob("*.safetensors")}
    return [folder / name for name in sorted(names)]


def side_files(folder: Path) -> list[Path]:
    """What a model needs beside its weights: configuration, tokenizer, template, licence. No code and no
    card, which would speak of another model."""
    found = sorted(file for file in folder.iterdir() if is_file(file) and not file.name.startswith("."))
    return [
        file
        for file in found
        if (file.suffix in _KINDS and file.name not in _LEFT) or file.name.lower().startswith(_PAPERS)
    ]
