"""A stage: does a file that was written say what its source says? ``python -m drkun_tui.publishing.prove``

The file is loaded and continues a few fixed questions greedily. Then the source, base and adapter as PEFT
puts them together, reads the very same tokens, and at each of them both have said what they expect next.
Where both have the same first choice at every token, the source would have written the same text by itself.
"""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp as binding
import numpy
import torch

from drkun_tui.engine.chat_template import CHATML, NAMED, ChatTemplate
from drkun_tui.engine.pace import Pace
from drkun_tui.engine.protocol import ChatMessage
from drkun_tui.publishing import loading, pre_tokenizer, steps
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.tasks import Prove

QUESTIONS = ("最近总是头晕，血压150/95，应该怎么办？", "I've had a cough for 2 weeks. What could it be?")
NEW_TOKENS = 24
"""That are written for each question."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model expects after each token of a text but the last: (tokens - 1, vocabulary).

    Attributes:
        tokens: prompt, and what the model wrote.
        prompt: how many of them are the prompt.
    """

    tokens: list[int]
    prompt: int
    logits: numpy.ndarray[Any, numpy.dtype[numpy.float32]]


def prove(task: Prove, tell: steps.Tell) -> dict[str, Any]:
    """Compare; `drkun_tui.publishing.targets` says what is near enough.

    Raises:
        PublishingError: ``not_loadable``, or ``other_tokens``: it splits a text otherwise than its source.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(task.base, local_files_only=True, trust_remote_code=False)
    prompts = [_prompt(task, tokenizer, question) for question in QUESTIONS]
    is_gguf = Path(task.model).is_file()
    said = _by_gguf(task, tokenizer, prompts) if is_gguf else _by_folder(task, tokenizer, prompts)
    tell(1, 2)
    source = _load(Path(task.base), full=task.full)
    if task.adapter:
        from peft import PeftModel

        source = PeftModel.from_pretrained(source, task.adapter)
    agreed = diverged = positions = margin = 0.0
    same = NEW_TOKENS
    for text in said:
        expected = _expected(source, text.tokens)
        first, other = expected.argmax(1), text.logits.argmax(1)
        agreed += float((first == other).sum())
        diverged += float(_divergence(expected, text.logits).sum())
        positions += len(first)
        margin = max(margin, margin_of(expected, text))
        written = (first == other)[text.prompt - 1 :]
        same = min(same, int(written.argmin()) if not written.all() else len(written))
    if not math.isfinite(diverged):
        raise PublishingError("not_numbers")
    return {
        "positions": int(positions),
        "agreement": agreed / positions,
        "divergence": diverged / positions,
        "same": same,
        "margin": margin,
    }


def _prompt(task: Prove, tokenizer: Any, question: str) -> str:
    """As the program will ask it."""
    own = tokenizer.chat_template
    template = ChatTemplate(
        NAMED.get(task.template) or (own if isinstance(own, str) else "") or CHATML,
        bos=tokenizer.bos_token or "",
        eos=tokenizer.eos_token or "",
    )
    system = [ChatMessage("system", task.system)] if task.system.strip() else []
    return template.render([*system, ChatMessage("user", question)], think=task.think)


def margin_of(expected: numpy.ndarray[Any, numpy.dtype[numpy.float32]], text: Said) -> float:
    """By how much, in logits, a source prefers what it would have written itself to a token that was written:
    the most of all that were; 0 where it would have written the same.

    Args:
        expected: the source's logits after each token of the text but the last, (tokens - 1, vocabulary).
    """
    ahead = expected[text.prompt - 1 :]
    written = text.tokens[text.prompt :]
    return float((ahead.max(1) - ahead[numpy.arange(len(written)), written]).max())


def _divergence(expected: Any, other: Any) -> Any:
    """Kullback-Leibler divergence of `other` from `expected` at each position, in nats.

    sum of p * (log p - log q), p and q being the softmax of the logits (positions, vocabulary).
    """
    log_p, log_q = (torch.from_numpy(logits).double().log_softmax(1) for logits in (expected, other))
    return (log_p.exp() * (log_p - log_q)).sum(1)


# The source, through Transformers


def _load(folder: Path, *, full: bool) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32 if full else "auto",
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.eval()


def _expected(model: Any, tokens: list[int]) -> Any:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokens[:-1]]), use_cache=False).logits[0]
    return logits.float().numpy()


def _by_folder(task: Prove, tokenizer: Any, prompts: list[str]) -> list[Said]:
    """What merged safetensors say."""
    model = _load(Path(task.model), full=task.full)
    said = []
    for prompt in prompts:
        tokens = tokenizer.encode(prompt, add_special_tokens=False)
        with torch.inference_mode():
            written = model.generate(
                torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
                max_new_tokens=NEW_TOKENS, do_sample=False,
            )[0].tolist()  # fmt: skip
        said.append(Said(written, len(tokens), _expected(model, written)))
    del model
    gc.collect()
    return said


# What was made, through llama.cpp


def _by_gguf(task: Prove, tokenizer: Any, prompts: list[str]) -> list[Said]:
    """What a GGUF says, with its LoRA if it has one."""
    params = binding.llama_context_default_params()
    params.n_ctx = params.n_batch = 1024
    params.n_threads = params.n_threads_batch = task.threads
    with loading.context(task.model, params, task.lora) as (model, context):
        vocabulary = binding.llama_model_get_vocab(model)
        pace = Pace(task.threads)
        said = []
        for prompt in prompts:
            tokens = pre_tokenizer.tokens(vocabulary, prompt, special=True)
            if tokens != tokenizer.encode(prompt, add_special_tokens=False):
                raise PublishingError("other_tokens")
            said.append(_written(context, vocabulary, tokens, pace))
        return said


def _written(context: Any, vocabulary: Any, prompt: list[int], pace: Pace) -> Said:
    """The prompt continued greedily, with what was expected at each token."""
    binding.llama_memory_clear(binding.llama_get_memory(context), True)
    size = int(binding.llama_vocab_n_tokens(vocabulary))
    tokens, rows = list(prompt), [_evaluate(context, prompt, 0, size)]
    for _ in range(NEW_TOKENS):
        token = int(rows[-1][-1].argmax())
        tokens.append(token)
        if binding.llama_vocab_is_eog(vocabulary, token) or len(tokens) == len(prompt) + NEW_TOKENS:
            break
        began = time.perf_counter()
        rows.append(_evaluate(context, [token], len(tokens) - 1, size))
        if pace.step(time.perf_counter() - began):
            binding.llama_set_n_threads(context, pace.threads, pace.threads)
    return Said(tokens, len(prompt), numpy.concatenate(rows))


def _evaluate(context: Any, tokens: list[int], at: int, size: int) -> Any:
    """Logits behind each of these tokens, (tokens, vocabulary)."""
    loading.evaluate(context, tokens, at)
    pointer = binding.llama_get_logits(context)
    return numpy.ctypeslib.as_array(pointer, (len(tokens), size)).copy()


if __name__ == "__main__":
    steps.serve(Prove, prove)
