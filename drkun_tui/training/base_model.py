"""The base model: the bundled one unpacked to be trained on, any other loaded as the recipe says."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from drkun_tui.library import provenance
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.provenance import Provenance
from drkun_tui.training import memory, ranks
from drkun_tui.training.faults import TrainingError
from drkun_tui.training.preflight import UNPACKED, adapter_folder
from drkun_tui.training.protocol import Warned
from drkun_tui.training.recipe import Recipe


def on_disk(base: Model) -> tuple[Path, str, Warned | None]:
    """The folder to load, the name to call it, and what to say of it.

    A GGUF is unpacked to 16-bit safetensors once, and stays in the model store: it is the base that the
    adapter needs later.
    """
    if base.kind is not Kind.GGUF:
        return base.path, base.name, None
    folder = adapter_folder(UNPACKED)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two runs may begin at once.
    with filelock.FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / "config.json").exists():
            return folder, UNPACKED, None
        _unpack(base, folder)
    return folder, UNPACKED, Warned(kind="unpacked", values={"folder": UNPACKED})


def _unpack(base: Model, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, file = str(base.path.parent), base.path.name
    model: Any = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
    _add_tags(tokenizer, base.path)
    # It is no longer quantised, and would otherwise refuse to be saved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    aside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        provenance.write(aside, Provenance(base_model=base.name, demonstration=base.demonstration))
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _add_tags(tokenizer: Any, gguf: Path) -> None:
    """Tokens that stand for themselves and are not special, as ``<think>`` is: Transformers takes only the
    special ones out of a GGUF, and would spell these letter by letter."""
    from gguf import GGUFReader
    from gguf.constants import TokenType
    from tokenizers import AddedToken

    fields = GGUFReader(gguf).fields
    kinds = fields["tokenizer.ggml.token_type"].contents()
    texts = fields["tokenizer.ggml.tokens"].contents()
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False, special=False)
            for text, kind in zip(texts, kinds, strict=True)
            if kind == TokenType.USER_DEFINED
        ]
    )


def computes_bf16() -> bool:
    """Does the GPU compute in bfloat16 itself? Older ones only emulate it, many times slower than float16."""
    import torch

    asked: Callable[..., bool] = torch.cuda.is_bf16_supported
    # PyTorch before 2.4 cannot be asked otherwise.
    own = "including_emulation" in inspect.signature(asked).parameters
    return asked(including_emulation=False) if own else asked()


def precision(recipe: Recipe) -> str:
    """``nf4``, ``bf16``, ``fp16`` or ``fp32``: the recipe's, or what suits this machine."""
    import torch

    on_gpu = torch.cuda.is_available()
    if recipe.base.precision == "nf4" and not on_gpu:
        raise TrainingError("nf4_needs_gpu")
    kind = memory.precision(recipe, on_gpu=on_gpu)
    if kind == "bf16" and recipe.base.precision == "auto" and not computes_bf16():
        return "fp16"
    return kind


def is_sharded(recipe: Recipe) -> bool:
    """Do the processes of this run share the base out?"""
    return recipe.training.sharding == "full" and ranks.world() > 1


def load(folder: Path, recipe: Recipe) -> Any:
    """The frozen base through Transformers, from this folder alone, safetensors only. Sharded, each process
    reads its part of every weight and never holds the whole (FSDP2, `torch.distributed.fsdp.fully_shard`).

    Raises:
        TrainingError: ``not_trainable``.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    kind = precision(recipe)
    half = torch.bfloat16 if not torch.cuda.is_available() or computes_bf16() else torch.float16
    named = {"nf4": half, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    options: dict[str, Any] = {"dtype": named[kind]}
    if is_sharded(recipe):
        from transformers.distributed.configuration_utils import DistributedConfig

        options["distributed_config"] = DistributedConfig(fsdp_size=ranks.world())
    elif torch.cuda.is_available():
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    if kind == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=half,
        )
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **options
        )
    except (KeyError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise TrainingError("not_trainable", name=folder.name, reason=reason) from error


def tokenizer_of(folder: Path) -> Any:
    """The base's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
