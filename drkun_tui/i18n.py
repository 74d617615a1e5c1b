"""Interface text: one catalogue per language, looked up by dotted key.

The catalogues are ``locales/zh.toml`` and ``locales/en.toml``; a test keeps their keys and
placeholders equal. Text from a model, a file name or a server is only ever a ``{placeholder}``.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from pathlib import Path

LANGUAGES = {"zh": "中文", "en": "English"}

_current = "zh"


def language_from_environment() -> str:
    """``"zh"`` or ``"en"`` by the locale variables, in the order that POSIX gives them."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def set_language(language: str) -> None:
    """Use one of `LANGUAGES`, or ``"auto"`` for the environment's."""
    global _current
    _current = language if language in LANGUAGES else language_from_environment()


def language() -> str:
    """The language in use."""
    return _current


def catalogue(language: str) -> dict[str, str]:
    """Flat ``section.key -> text`` of one language."""
    return {
        f"{name}.{key}": text for name in _bodies(language) for key, text in _section(language, name).items()
    }


@functools.cache
def _bodies(language: str) -> dict[str, str]:
    """The file's sections, not parsed: most starts want a few of them, and parsing all takes as long as a
    tenth of the first frame."""
    raw = (Path(__file__).parent / "locales" / f"{language}.toml").read_text("utf8")
    parts = re.split(r"(?m)^\[(\w+)\]$", raw)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@functools.cache
def _section(language: str, name: str) -> dict[str, str]:
    return tomllib.loads(_bodies(language)[name])


def t(key: str, /, **values: object) -> str:
    """The text of `key` with its placeholders filled.

    Raises:
        KeyError: the key is in no catalogue, which is a mistake in the program.
    """
    section, _, entry = key.partition(".")
    text = _section(_current, section)[entry]
    return text.format_map(values) if values else text


def has(key: str) -> bool:
    """Is there a text of this key?"""
    section, _, entry = key.partition(".")
    return section in _bodies(_current) and entry in _section(_current, section)
