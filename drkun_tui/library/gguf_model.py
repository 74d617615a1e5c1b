"""Models that are GGUF files: one file, or the parts of a split one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from drkun_tui.errors import DrkunError
from drkun_tui.library import gguf, provenance
from drkun_tui.library.files import SPLIT, size_of
from drkun_tui.library.fit import Shape, joined, shape_of
from drkun_tui.library.header_cache import cached
from drkun_tui.library.model import Kind, Model, Problem, problem
from drkun_tui.library.printable import printable
from drkun_tui.library.provenance import Provenance
from drkun_tui.library.tensors import Tensors, merged

DEMONSTRATION = "Dr. Kun Starter 26M"
"""``general.name`` of the bundled model."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the list says of one file, out of its header. Texts are fit for a screen."""

    title: str
    architecture: str
    general_type: str
    quantization: str
    context_length: int | None
    base: str
    alpha: float | None
    demonstration: bool
    expected_size: int
    shape: Shape
    tensors: Tensors
    provenance: Provenance | None


class _Refusal(NamedTuple):
    """Why a header is refused, in no language yet: to find that out may have taken seconds."""

    kind: str
    values: dict[str, str | int]


def _facts(path: Path) -> _Facts | _Refusal:
    try:
        header = gguf.read(path, partial=True)
    except gguf.RefusedError as refused:
        if refused.kind in ("gguf_missing", "gguf_unreadable"):  # and the next time it may be readable
            raise
        return _Refusal(refused.kind.removeprefix("gguf_"), dict(refused.values))
    base = header.text("general.base_model.0.repo_url") or header.text("general.base_model.0.name")
    alpha = header.metadata.get("adapter.lora.alpha")
    trained = provenance.parse(header.text(provenance.GGUF_KEY))
    return _Facts(
        title=printable(header.name),
        architecture=printable(header.architecture),
        general_type=printable(header.general_type),
        quantization=header.quantization,
        context_length=header.context_length,
        base=printable(base),
        alpha=alpha if isinstance(alpha, float) and math.isfinite(alpha) else None,
        demonstration=header.name == DEMONSTRATION or bool(trained and trained.demonstration),
        expected_size=header.expected_size,
        shape=shape_of(header),
        tensors=header.tensors,
        provenance=trained,
    )


def describe(files: list[Path], name: str) -> Model:
    """A model of one file, or of the parts that are there."""
    parts: list[_Facts] = []
    errors: list[DrkunError] = []
    size = 0
    for file in files:
        size += (have := size_of(file))
        try:
            facts = cached(file, _facts, _Facts | _Refusal)
            if isinstance(facts, _Refusal):
                raise gguf.refusal(facts.kind, printable(file.name), **facts.values)
            parts.append(facts)
            if have < parts[-1].expected_size:
                raise gguf.truncated(file, have, parts[-1].expected_size)
        except DrkunError as refused:
            errors.append(refused)
    problems = [Problem(refused.message, refused.hint) for refused in errors]
    if (split := SPLIT.fullmatch(files[0].name)) and len(files) != int(split["total"]):
        counts = {"have": len(files), "total": int(split["total"])}
        problems.append(problem("parts_missing", "fetch_again", **counts))
    error = errors[0] if errors else None
    if not parts:
        return Model(
            name=name, kind=Kind.GGUF, path=files[0], files=tuple(files), size_bytes=size, complete=False,
            problems=tuple(problems), error=error,
        )  # fmt: skip
    first = parts[0]
    shape = joined([part.shape for part in parts])
    complete = not problems
    if complete and not shape.parameters:
        complete = False
        problems.append(problem("no_weights", "whole_model"))
    if first.general_type not in ("model", "adapter") or first.architecture == "clip":
        problems.append(problem("not_language", "main_model", type=first.general_type))
    adapter = first.general_type == "adapter"
    tensors = merged(part.tensors for part in parts)
    return Model(
        name=name,
        kind=Kind.GGUF_LORA if adapter else Kind.GGUF,
        path=files[0],
        files=tuple(files),
        size_bytes=size,
        title=first.title or None,
        architecture=first.architecture or None,
        parameters=shape.parameters or None,
        quantization=first.quantization or None,
        context_length=first.context_length,
        base_model=(first.base or None) if adapter else None,
        rank=_rank(tensors) if adapter else None,
        alpha=first.alpha if adapter else None,
        target_modules=_targets(tensors) if adapter else (),
        provenance=first.provenance,
        complete=complete,
        problems=tuple(problems),
        demonstration=first.demonstration,
        shape=shape,
        tensors=tensors,
        error=error,
    )


def _rank(tensors: Tensors) -> int | None:
    """The first dimension of an adapter's ``lora_b``, which llama.cpp stores as (rank, outputs)."""
    pairs = (shapes for name, shapes in tensors.shapes.items() if name.endswith(".lora_b"))
    return max((shape[0] for shapes in pairs for shape in shapes if len(shape) == 2), default=None)


def _targets(tensors: Tensors) -> tuple[str, ...]:
    names = (name.removesuffix(".weight.lora_a") for name in tensors.shapes if name.endswith(".lora_a"))
    return tuple(dict.fromkeys(printable(name.rpartition(".")[2]) for name in names))
