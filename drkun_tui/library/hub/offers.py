"""What of a repository can be fetched: each quantisation of a GGUF repository, the safetensors as a whole;
with their size, whether they fit, and which it would be if nobody said."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drkun_tui.hardware import Hardware
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.choose import Variant, best, cards, safetensors, variants
from drkun_tui.library.hub.fitting import Verdict, fits_on, judge_safetensors
from drkun_tui.library.hub.protocol import Listing, RepoFile
from drkun_tui.library.hub.resolve import resolve


@dataclass(frozen=True, slots=True)
class Offer:
    """One of the things that can be fetched of a repository.

    Attributes:
        quantization: of a GGUF, as `Variant` has it; "" of safetensors.
        name: where a GGUF is in the repository, as `Variant` has it; "" of safetensors.
        files: those with weights, and of safetensors what belongs to them.
        size: bytes of these files.
        quant: with `include`, what a `Request` for it holds: a quantisation, exactly some files, or neither
            for whatever is best.
        default: is it what a download without choice takes?
        alone: has no other of the repository its quantisation?
    """

    quantization: str
    name: str
    files: tuple[RepoFile, ...]
    size: int
    verdict: Verdict
    quant: str = ""
    include: tuple[str, ...] = ()
    default: bool = False
    alone: bool = True

    def as_dict(self) -> dict[str, Any]:
        """As it stands in ``drkun pull --list --json``."""
        return {
            "format": "gguf" if self.quantization else "safetensors",
            "quantization": self.quantization or None,
            "name": self.name or None,
            "files": [file.path for file in self.files],
            "size_bytes": self.size,
            "fits": self.verdict.fits,
            "profile": self.verdict.profile,
            "default": self.default,
        }


def offers(listing: Listing, machine: Hardware, proposed: str = "") -> list[Offer]:
    """What of a repository can be fetched, the smallest GGUF first, safetensors last.

    Args:
        proposed: a quantisation that is the default if there is such; "" for the best that fits.

    Raises:
        HubError: there is nothing to fetch, or as `resolve`.
    """
    fits = fits_on(machine)
    plan = resolve(listing, fits)
    found = variants(listing.files, fits)
    if not found:
        return [_whole(plan.files, machine, default=True)]
    same = [variant for variant in found if variant.quantization == proposed]
    default = same[0] if same else best(found)
    offered = [_offer(variant, found, listing, default=variant is default) for variant in found]
    try:
        beside = safetensors(listing.files)
    except HubError:  # it has the model in one form only
        return offered
    return [*offered, _whole(beside, machine, default=False)]


def _offer(variant: Variant, found: Sequence[Variant], listing: Listing, *, default: bool) -> Offer:
    """A quantisation is named as such where only one model has it."""
    alone = [other.quantization for other in found].count(variant.quantization) == 1
    return Offer(
        variant.quantization,
        variant.name,
        variant.files,
        variant.size,
        Verdict(variant.fits),
        quant=variant.quantization if alone else "",
        include=() if alone else _exactly([*variant.files, *cards(listing.files)]),
        default=default,
        alone=alone,
    )


def _whole(files: Sequence[RepoFile], machine: Hardware, *, default: bool) -> Offer:
    weights = sum(file.size for file in files if file.path.endswith(".safetensors"))
    return Offer(
        "",
        "",
        tuple(files),
        sum(file.size for file in files),
        judge_safetensors(weights, machine),
        include=() if default else _exactly(files),
        default=default,
    )


def _exactly(files: Iterable[RepoFile]) -> tuple[str, ...]:
    return tuple(glob.escape(file.path) for file in files)
