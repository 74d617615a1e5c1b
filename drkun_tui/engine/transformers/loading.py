"""Loading a safetensors model: precision, device, memory, progress, and every fault in one line."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from drkun_tui.engine.base import Emit, EngineError, weights_read
from drkun_tui.engine.protocol import Load

GIB = 1024**3

CONTEXT_BYTES = GIB // 2
"""What CUDA takes for itself, outside of PyTorch's allocator."""

WORK_BYTES = GIB // 2
"""Kept free on a GPU for activations when layers are shared out."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, and its tokenizer."""

    model: Any
    tokenizer: Any
    device: torch.device
    cpu_layers: int
    """Modules that found no room on the GPU."""


def import_libraries(request: Load) -> None:
    """Import now what loading would import by and by, so that its time is not taken for the model's."""
    names = ["transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto", "peft"]
    for name in (*names, *(["bitsandbytes"] if request.weights == "nf4" else [])):
        with contextlib.suppress(ImportError):  # whoever needs it says so
            importlib.import_module(name)


def device_for(request: Load) -> torch.device:
    """The device that `request` wants, and its share of memory.

    Raises:
        EngineError: there is no such device, or another process holds its memory.
    """
    if request.device == "cpu":
        torch.set_num_threads(request.threads)
        return torch.device("cpu")
    if torch.version.cuda is None:
        raise EngineError("torch_without_cuda", version=torch.__version__)
    try:
        torch.cuda.init()
        free, total = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError) as error:
        raise EngineError("no_cuda", reason=_reason(error), version=torch.__version__) from error
    # cuDNN makes a plan for every length of the context, a tenth of a second each.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if request.memory_limit:
        share = max(request.memory_limit - CONTEXT_BYTES, GIB) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    weights = _need(Path(request.path), request)
    room = min(free, request.memory_limit or free)
    if weights > room and request.memory_limit and free < min(request.memory_limit, weights):
        raise EngineError("gpu_taken", free=_size(free), need=_size(weights))
    return torch.device("cuda", torch.cuda.current_device())


def load(request: Load, device: torch.device, emit: Emit) -> Loaded:
    """Load model and tokenizer; the progress counts the checkpoint's weights.

    Raises:
        EngineError: it is damaged, of an unknown architecture, or does not fit.
    """
    folder = Path(request.path)
    options: dict[str, Any] = {}
    if request.weights == "nf4":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise EngineError("bitsandbytes_missing")
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=_half(device),
        )
    offload = device.type == "cuda" and _offload(request, device)
    options["device_map"] = offload or {"": device}
    logging.disable_progress_bar()
    files = [path.stat().st_size for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
    emit(weights_read(0.0, files))
    previous = logging.set_tqdm_hook(_progress(folder, files, emit))
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if request.weights == "full" else _half(device),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **options,
        ).eval()
        emit(weights_read(1.0, files))
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        # Without its files, some classes make an empty one.
        if not tokenizer.is_fast or tokenizer.vocab_size <= len(tokenizer.added_tokens_decoder):
            raise EngineError("load_failed", file=folder.name, reason="no tokenizer.json")
    except torch.OutOfMemoryError as error:
        free, _ = torch.cuda.mem_get_info()
        raise EngineError("gpu_full", file=folder.name, free=_size(free)) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise EngineError("load_failed", file=folder.name, reason=_reason(error)) from error
    finally:
        logging.set_tqdm_hook(previous)
    model.requires_grad_(False)
    placed = getattr(model, "hf_device_map", {})
    return Loaded(model, tokenizer, device, sum(place in ("cpu", "disk") for place in placed.values()))


def _half(device: torch.device) -> torch.dtype:
    """bf16, or fp16 on a GPU that computes no bf16."""
    slow = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if slow else torch.bfloat16


def _offload(request: Load, device: torch.device) -> dict[str, Any] | str | None:
    """``"auto"`` placing where the weights exceed the room on the GPU; None where all of them fit."""
    free, _ = torch.cuda.mem_get_info(device)
    room = min(free, request.memory_limit - CONTEXT_BYTES if request.memory_limit else free) - WORK_BYTES
    return "auto" if _need(Path(request.path), request) > room else None


def _need(folder: Path, request: Load) -> int:
    """Bytes that the weights will take, roughly: nf4 leaves embeddings and norms in 16 bits."""
    total = 0.0
    for name, elements in _elements(folder).items():
        quantised = request.weights == "nf4" and ".layers." in name and "norm" not in name
        total += elements * (0.52 if quantised else 4 if request.weights == "full" else 2)
    return int(total)


def _elements(folder: Path) -> dict[str, int]:
    """How many numbers each tensor of a checkpoint holds; damaged files are left to the loader."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                found[name] = math.prod(file.get_slice(name).get_shape())
    return found


def _progress(folder: Path, files: Sequence[int], emit: Emit) -> Callable[..., Any]:
    """Takes the place of Transformers' progress bars."""
    sizes = _elements(folder)

    def make(_factory: object, args: tuple[Any, ...], options: dict[str, Any]) -> Iterator[Any]:
        items: Iterable[Any] = args[0] if args else options.get("iterable", ())
        return counted(items)

    def counted(items: Iterable[Any]) -> Iterator[Any]:
        items = list(items)
        whole = sum(map(size, items)) or 1
        done, told = 0, 0.0
        for item in items:
            yield item
            done += size(item)
            if done / whole - told >= 0.01:
                told = done / whole
                emit(weights_read(min(told, 1.0), files))

    def size(item: Any) -> int:
        name = item[0] if isinstance(item, tuple) else item
        return sizes.get(name, 0) if isinstance(name, str) else 0

    return make


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
