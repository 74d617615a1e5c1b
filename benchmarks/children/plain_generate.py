"""Qwen3's tutorial way: Transformers and bitsandbytes with their own settings, and plain ``generate``.

Run as ``python -m benchmarks.children.plain_generate FOLDER nf4|half TOKENS [ADAPTER]`` on a machine with a
GPU. Prints one JSON object.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

PROMPT = 512


def main() -> None:
    """Load, ask twice, print."""
    folder, weights, tokens, *adapter = sys.argv[1:]
    transformers.utils.logging.disable_progress_bar()
    if weights == "nf4":
        importlib.import_module("bitsandbytes")
    torch.cuda.init()
    settings: dict[str, Any] = {"dtype": torch.bfloat16}
    if weights == "nf4":
        settings = {
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.float16,
            )
        }
    began = time.perf_counter()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, device_map={"": 0}, **settings)
    torch.cuda.synchronize()
    load_s = time.perf_counter() - began
    memory = torch.cuda.memory_allocated()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter[0])
    model.eval()
    ready_s = time.time() - psutil.Process().create_time()
    torch.manual_seed(0)
    prompt = torch.randint(100, 8000, (1, PROMPT), device="cuda")

    def timed(count: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=0,
        )
        torch.cuda.synchronize()
        return time.perf_counter() - start

    timed(4)
    prefill = min(timed(1) for _ in range(3))
    told = {
        "load_s": load_s,
        "weight_bytes": memory,
        "prefill_s": prefill,
        "decode_tok_s": (int(tokens) - 1) / (timed(int(tokens)) - prefill),
        "ready_s": ready_s,
        "reserved_bytes": torch.cuda.memory_reserved(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
