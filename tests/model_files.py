"""Makes the folders of base models and LoRAs for tests: real headers, weights of zeros, sparse on
disk."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 32,
    "intermediate_size": 128, "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip


def put_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def put_safetensors(path: Path, shapes: dict[str, list[int]], dtype: str = "BF16") -> Path:
    tensors: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(tensors).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return path


def put_base(folder: Path, config: object = CONFIG) -> Path:
    put_json(folder / "config.json", config)
    put_safetensors(folder / "model.safetensors", {"embed": [32, 64], "norm": [64]})
    return folder


def put_lora(folder: Path, **config: object) -> Path:
    told = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-4B", "r": 16} | config
    put_json(folder / "adapter_config.json", told)
    put_safetensors(folder / "adapter_model.safetensors", {"a": [16, 64], "b": [64, 16]}, "F32")
    return folder
