"""All that the disk says of one model, beyond its entry in the list."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.library import gguf
from drkun_tui.library.files import read_bytes, read_json
from drkun_tui.library.fit import USUAL, Wish
from drkun_tui.library.gguf_header import Skipped, Value
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.printable import printable

MAX_CARD = 256 * 1024
"""Bytes of a model card that are read."""

MAX_TEMPLATES = 16
"""Most files with further chat templates that are read."""

_DEFAULT = "default"
"""What the transformers library calls the chat template that is used where none is named."""

FRONT_MATTER = re.compile(r"\A\ufeff?---\r?\n(.*?)^---(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
"""The metadata that a card begins with."""

LICENCE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+).*$", re.MULTILINE)
"""The licence among them."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that the disk says of one model."""

    model: Model
    metadata: dict[str, Any]
    """Of a GGUF its header's entries, long arrays as ``{"type", "length"}``; else its configuration."""
    chat_template: str | None
    """Where there are several each with its name above it, the default one first."""

    @property
    def complete(self) -> bool:
        """Is the model whole?"""
        return self.model.complete

    def as_dict(self, hardware: Hardware, wish: Wish = USUAL, base: Model | None = None) -> dict[str, Any]:
        """The object of ``drkun inspect --json``."""
        model = self.model
        return model.as_dict(hardware, wish=wish, base=base) | {
            "disk_name": model.disk_name,
            "title": model.title,
            "files": [os.fsencode(file).decode("utf8", "replace") for file in model.files],
            "rank": model.rank,
            "alpha": model.alpha,
            "target_modules": list(model.target_modules),
            "provenance": msgspec.to_builtins(model.provenance),
            "metadata": self.metadata,
            "chat_template": self.chat_template,
        }


def details(model: Model) -> Inspection:
    """What the disk says of a model beyond its entry in the list; nothing when it cannot be read."""
    if model.kind in (Kind.GGUF, Kind.GGUF_LORA):
        try:
            header = gguf.read(model.path, partial=True)
        except DrkunError:
            return Inspection(model, {}, None)
        metadata = {printable(key): _plain(value) for key, value in header.metadata.items()}
        return Inspection(model, metadata, header.chat_template or None)
    name = "adapter_config.json" if model.kind is Kind.LORA else "config.json"
    return Inspection(model, read_json(model.path / name), _chat_templates(model.path))


def _chat_templates(folder: Path) -> str | None:
    """What the transformers library finds: in the tokenizer's configuration, one or a list of named ones, and
    in files, which come before that."""
    told = read_json(folder / "tokenizer_config.json").get("chat_template")
    listed = told if isinstance(told, list) else [{"name": _DEFAULT, "template": told}]
    pairs = [(item.get("name"), item.get("template")) for item in listed if isinstance(item, dict)]
    named = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    others = itertools.islice((folder / "additional_chat_templates").glob("*.jinja"), MAX_TEMPLATES)
    for name, file in [(_DEFAULT, folder / "chat_template.jinja"), *((f.stem, f) for f in sorted(others))]:
        with contextlib.suppress(OSError):
            named[name] = read_bytes(file).decode("utf8", "replace")
    if named.keys() <= {_DEFAULT}:
        return named.get(_DEFAULT)
    ordered = sorted(named.items(), key=lambda template: template[0] != _DEFAULT)
    return "\n\n".join(f"{{# {printable(name)} #}}\n{text}" for name, text in ordered)


def card_file(model: Model) -> Path:
    """Where a model's card lies: in its folder; of a GGUF under its name, if it has one of its own."""
    if model.path.is_dir():
        return model.path / "README.md"
    own = model.path.with_suffix(".md")
    return own if own.is_file() else model.path.parent / "README.md"


def raw_card(model: Model) -> str:
    """The card that lies beside a model, with its metadata; "" when there is none."""
    try:
        return read_bytes(card_file(model))[:MAX_CARD].decode("utf8", "replace")
    except OSError:
        return ""


def card(model: Model) -> str:
    """The same without its metadata, Markdown."""
    return FRONT_MATTER.sub("", raw_card(model))


def licence_of(card: str) -> str:
    """The licence in a card's metadata; "" when there is none."""
    front = FRONT_MATTER.match(card)
    found = LICENCE.search(front[1]) if front else None
    return found[1].lower() if found else ""


def _plain(value: Value) -> Any:
    """A metadata value as JSON can hold it."""
    if isinstance(value, Skipped):
        return {"type": value.kind, "length": value.length}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
