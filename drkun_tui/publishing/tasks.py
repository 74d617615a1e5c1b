"""What each stage of an export is asked to do; light to import, unlike the stages."""

from __future__ import annotations

from pathlib import PurePath

import msgspec

_TEXTS = (".txt", ".md")


def is_text(source: str) -> bool:
    """Is what an importance matrix is computed on a plain text, and no data set?"""
    return PurePath(source).suffix.lower() in _TEXTS


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """Merge `adapter` (or nothing, "") into `base`, into the empty folder `target`."""

    base: str
    adapter: str
    target: str


class Convert(msgspec.Struct, frozen=True, kw_only=True):
    """Write the GGUF `out` from `base`.

    Attributes:
        converters: the folder of llama.cpp's converters.
        adapter: a LoRA to add to the weights, or, with `as_lora`, to write by itself; "" for none.
        out_type: ``f16``, ``bf16`` or ``f32``.
        name: for ``general.name``.
        base_name: for ``general.base_model``; "" where it has none.
        trained: what goes under `provenance.GGUF_KEY`, or "".
        template: a chat template in the place of the base's, or "".
    """

    converters: str
    base: str
    adapter: str = ""
    as_lora: bool = False
    out: str
    out_type: str
    name: str
    base_name: str = ""
    trained: str = ""
    template: str = ""


class Calibrate(msgspec.Struct, frozen=True, kw_only=True):
    """Write `out`, the importance matrix of `model` on a text.

    Attributes:
        model: the GGUF in 16 or 32 bits.
        source: a text (see `is_text`), or a data set.
        converters: the folder of llama.cpp's converters, whose ``gguf`` writes the file.
        base: folder of the base, whose tokenizer renders examples.
        template: a named template, or "".
        system: the system text of examples that bring none.
        threads: for llama.cpp.
    """

    model: str
    source: str
    out: str
    converters: str
    base: str
    template: str = ""
    system: str = ""
    threads: int


class Quantise(msgspec.Struct, frozen=True, kw_only=True):
    """Write `source`, a GGUF in 16 or 32 bits, as `out`.

    Attributes:
        file_type: llama.cpp's number of the type.
        threads: that work at it.
        imatrix: the file of an importance matrix, or "".
        converters: the folder of llama.cpp's converters, whose ``gguf`` reads that file.
    """

    source: str
    out: str
    file_type: int
    threads: int
    imatrix: str = ""
    converters: str = ""


class Prove(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was made against its source.

    Attributes:
        base: folder of the source's base.
        adapter: folder of the source's LoRA, or "".
        model: the GGUF, or the folder of safetensors, that was made; for a GGUF LoRA its base as GGUF.
        lora: the GGUF LoRA that was made, or "".
        template: a named template, or "".
        system: the system text that the adapter was trained with.
        think: was it trained with reasoning?
        threads: for llama.cpp.
        full: is there memory for the source in 32 bits?
    """

    base: str
    adapter: str
    model: str
    lora: str = ""
    template: str = ""
    system: str = ""
    think: bool = True
    threads: int
    full: bool
