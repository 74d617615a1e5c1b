"""How an adapter was trained, as the ``drkun.json`` in its folder says."""

from __future__ import annotations

from pathlib import Path

import msgspec

from drkun_tui.library.files import read_bytes

FILE = "drkun.json"


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
    versions: dict[str, str] = {}
    """Of the packages that trained it."""
    demonstration: bool = False
    """Is it, or what it was made from, the bundled starter?"""


def write(folder: Path, provenance: Provenance) -> None:
    """Write the folder's `FILE`.

    Raises:
        OSError: it cannot be written.
    """
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(provenance), indent=2) + b"\n")


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
