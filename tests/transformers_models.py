"""Models in safetensors form for tests: the bundled one read back from its GGUF, and small random ones."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from drkun_tui import paths
from drkun_tui.engine.protocol import ChatMessage, FinishReason, Generate, Load
from drkun_tui.engine.transformers.engine import Transformers
from drkun_tui.sampling import Sampling

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 8192,
    "max_position_embeddings": 512,
    # Wide enough that the likeliest token is clearly so.
    "initializer_range": 0.15,
    "eos_token_id": 8178,
}


PLAIN = Sampling(temperature=0, repeat_penalty=1, max_tokens=48)
"""As `generate` decodes without any settings."""


def starter(folder: Path) -> Path:
    """The bundled model's weights, unpacked to 32 bits."""
    gguf = paths.starter()
    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = packed.config
    with contextlib.suppress(AttributeError):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    return folder


def random_model(folder: Path, kind: str, tokenizer: Path, **changes: Any) -> Path:
    """A small model of this kind with random weights and the tokenizer of another."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        # Norms and biases begin as ones and zeros, which would hide that they are left out.
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def lora(folder: Path, base: Path, seed: int = 1, targets: Sequence[str] = PROJECTIONS, **more: Any) -> Path:
    """A random adapter for `base` that changes its answers."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=list(targets), task_type="CAUSAL_LM", **more)
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.05)
    adapted.save_pretrained(str(folder))
    return folder


def request(path: Path, **changes: Any) -> Load:
    """A load in 32 bits on the CPU."""
    given = {"context_length": 256, "threads": 1, "engine": "transformers", "weights": "full", **changes}
    return Load(path=str(path), **given)


def loaded(path: Path, **changes: Any) -> Transformers:
    """The engine with a model in it."""
    engine = Transformers()
    engine.load(request(path, **changes), lambda _: None)
    return engine


def answer(
    engine: Transformers,
    messages: list[ChatMessage],
    sampling: Sampling = PLAIN,
    **more: Any,
) -> tuple[str, FinishReason, int]:
    """Text, why it ended, and how many tokens of the prompt were reused."""
    asked = Generate(id=1, messages=messages, sampling=sampling, **more)
    prompt = engine.prepare(asked)
    tokens = engine.generate(asked, prompt, lambda: False)
    text = ""
    while True:
        try:
            text += next(tokens)
        except StopIteration as end:
            return text, end.value, prompt.reused_tokens


def plain(path: Path, prompt: str, length: int = 48, dtype: torch.dtype = torch.float32, **more: Any) -> str:
    """What Transformers' own greedy `generate` answers."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **more)
    return generated(model, path, prompt, length)


def generated(model: Any, path: Path, prompt: str, length: int = 48) -> str:
    """See `plain`, for a model that is loaded."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids.to(model.device)
    out = model.generate(ids, max_new_tokens=length, do_sample=False, pad_token_id=0)
    text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    # The engine holds a character back until all of its bytes are there.
    return str(text).rstrip("\ufffd")


def quiet() -> None:
    """No progress bars among the tests' dots."""
    transformers.utils.logging.disable_progress_bar()
