"""Which files of a repository make a model: of a GGUF repository one quantisation, of a safetensors
repository the weights once, with what belongs to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from drkun_tui.library.files import SPLIT
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.protocol import RepoFile
from drkun_tui.library.printable import printable

Fits = Callable[[int], bool]
"""Would a model with so many bytes of weights fit this machine?"""

_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d|TQ\d)(?:_[A-Za-z0-9]+)*|BF16|F16|FP16|F32|FP32|MXFP4(?:_[A-Za-z0-9]+)*)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"BF16|FP?16|FP?32", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
"""GGUF files that accompany a model: picture encoders, statistics for quantising."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_BESIDE = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.md", "license*", "licence*", "notice*")
"""Configuration, tokenizer, templates, card, licence."""

_TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a GGUF repository.

    Attributes:
        quantization: as its name tells, in capitals, e.g. ``"Q4_K_M"``; its file name where it tells none.
        name: where it is in the repository, without the number of a part and the suffix.
        files: one, or the parts of a split one.
        fits: does it fit this machine?
    """

    quantization: str
    name: str
    files: tuple[RepoFile, ...]
    size: int
    fits: bool


def variants(files: Iterable[RepoFile], fits: Fits) -> list[Variant]:
    """The models of a GGUF repository, the smallest first; empty when it has none."""
    parts: dict[tuple[str, int], list[RepoFile]] = {}
    for file in files:
        path = PurePosixPath(file.path)
        if path.suffix.lower() == ".gguf" and not _NO_MODEL.search(path.name):
            split = SPLIT.fullmatch(path.name)
            stem, total = (split["stem"], int(split["total"])) if split else (path.stem, 1)
            parts.setdefault((str(path.with_name(stem)), total), []).append(file)
    found = []
    for (name, _), each in parts.items():
        size = sum(file.size for file in each)
        found.append(Variant(_quantization(name), name, tuple(each), size, fits(size)))
    return sorted(found, key=lambda variant: (variant.size, variant.quantization, variant.name))


def best(choices: Sequence[Variant]) -> Variant:
    """The largest that fits, whole 16 and 32 bits last, which are slower and hardly better than eight;
    the smallest, when none fits."""
    fitting = [variant for variant in choices if variant.fits]
    quantised = [variant for variant in fitting if not _WHOLE.fullmatch(variant.quantization)]
    return (quantised or fitting[:1] or [choices[0]])[-1]


def choose(
    files: Sequence[RepoFile], fits: Fits, *, quant: str = "", include: Sequence[str] = ()
) -> list[RepoFile]:
    """The files to fetch.

    Args:
        files: all of the repository.
        fits: decides between quantisations when none is named.
        quant: the quantisation wanted.
        include: patterns such as ``*.gguf``; with any, exactly the files that match, pickles too.

    Raises:
        HubError: ``nothing_matches``, ``quant_missing``, ``quant_several``, ``pickles_only`` or
            ``no_weights``.
    """
    if include:
        chosen = [file for file in files if _matches(file.path, include)]
        if not chosen:
            raise HubError("nothing_matches", patterns=printable(", ".join(include)))
        return chosen
    choices = variants(files, fits)
    if quant:
        wanted = [variant for variant in choices if variant.quantization.lower() == quant.lower()]
        if not wanted:
            known = ", ".join(dict.fromkeys(variant.quantization for variant in choices)) or "-"
            raise HubError("quant_missing", quant=printable(quant, 40), known=printable(known, 300))
        if len(wanted) > 1:
            names = ", ".join(variant.name for variant in wanted)
            raise HubError("quant_several", quant=printable(quant, 40), known=printable(names, 300))
        return [*wanted[0].files, *cards(files)]
    if choices:
        return [*best(choices).files, *cards(files)]
    return safetensors(files)


def safetensors(files: Sequence[RepoFile]) -> list[RepoFile]:
    """The weights once, with configuration, tokenizer and card.

    Raises:
        HubError: ``pickles_only`` or ``no_weights``.
    """
    weights = [file for file in files if file.path.endswith(".safetensors")]
    top = [file for file in weights if "/" not in file.path]
    # The same weights once more, in another layout.
    single = [file for file in top if not file.path.startswith("consolidated")]
    weights = single or top or weights
    if not weights:
        pickles = [file.path for file in files if file.path.endswith(_PICKLES)]
        raise HubError("pickles_only", file=printable(pickles[0], 80)) if pickles else HubError("no_weights")
    folders = {str(PurePosixPath(file.path).parent) for file in weights} | {".", _TEMPLATES}
    beside = [
        file
        for file in files
        if str(PurePosixPath(file.path).parent) in folders
        and any(fnmatchcase(PurePosixPath(file.path).name.lower(), pattern) for pattern in _BESIDE)
    ]
    return [*weights, *beside]


def cards(files: Sequence[RepoFile]) -> list[RepoFile]:
    """Card and licence."""
    return [file for file in files if _matches(file.path.lower(), ("readme.md", *_BESIDE[-3:]), "/")]


def _matches(path: str, patterns: Iterable[str], without: str = "\0") -> bool:
    return without not in path and any(fnmatchcase(path, pattern) for pattern in patterns)


def _quantization(stem: str) -> str:
    """By the file's name, else by its folder's; as a name may hold several, the last one counts."""
    for part in reversed(stem.split("/")):
        if told := _QUANT.findall(part):
            return str(told[-1]).upper()
    return stem.rpartition("/")[2]
