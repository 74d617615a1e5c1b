"""The names that the user gave to models, kept by the models' paths.

In Ollama's store several names may mean one file; there the name belongs to the key.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from drkun_tui import paths
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library.files import read_bytes
from drkun_tui.library.model import Model, Source
from drkun_tui.library.printable import printable

MAX_ALIAS = 80
"""Characters of the longest alias."""


def key_of(model: Model) -> str:
    """Under what a model's alias is kept."""
    shared = model.source is Source.OLLAMA
    return f"{model.path}|{model.disk_name or model.name}" if shared else str(model.path)


def read() -> Mapping[str, str]:
    """Every alias by its model's key; none where they cannot be read, for a scan goes on without."""
    try:
        told = _load()
    except DrkunError:
        return {}
    # Somebody may have written into the file: each name is one model's, and one is the bundled model's.
    unique = {printable(alias): key for key, alias in told.items() if alias != "starter"}
    return {key: alias for alias, key in unique.items() if alias}


def rename(model: Model, alias: str, models: Iterable[Model]) -> str:
    """Give a model a name of the user's own, which is shown and can be used wherever its name can.

    Args:
        model: the model.
        alias: the name; "" or the model's name on disk takes the alias away.
        models: every model there is, whose names are taken.

    Returns:
        What the model is called now.

    Raises:
        DrkunError: ``alias_bad`` or ``alias_taken``, exit code 2; ``aliases_broken`` or
            ``aliases_unsaved``, the file with the aliases cannot be read or written.
    """
    alias = alias.strip()
    if len(alias) > MAX_ALIAS or printable(alias, MAX_ALIAS) != alias or alias.startswith(("/", "~", "-")):
        hint = t("inventory.alias_bad_hint", most=MAX_ALIAS)
        raise DrkunError("alias_bad", t("inventory.alias_bad", name=printable(alias)), hint, EXIT_BAD_INPUT)
    others = [other for other in models if other.key != model.key]
    if alias and any(alias.lower() in (o.name.lower(), o.disk_name.lower()) for o in others):
        message = t("inventory.alias_taken", name=alias)
        raise DrkunError("alias_taken", message, t("inventory.alias_taken_hint"), EXIT_BAD_INPUT)
    told = _load()
    told.pop(key_of(model), None)
    if alias and alias != model.disk_name:
        told[key_of(model)] = alias
    _save(told)
    return alias or model.disk_name


def forget(path: Path) -> None:
    """Take the alias of a removed model away."""
    with contextlib.suppress(DrkunError):  # the model is gone all the same
        told = _load()
        if told.pop(str(path), None) is not None:
            _save(told)


def _load() -> dict[str, str]:
    file = paths.aliases_file()
    try:
        return msgspec.json.decode(read_bytes(file), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        message = t("inventory.aliases_broken", file=str(file))
        raise DrkunError(
            "aliases_broken", message, t("inventory.aliases_broken_hint"), EXIT_FAILED
        ) from error


def _save(told: Mapping[str, str]) -> None:
    file = paths.aliases_file()
    aside = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(told)))
        aside.replace(file)
    except (OSError, UnicodeEncodeError) as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        reason = getattr(error, "strerror", None) or str(error)
        message = t("inventory.aliases_unsaved", reason=printable(reason))
        raise DrkunError("aliases_unsaved", message, t("inventory.no_space_hint"), EXIT_FAILED) from error
