"""What is published of a model: which files, under which card; and what must not be in it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drkun_tui.library import gguf, inspection, provenance
from drkun_tui.library.files import is_file, read_bytes, read_json, size_of
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.provenance import FILE
from drkun_tui.publishing import licences, privacy
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.licences import Licences
from drkun_tui.publishing.sources import side_files

CARD = "README.md"
_MODELFILE = ".Modelfile"
_FROM_HERE = re.compile(r"\AFROM (/.*)")
"""A base at a place of this machine, in a Modelfile."""
_OF_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
_MOST_TEXT = 1024 * 1024
"""Bytes of a file that is looked through for paths of this machine; vocabularies are larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A model as it would be published.

    Attributes:
        files: what is uploaded beside the card, by its name there.
        card: to be reviewed, Markdown with the hubs' metadata on top.
        licences: what is known of them.
        size: bytes of all files.
    """

    model: Model
    files: dict[str, Path]
    card: str
    licences: Licences
    size: int


def draft(model: Model, models: Iterable[Model]) -> Draft:
    """A model's files and the card to begin with.

    Args:
        models: those that there are; its base's licence is looked for among them.

    Raises:
        PublishingError: ``not_published``, it is not whole or not of a kind that is published.
    """
    if not model.complete:
        raise PublishingError("not_published", name=model.name, reason=str(model.problems[0]).rstrip("。."))
    files = _files(model)
    known = licences.known(model, models)
    card = (
        inspection.raw_card(model)
        or f"---\npipeline_tag: text-generation\n---\n\n# {model.name.rpartition('/')[2]}\n"
    )
    return Draft(
        model=model,
        files=files,
        card=licences.drafted(card, known),
        licences=known,
        size=sum(size_of(path) for path in files.values()),
    )


def _files(model: Model) -> dict[str, Path]:
    if model.kind in (Kind.GGUF, Kind.GGUF_LORA):
        beside = model.path.with_suffix(_MODELFILE)
        found = [*model.files, *([beside] if is_file(beside) else [])]
    else:
        found = [*model.files, *side_files(model.path)]
        if model.kind is Kind.LORA:
            found.append(model.path / _OF_ADAPTERS[0])
        if is_file(model.path / FILE):
            found.append(model.path / FILE)
    return {path.name: path for path in found}


def check_card(card: str, known: Licences) -> None:
    """Look through a card before anybody else reads it.

    Raises:
        PublishingError: ``personal_data``, ``local_path``, or what `licences.check` raises.
    """
    licences.check(card, known)
    if found := privacy.personal(card):
        raise PublishingError("personal_data", sort=found[0], text=found[1])
    if path := privacy.local_path(card):
        raise PublishingError("local_path", file=CARD, text=path)


def as_published(name: str, path: Path) -> str | None:
    """The text with which a file goes instead of its own, which may name places of this machine; None for any
    other file.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    if name == FILE and (told := provenance.read(path.parent)) is not None:
        return provenance.dump(provenance.public(told))
    if path.suffix == _MODELFILE:
        text, found = _FROM_HERE.subn(_without_place, read_bytes(path).decode("utf8", "replace"))
        return text if found else None
    if name == _OF_ADAPTERS[0]:
        config = read_json(path)
        config["base_model_name_or_path"] = provenance.public_model(
            str(config.get("base_model_name_or_path") or "")
        )
        return json.dumps(config, indent=2, ensure_ascii=False)
    return None


def _without_place(base: re.Match[str]) -> str:
    return f"FROM ./{provenance.last_part(base[1])}"


def check_files(files: dict[str, Path]) -> None:
    """Look through small texts and GGUF headers, as they would be sent, for paths of this machine.

    Raises:
        PublishingError: ``local_path``.
    """
    for name, path in files.items():
        own, written = as_published(name, path), ""
        if path.suffix == ".gguf":
            told = gguf.read(path, partial=True)
            own = told.text(provenance.GGUF_KEY)
            written = "\n".join(value for value in told.metadata.values() if isinstance(value, str))
        elif own is not None and path.suffix == _MODELFILE:
            written, own = own, ""
        elif own is None and path.suffix != ".safetensors" and size_of(path) <= _MOST_TEXT:
            written = read_bytes(path, _MOST_TEXT).decode("utf8", "replace")
        # Vocabularies and templates may hold what looks like a path; what this program wrote does not.
        found = privacy.own_place(written) or privacy.local_path("\n".join(_texts(own or "{}")))
        if found:
            raise PublishingError("local_path", file=name, text=found)


def _texts(told: str) -> Iterator[str]:
    """Every text in a JSON object, and in the recipe that it may hold."""
    try:
        waiting = [json.loads(told)]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if isinstance(recipe := value.pop("recipe", None), str):
                    waiting.append(tomllib.loads(recipe))
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
            elif isinstance(value, str):
                yield value
    except ValueError:
        yield told
