"""Models that are GGUF files: one file, or the parts of a split one."""

from __future__ import annotations

from pathlib import Path

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import gguf
from drkun_tui.library.files import SPLIT, cached, size_of
from drkun_tui.library.fit import joined, shape_of
from drkun_tui.library.gguf_header import GgufHeader
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.printable import printable

DEMONSTRATION = "Dr. Kun Starter 26M"
"""``general.name`` of the bundled model."""


def describe(files: list[Path], name: str) -> Model:
    """A model of one file, or of the parts that are there."""
    headers: list[GgufHeader] = []
    errors: list[DrkunError] = []
    for file in files:
        try:
            headers.append(header_of(file))
            if not headers[-1].complete:
                gguf.read(file)  # says how much is missing
        except DrkunError as refused:
            errors.append(refused)
    problems = [refused.message for refused in errors]
    if (split := SPLIT.fullmatch(files[0].name)) and len(files) != int(split["total"]):
        problems.append(t("library.parts_missing", have=len(files), total=int(split["total"])))
    size = sum(size_of(file) for file in files)
    error = errors[0] if errors else None
    if not headers:
        return Model(
            name=name, kind=Kind.GGUF, path=files[0], size_bytes=size, complete=False,
            problems=tuple(problems), error=error,
        )  # fmt: skip
    first = headers[0]
    shape = joined([shape_of(header) for header in headers])
    complete = not problems
    if complete and not shape.parameters:
        complete = False
        problems.append(t("library.no_weights"))
    if first.general_type not in ("model", "adapter") or first.architecture == "clip":
        problems.append(t("library.not_language", type=printable(first.general_type)))
    adapter = first.general_type == "adapter"
    base = first.text("general.base_model.0.repo_url") or first.text("general.base_model.0.name")
    return Model(
        name=name,
        kind=Kind.GGUF_LORA if adapter else Kind.GGUF,
        path=files[0],
        size_bytes=size,
        architecture=printable(first.architecture) or None,
        parameters=shape.parameters or None,
        quantization=first.quantization or None,
        context_length=first.context_length,
        base_model=(printable(base) or None) if adapter else None,
        complete=complete,
        problems=tuple(problems),
        demonstration=first.name == DEMONSTRATION,
        shape=shape,
        error=error,
    )


def header_of(file: Path) -> GgufHeader:
    """The header of one file, whose tensors may be cut off.

    Raises:
        DrkunError: as `gguf.read` does.
    """
    return cached(file, lambda file: gguf.read(file, partial=True))
