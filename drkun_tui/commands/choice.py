"""The settings of one command: the user's own, with what the command line says laid over them."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.library import adapters, inventory
from drkun_tui.library.plan import folders
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings

_SAMPLING = ("temperature", "top_p", "top_k", "repeat_penalty", "max_tokens", "seed")


def chosen(arguments: argparse.Namespace) -> Settings:
    """The settings for `arguments`; also sets the language.

    Raises:
        DrkunError: a value is not allowed.
    """
    own = settings.load(paths.settings_file())
    set_language(own.language)
    given = vars(arguments)
    changes: dict[str, Any] = {
        name: given[option]
        for name, option in (
            ("model", "model"),
            ("adapter", "adapter"),
            ("adapter_scale", "adapter_scale"),
            ("profile", "profile"),
            ("context_length", "context"),
            ("threads", "threads"),
            ("system", "system"),
        )
        if given.get(option) is not None
    }
    profile = changes.get("profile", own.profile)
    if "model" not in changes and changes.get("adapter", own.adapter) != own.adapter and profile != "remote":
        changes["model"] = _model_for(changes["adapter"], own)
    if "model" in changes and "adapter" not in changes:
        # An adapter belongs to the model it was chosen with.
        changes["adapter"] = None
    if "adapter" in changes:
        # And a scale to the adapter.
        changes.setdefault("adapter_scale", 1.0)
    if profile == "remote" and "model" in changes:
        # There it is the server's model that is meant; this machine's stays as it was chosen.
        changes["remote_model"] = changes.pop("model")
    if given.get("no_think"):
        changes["think"] = False
    sampling = msgspec.to_builtins(own.sampling)
    sampling |= {name: given[name] for name in _SAMPLING if given.get(name) is not None}
    try:
        changes["sampling"] = msgspec.convert(sampling, Sampling)
        return msgspec.convert(msgspec.to_builtins(msgspec.structs.replace(own, **changes)), Settings)
    except msgspec.ValidationError as error:
        raise DrkunError("bad_value", t("error.bad_value", reason=str(error)), "", EXIT_BAD_INPUT) from error


def _model_for(name: str, own: Settings) -> str:
    """Which model an adapter is meant for when none is named: its base, else the user's own if it fits.

    Raises:
        DrkunError: ``adapter_mismatch``; the hint says where the base is to be had.
    """
    if not name:
        return own.model
    where = folders(own)
    adapter = inventory.find(name, where)
    if not adapter.is_adapter:  # which is told when it is loaded
        return own.model
    if (base := adapters.base_for(adapter, inventory.scan(where))) is not None:
        return base.name
    if reason := adapters.mismatch(adapter, inventory.find(own.model, where)):
        told = adapter.problems[0] if adapter.problems else None
        hint = told.remedy if told else t("plan.mismatch_hint")
        raise DrkunError("adapter_mismatch", told.text if told else reason, hint, EXIT_NO_MODEL)
    return own.model
