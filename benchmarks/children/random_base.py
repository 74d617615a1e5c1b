"""Makes a base in safetensors with random weights and the bundled model's tokenizer, and a LoRA for it:
``random_base.py FOLDER``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from drkun_tui import paths

LAYERS, HIDDEN, INNER, VOCABULARY = 28, 1024, 3072, 8192
"""The layers of Qwen3-0.6B under the bundled model's small vocabulary."""


def main(folder: Path) -> None:
    """Write ``base`` and ``adapter``."""
    torch.manual_seed(0)
    numbers = {"num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": INNER}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    vocabulary = {"vocab_size": VOCABULARY, "tie_word_embeddings": True, "eos_token_id": 8178}
    config = AutoConfig.for_model("qwen3", max_position_embeddings=2048, **numbers, **heads, **vocabulary)
    kind: Any = AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / "base", max_shard_size="256MB")
    gguf = paths.starter()
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.save_pretrained(folder / "base")
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules=names, task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.01)
    adapted.save_pretrained(str(folder / "adapter"))


if __name__ == "__main__":
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    main(Path(sys.argv[1]))
