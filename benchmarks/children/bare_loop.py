"""The loop that the program is compared with: llama-cpp-python's own, tokens to text, nothing else.

Prints one JSON object. Run as ``python -m benchmarks.children.bare_loop``.
"""

from __future__ import annotations

import argparse
import codecs
import json
import time
from typing import Any

import llama_cpp
from llama_cpp import Llama
from llama_cpp import llama_cpp as binding


def main() -> None:
    """Answer one question and say how fast that was."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("question")
    parser.add_argument("--safe-mode", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--sampling", type=json.loads, required=True)
    arguments = parser.parse_args()
    if arguments.safe_mode:
        _safe_mode()
    model = Llama(
        arguments.model,
        n_ctx=arguments.context,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        seed=arguments.sampling["seed"],
        verbose=False,
    )
    print(json.dumps(_answer(model, arguments.question, arguments.sampling)))


def _answer(model: Llama, question: str, sampling: dict[str, Any]) -> dict[str, float]:
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    tokens = model.tokenize(prompt.encode(), add_bos=False, special=True)
    decoder = codecs.getincrementaldecoder("utf8")("replace")
    text, count, first, last = [], 0, 0.0, 0.0
    end = model.token_eos()
    generation = model.generate(
        tokens,
        temp=sampling["temperature"],
        top_p=sampling["top_p"],
        top_k=sampling["top_k"],
        min_p=0.0,
        repeat_penalty=sampling["repeat_penalty"],
    )
    for token in generation:
        if token == end:
            break
        count += 1
        text.append(decoder.decode(model.detokenize([token])))
        last = time.perf_counter()
        first = first or last
        if count == sampling["max_tokens"]:
            break
    return {"tokens": count, "engine": (count - 1) / (last - first) if count > 1 else 0.0}


def _safe_mode() -> None:
    """As the engine's safe mode: without the weight layouts that crash on some CPUs."""
    defaults = binding.llama_model_default_params

    def without_extra_buffers() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    for module in (binding, llama_cpp):
        module.llama_model_default_params = without_extra_buffers  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
