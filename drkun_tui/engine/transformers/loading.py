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
from drkun_tui.engine.transformers.memory import ran_out, smaller
from drkun_tui.engine.transformers.placement import blocks, bytes_of, context_bytes, is_layer, place

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
    """Layers that found no room on the GPU."""


def import_libraries(request: Load) -> None:
    """Import now what loading would import by and by, so that its time is not taken for the model's."""
    names = ["transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto", "peft"]
    for name in (*names, *(["bitsandbytes"] if request.weights == "nf4" else [])):
        with contextlib.suppress(ImportError):  # whoever needs it says so
            importlib.import_module(name)


def device_for(request: Load) -> torch.device:
    """The device that `request` wants, and its share of memory.

    Raises:
        EngineError: there is no such device, or PyTorch has no code for it.
    """
    if request.device == "cpu":
        torch.set_num_threads(request.threads)
        return torch.device("cpu")
    if torch.version.cuda is None:
        raise EngineError("torch_without_cuda", version=torch.__version__)
    try:
        torch.cuda.init()
        _, total = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError) as error:
        raise EngineError("no_cuda", reason=_reason(error), version=torch.__version__) from error
    capability = torch.cuda.get_device_capability()
    if not runs_on(capability, torch.cuda.get_arch_list()):
        raise EngineError(
            "gpu_unsupported",
            gpu=torch.cuda.get_device_name(),
            capability=".".join(map(str, capability)),
            version=torch.__version__,
        )
    # cuDNN makes a plan for every length of the context, a tenth of a second each.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if request.memory_limit:
        share = max(request.memory_limit - CONTEXT_BYTES, GIB) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    return torch.device("cuda", torch.cuda.current_device())


def runs_on(capability: tuple[int, int], built: list[str]) -> bool:
    """Has a build of PyTorch code for a card?

    Args:
        capability: the card's.
        built: as ``torch.cuda.get_arch_list`` tells it. Machine code (``sm_86``) runs on later minors of its
            major, intermediate code (``compute_90``) on everything later; with an ``a`` on that very card
            alone, with an ``f`` on its major alone.
    """
    for name in built:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")
        if not digits.isdecimal():
            continue
        least = divmod(int(digits), 10)
        exact, portable = number.endswith("a"), kind == "compute" and digits == number
        same = least[0] == capability[0]
        if capability == least or (capability > least and not exact and (same or portable)):
            return True
    return False


def load(request: Load, device: torch.device, emit: Emit) -> Loaded:
    """Load model and tokenizer; the progress counts the checkpoint's weights.

    Raises:
        EngineError: it is damaged, of an unknown architecture, does not fit, or another process holds the
            memory.
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
            # Layers that find no room on the GPU stay in sixteen bits.
            llm_int8_enable_fp32_cpu_offload=True,
        )
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
            device_map=_device_map(request, device),
            **options,
        ).eval()
        emit(weights_read(1.0, files))
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        # Without its files, some classes make an empty one.
        if not tokenizer.is_fast or tokenizer.vocab_size <= len(tokenizer.added_tokens_decoder):
            raise EngineError("load_failed", file=folder.name, reason="no tokenizer.json")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        if ran_out(error):
            # The context takes its memory later.
            kind, _ = smaller("gpu_full", 0, request.weights)
            raise EngineError(kind, file=folder.name) from error
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


def _room(request: Load, device: torch.device) -> float:
    """Bytes that the device has for weights."""
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    return min(free, request.memory_limit - CONTEXT_BYTES if request.memory_limit else free) - WORK_BYTES


def _device_map(request: Load, device: torch.device) -> dict[str, torch.device | str]:
    """All of the model on the device, which the plan has found room on. Where that has gone since, as many
    of the layers as still fit, beside the context and one layer of the others, which come by turns.

    Raises:
        EngineError: ``gpu_taken``, too little is left even for that, or an adapter wants the layers there.
    """
    folder = Path(request.path)
    need, room = _need(folder, request), _room(request, device)
    if need <= room:
        return {"": device}
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    unquantised = blocks(model, "full" if request.weights == "full" else "half")
    visitor = max((size for name, size in unquantised.items() if is_layer(name)), default=0)
    beside = visitor + context_bytes(config.get_text_config(), request)
    placed = place(blocks(model, request.weights), room - beside, device)
    if request.adapter or not any(where == device for name, where in placed.items() if is_layer(name)):
        raise EngineError("gpu_taken", free=_size(max(0, room)), need=_size(need))
    return placed


def _need(folder: Path, request: Load) -> int:
    """Bytes that the weights will take, roughly: nf4 leaves embeddings and norms in 16 bits."""
    total = 0.0
    for name, elements in _elements(folder).items():
        quantised = ".layers." in name and "norm" not in name
        total += elements * bytes_of(request.weights, quantised=quantised)
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


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
