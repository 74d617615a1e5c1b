"""What is published of a model: which files, under which card; and what must not be in it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drkun_tui.library import adapters, gguf, provenance
from drkun_tui.library.files import is_file, read_bytes, read_json, size_of
from drkun_tui.library.inspection import MAX_CARD
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.provenance import FILE, Provenance
from drkun_tui.publishing import privacy
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.sources import side_files

CARD = "README.md"
UNKNOWN = "unknown"

STARTER_LICENCE = "apache-2.0"
"""Of the bundled model's weights."""

_OF_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)
_FRONT = re.compile(r"\A\ufeff?---\r?\n(.*?)^---\r?\n", re.DOTALL | re.MULTILINE)

_MOST_TEXT = 1024 * 1024
"""Bytes of a file that is looked through for paths of this machine; vocabularies are larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A model as it would be published.

    Attributes:
        files: what is uploaded beside the card, by its name there.
        card: to be reviewed, Markdown with the hubs' metadata on top.
        base_licence: as the base's own card says, else `UNKNOWN`.
        data: what it was trained on, "" where nothing says so.
        size: bytes of all files.
    """

    model: Model
    files: dict[str, Path]
    card: str
    base_licence: str
    data: str
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
    trained = model.provenance
    licence = _base_licence(model, list(models))
    data = _data(trained)
    return Draft(
        model=model,
        files=files,
        card=_card(model, licence, data),
        base_licence=licence,
        data=data,
        size=sum(size_of(path) for path in files.values()),
    )


def _files(model: Model) -> dict[str, Path]:
    if model.kind in (Kind.GGUF, Kind.GGUF_LORA):
        beside = model.path.with_suffix(".Modelfile")
        found = [*model.files, *([beside] if is_file(beside) else [])]
    else:
        found = [*model.files, *side_files(model.path)]
        if model.kind is Kind.LORA:
            found.append(model.path / _OF_ADAPTERS[0])
        if is_file(model.path / FILE):
            found.append(model.path / FILE)
    return {path.name: path for path in found}


def _base_licence(model: Model, models: list[Model]) -> str:
    """What the card of the model's base says, or a GGUF's own metadata."""
    if model.demonstration:
        return STARTER_LICENCE
    base = adapters.base_for(model, models) if model.is_adapter else model
    if base is None:
        return UNKNOWN
    if base.kind is Kind.GGUF and (said := gguf.read(base.path, partial=True).text("general.license")):
        return said
    return licence_of(_raw_card(base)) or UNKNOWN


def _data(trained: Provenance | None) -> str:
    """The name of what it was trained on; of a file its name alone."""
    try:
        told = tomllib.loads(trained.recipe if trained else "").get("data", {})
    except tomllib.TOMLDecodeError:
        return ""
    return str(told.get("hub") or Path(str(told.get("path", ""))).name)


def _raw_card(model: Model) -> str:
    folder = model.path if model.path.is_dir() else model.path.parent
    try:
        return read_bytes(folder / CARD)[:MAX_CARD].decode("utf8", "replace")
    except OSError:
        return ""


def _card(model: Model, licence: str, data: str) -> str:
    """The card that lies beside the model, with its licences."""
    own = (
        _raw_card(model) or f"---\npipeline_tag: text-generation\n---\n\n# {model.name.rpartition('/')[2]}\n"
    )
    front = _FRONT.match(own)
    head, body = (front[1], own[front.end() :]) if front else ("", own)
    if licence_of(own) == "":
        head += f"license: {licence}\n"
    if "## Licences" not in body:
        told = f"- base model: {licence}\n" + (f"- data ({data}): {UNKNOWN}\n" if data else "")
        body = f"{body.rstrip()}\n\n## Licences\n\n{told}"
    return f"---\n{head}---\n{body}"


def licence_of(card: str) -> str:
    """The licence in a card's metadata; "" when there is none."""
    front = _FRONT.match(card)
    found = _LICENCE.search(front[1]) if front else None
    return found[1].lower() if found else ""


def with_licences(card: str, *, base: str = "", data: str = "") -> str:
    """A card with what somebody knows of its licences; "" leaves them as they are."""
    if base and (front := _FRONT.match(card)):
        head = _LICENCE.sub(f"license: {base}", front[1])
        card = f"---\n{head}---\n{card[front.end() :]}"
    for named, licence in (("base model", base), (r"data \(.*\)", data)):
        if licence:
            card = re.sub(rf"^(- {named}: ).*$", lambda found: found[1] + licence, card, flags=re.MULTILINE)  # noqa: B023
    return card


def check_card(card: str) -> None:
    """Look through a card before anybody else reads it.

    Raises:
        PublishingError: ``no_licence``, ``licence_unknown``, ``personal_data`` or ``local_path``.
    """
    licence = licence_of(card)
    if licence in ("", UNKNOWN):
        raise PublishingError("no_licence")
    section = card.partition("## Licences")[2].partition("\n#")[0]
    if unknown := next((line for line in section.splitlines() if line.rstrip().endswith(f": {UNKNOWN}")), ""):
        raise PublishingError("licence_unknown", line=unknown.strip("- "))
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
    if name == _OF_ADAPTERS[0]:
        config = read_json(path)
        config["base_model_name_or_path"] = provenance.public_model(
            str(config.get("base_model_name_or_path") or "")
        )
        return json.dumps(config, indent=2, ensure_ascii=False)
    return None


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
