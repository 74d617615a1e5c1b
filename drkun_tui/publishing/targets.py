"""What a model can be exported as: safetensors, a GGUF of some type, a GGUF LoRA; and how near to its source
each must be."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from drkun_tui.library.gguf_types import FILE_TYPES, GUESSED
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.protocol import Proved

MERGED, LORA = "safetensors", "lora"
"""Targets beside the GGUF types: a merged model as its makers would publish it, and a GGUF LoRA."""

COMMON = ("Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16", MERGED, LORA)
"""The ones that are offered, the most asked for first. Any other type of llama.cpp is taken by its name."""

WHOLE = ("F16", "BF16", "F32")
"""GGUF types that llama.cpp's converter writes itself."""

NEEDS_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S", "IQ3_XXS"})
"""Types that llama.cpp refuses, or makes nonsense of, without an importance matrix."""

_NUMBERS = {name: number for number, name in FILE_TYPES.items() if number < GUESSED}
OTHERS = tuple(name for name in _NUMBERS if name not in COMMON)
"""GGUF types that are seldom asked for."""

_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


ROUNDING = 0.25
"""Logits. Where the source prefers its own first choice by no more, 16 bits may have made the other one.

Most logits that win lie between 16 and 32, where the steps of bfloat16 are 0.125 wide: one step may be lost
by the source, which computes in bfloat16 where there is no memory for more, and one by the file. Over a tie
of two tokens 0.25 is 56 to 44 %. A file that loses the whole divergence that is allowed at 16 bits differs
from its source by about 0.09 in the lead of one token over another, so this is near three deviations. On the
bundled model no likely token's logit differed by more than 0.05, and by 0.17 where the source was computed
in bfloat16."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a file's predictions may be from its source's, over the positions of `prove`.

    Attributes:
        agreement: least share of positions at which both would say the same token next.
        divergence: most mean Kullback-Leibler divergence of its predictions from the source's, in nats.
        margin: by how many logits the source may prefer its own first choice to a token that the file wrote.
            What is whole writes the same, but for ties; what is quantised promises no such thing.
    """

    agreement: float
    divergence: float
    margin: float = math.inf


_TOLERANCES = (
    (r"F32|F16|BF16|safetensors|lora", Tolerance(0.97, 0.002, ROUNDING)),
    (r"Q8_0", Tolerance(0.96, 0.005)),
    (r"Q6_K", Tolerance(0.93, 0.015)),
    (r"Q5_.*", Tolerance(0.90, 0.03)),
    (r"I?Q4_.*|MXFP4_MOE|NVFP4", Tolerance(0.80, 0.12)),
    (r"I?Q3_.*", Tolerance(0.70, 0.30)),
    (r"I?Q2_.*", Tolerance(0.45, 1.50)),
    (r".*", Tolerance(0.25, 4.00)),
)
"""About five times what each type costs the bundled model, which is small and loses more than a large one. A
file with a wrong tokenizer, a permuted tensor or the adapter left out is beyond those of all usual types: the
bundled model without the adapter of a short fine-tune agrees at 0.82 of the positions, with a divergence of
0.19."""

_BITS = (
    (r"F32", 32.0), (r"F16|BF16|safetensors|lora", 16.0), (r"Q8_0", 8.5), (r"Q6_K", 6.6), (r"Q5_.*", 5.7),
    (r"I?Q4_.*|MXFP4_MOE|NVFP4", 5.0), (r"I?Q3_.*", 4.3), (r".*", 3.4),
)  # fmt: skip
"""Bits of a weight, embeddings with their higher precision counted in, rounded up."""


def parse(text: str) -> str:
    """The target that somebody means, whatever the case of its letters.

    Raises:
        PublishingError: ``unknown_target``.
    """
    given = text.strip()
    if given.lower() in (MERGED, LORA):
        return given.lower()
    name = _ALIASES.get(given.upper(), given.upper())
    if name not in _NUMBERS:
        raise PublishingError("unknown_target", target=given, known=", ".join(COMMON))
    return name


def is_gguf(target: str) -> bool:
    """Is it a GGUF model, and neither safetensors nor an adapter?"""
    return target not in (MERGED, LORA)


def is_quantised(target: str) -> bool:
    """Does it take fewer bits than its source?"""
    return is_gguf(target) and target not in WHOLE


def file_type(target: str) -> int:
    """llama.cpp's number of a GGUF type, ``enum llama_ftype``."""
    return _NUMBERS[target]


def tolerance(target: str) -> Tolerance:
    """How near to its source a file of this type must be."""
    return next(found for pattern, found in _TOLERANCES if re.fullmatch(pattern, target))


def check(target: str, found: Proved) -> None:
    """See that a file of this type is as near to its source as it must be.

    Raises:
        PublishingError: ``not_proved`` or ``other_choice``.
    """
    limit = tolerance(target)
    if found.agreement < limit.agreement or found.divergence > limit.divergence:
        raise PublishingError(
            "not_proved",
            target=target,
            agreement=f"{found.agreement:.1%}",
            least=f"{limit.agreement:.0%}",
            divergence=f"{found.divergence:.3g}",
            most=f"{limit.divergence:g}",
        )
    if found.margin > limit.margin:
        raise PublishingError(
            "other_choice",
            target=target,
            same=found.same,
            margin=f"{found.margin:.2f}",
            most=f"{limit.margin:g}",
        )


def bytes_of(parameters: int, target: str) -> int:
    """About how large a file of this type is."""
    return int(parameters * next(bits for pattern, bits in _BITS if re.fullmatch(pattern, target)) / 8)
