"""How a model was trained, as the ``drkun.json`` in its folder says, or its GGUF's metadata."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import msgspec

from drkun_tui.library.files import read_bytes

FILE = "drkun.json"

GGUF_KEY = "drkun.provenance"
"""What the content of `FILE` is called in a GGUF's metadata."""

_REPOSITORY = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """How prompts were rendered; whoever uses the adapter renders them so."""

    template: str = ""
    """A named template; "" is the base's own chat template."""
    system: str = ""
    """The system text that every example had."""
    thinking_tags: tuple[str, str] | None = None
    """What opened and closed the reasoning; None where there was none."""


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter's training left beside it. Fields that this version does not know are ignored."""

    base_model: str = ""
    base_revision: str = ""
    prompt: Prompt = Prompt()
    data_fingerprint: str = ""
    recipe: str = ""
    seed: int | None = None
    run: str = ""
    """The id of the run that made it."""
    versions: dict[str, str] = {}
    """Of the packages that trained it."""
    demonstration: bool = False
    """Is it, or what it was made from, the bundled starter?"""

    @property
    def trained(self) -> bool:
        """Was it fine-tuned here? Then it is asked as it was trained."""
        return bool(self.recipe)


def write(folder: Path, provenance: Provenance) -> None:
    """Write the folder's `FILE`.

    Raises:
        OSError: it cannot be written.
    """
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(provenance), indent=2) + b"\n")


def dump(provenance: Provenance) -> str:
    """The content of `FILE` in one line, as a GGUF's metadata hold it."""
    return msgspec.json.encode(provenance).decode()


def parse(text: str) -> Provenance | None:
    """What `dump` wrote; None for anything else, because a GGUF is a stranger's."""
    try:
        return msgspec.json.decode(text, type=Provenance)
    except (ValueError, RecursionError):
        return None


def last_part(path: str) -> str:
    """The name at the end of a path, whichever system it is of."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def public_model(named: str) -> str:
    """What a model is called elsewhere: its name, of a path the last part."""
    return last_part(named) if re.match(r"[/~.\\]|[A-Za-z]:|file:", named) else named


def public_data(hub: str) -> str:
    """What a data set of the hub is called elsewhere: its name, or the last part where it is a folder."""
    return hub if _REPOSITORY.fullmatch(hub) and not os.path.lexists(hub) else last_part(hub)


def public(provenance: Provenance) -> Provenance:
    """The same without paths of this machine, to be handed on: of a path its last part is left."""
    try:
        recipe = tomllib.loads(provenance.recipe)
    except tomllib.TOMLDecodeError:
        recipe = {}
    shorter = (("data", "path", last_part), ("data", "hub", public_data), ("base", "model", public_model))
    for section, key, shortened in shorter:
        if isinstance(value := recipe.get(section, {}).get(key), str):
            recipe[section][key] = shortened(value)
    return msgspec.structs.replace(
        provenance,
        base_model=public_model(provenance.base_model),
        recipe=msgspec.toml.encode(recipe).decode() if recipe else "",
    )


def read(folder: Path) -> Provenance | None:
    """What the folder's `FILE` says; None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return msgspec.json.decode(read_bytes(folder / FILE), type=Provenance)
    except FileNotFoundError:
        return None
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
