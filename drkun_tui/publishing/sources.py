"""The files of a base model in the layout of the transformers library."""

from __future__ import annotations

from pathlib import Path

from drkun_tui.library.files import is_file, read_json
from drkun_tui.library.safetensors import INDEX

__all__ = ["INDEX", "side_files", "weight_files"]

_KINDS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_PAPERS = ("license", "licence", "notice", "use_policy")
_LEFT = {INDEX, "drkun.json", "adapter_config.json", "tf_model.h5.index.json", "pytorch_model.bin.index.json"}


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
