"""Which of llama.cpp's pre-tokenizers splits as a tokenizer does that its converter does not know.

llama.cpp tells tokenizers apart by the hash of one encoded text, so each new vocabulary is unknown to it,
even where its texts are split by the same rules as a known one's. Here every known one is tried: llama.cpp
encodes some texts with this vocabulary, and the tokens must be those of the tokenizer itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp as binding

from drkun_tui.publishing.faults import PublishingError

FIRST = ("qwen2", "llama-bpe", "gpt-2", "deepseek-llm", "default")
"""Tried before the others, because most tokenizers are like one of them."""

TEXTS = (
    "最近总是头晕，应该怎么办？血压 150/95 mmHg，吃了2片阿司匹林（100mg）。\n\n建议：①休息；②复查。",
    "I've been told he's there, 'RE you sure? We'Ve 3 33 333 3333 33333 tablets of 0.5mg/kg... it's OK!!\n",
    "  def f(x):\n\t\treturn x**2  # ñandú, naïve, Ångström, Straße\r\n   \n\n\n",
    "हिन्दी 日本語のテスト 한국어 العربية עברית ไทย нещо на Български \U0001f999\U0001f999 ✅ \u200d\ufe0f",
    "http://example.org/a?b=c&d=1 <b>x</b> {\"k\": [1, 2]} ------======= '''''' \"\"\"\" ``` $$$ 100% №5 ½",
    "１２３ＡＢＣ　全角 ㎎ ℃ α-β γ≥δ 37.5℃～39℃ 高血压（2级）2023年10月1日 第三次 1,234,567.89",
)
"""What tells the rules apart: digits in groups or one by one, contractions, spaces, line ends, scripts."""


def find(tokenizer: Any, names: list[str], path: Path, write_vocabulary: Callable[[Path], None]) -> str:
    """The name of the first pre-tokenizer that splits every text as the tokenizer does.

    Args:
        tokenizer: transformers'.
        names: of those that the converter knows.
        path: a file that may be written for it; it is removed again.
        write_vocabulary: writes a GGUF with the vocabulary alone.

    Raises:
        PublishingError: ``unknown_tokenizer``, none does.
    """
    wanted = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    try:
        write_vocabulary(path)
        for name in dict.fromkeys((*FIRST, *names)):
            if _encoded(path, name) == wanted:
                return name
    finally:
        path.unlink(missing_ok=True)
    raise PublishingError("unknown_tokenizer", tried=len(names))


def _encoded(path: Path, name: str) -> list[list[int]] | None:
    """The texts in tokens of this vocabulary, split by this pre-tokenizer; None where llama.cpp has none."""
    params = binding.llama_model_default_params()
    params.vocab_only = True
    override: Any = (binding.llama_model_kv_override * 2)()
    override[0].key = b"tokenizer.ggml.pre"
    override[0].tag = binding.LLAMA_KV_OVERRIDE_TYPE_STR
    override[0].value.val_str = name.encode()
    params.kv_overrides = override
    model = binding.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        return None
    try:
        vocabulary = binding.llama_model_get_vocab(model)
        return [tokens(vocabulary, text) for text in TEXTS]
    finally:
        binding.llama_model_free(model)


def tokens(vocabulary: Any, text: str, *, special: bool = False) -> list[int]:
    """A text in tokens, nothing added.

    Args:
        special: do control tokens stand for themselves?
    """
    raw = text.encode()
    room = len(raw) + 2
    array = (binding.llama_token * room)()
    count = binding.llama_tokenize(vocabulary, raw, len(raw), array, ctypes.c_int32(room), False, special)
    return list(array[:count])
