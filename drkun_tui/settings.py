"""What the user chose, kept in ``settings.toml``."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import t
from drkun_tui.sampling import Sampling


class Settings(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Every setting with its default; only what differs is written."""

    language: Literal["auto", "zh", "en"] = "auto"
    theme: str = "drkun-dark"
    model: str = "starter"
    adapter: str | None = None
    adapter_scale: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    """What the adapter's change of the weights is multiplied with."""
    profile: Literal["auto", "cpu", "gpu8", "gpu16", "remote"] = "auto"
    context_length: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Tokens; 0 chooses by the model and the memory at hand."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """0 is one for each physical core."""
    kv_cache: Literal["f16", "q8_0", "q4_0"] = "f16"
    """What a GGUF's keys and values are kept as."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    """For a GGUF; a quantised cache needs it."""
    think: bool = True
    system: str = ""
    """System prompt of new conversations."""
    reasoning: Literal["shown", "collapsed", "hidden"] = "shown"
    conversation_list: bool = True
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    model_folders: list[str] = []
    """Searched besides the program's own."""
    hub: Literal["auto", "hf", "modelscope"] = "auto"
    """Which hub is asked for models first."""
    remote_url: str = ""
    """An OpenAI-compatible server, for the profile ``remote``."""
    remote_model: str = ""
    """What that server calls the model; "" takes the first of its list."""
    remote_key: str = ""
    contestants: list[str] = []
    """Who was compared last, as `drkun_tui.comparison.contestants.enter` takes them."""
    keys: dict[str, str] = {}
    """Action id to key, or several keys with commas."""


def load(path: Path) -> Settings:
    """Read the settings; a missing file gives the defaults.

    Raises:
        DrkunError: ``settings_broken``, the file cannot be read or a value is not allowed; it is
            left as it is.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        return Settings()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DrkunError(
            "settings_broken",
            t("error.settings_broken", file=str(path), reason=reason),
            t("error.settings_broken_hint"),
            EXIT_BAD_INPUT,
        ) from error


def save(settings: Settings, path: Path) -> None:
    """Write the settings, whole or not at all. What this version does not know stays in the file.

    Raises:
        DrkunError: ``settings_unsaved``, the disk is full or the folder read-only.
    """
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        # A key may be in it.
        aside.touch(mode=0o600)
        aside.write_bytes(msgspec.toml.encode(_unknown(path) | _changed(settings)))
        aside.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DrkunError("settings_unsaved", t("error.settings_unsaved", reason=reason)) from error


def _unknown(path: Path) -> dict[str, Any]:
    """What the file holds besides the settings of this version, e.g. those of a newer one."""
    try:
        kept: dict[str, Any] = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {name: value for name, value in kept.items() if name not in Settings.__struct_fields__}


def _changed(settings: Settings) -> dict[str, Any]:
    """What differs from the defaults. No None is among it, which TOML could not write."""
    changed: dict[str, Any] = msgspec.to_builtins(settings)
    default = msgspec.to_builtins(Sampling())
    changed["sampling"] = {
        name: value for name, value in changed["sampling"].items() if value != default[name]
    }
    if not changed["sampling"]:
        del changed["sampling"]
    return changed


def hub_of(settings: Settings) -> Literal["hf", "modelscope"]:
    """Where models are looked for when nobody says."""
    return "hf" if settings.hub == "auto" else settings.hub
