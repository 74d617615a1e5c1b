"""How a model was trained, as the ``drkun.json`` in its folder says, or its GGUF's metadata."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from drkun_tui.library.files import read_bytes

FILE = "drkun.json"

GGUF_KEY = "drkun.provenance"
"""What the content of `FILE` is called in a GGUF's metadata."""


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


def public(provenance: Provenance) -> Provenance:
    """The same without paths of this machine, to be handed on: of a path its last part is left."""
    try:
        recipe = tomllib.loads(provenance.recipe)
    except tomllib.TOMLDecodeError:
        recipe = {}
    for section, key in (("data", "path"), ("base", "model")):
        value = recipe.get(section, {}).get(key)
        if isinstance(value, str) and value.startswith(("/", "~", ".")):
            recipe[section][key] = Path(value).name
    base = provenance.base_model
    return msgspec.structs.replace(
        provenance,
        base_model=Path(base).name if base.startswith(("/", "~", ".")) else base,
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
