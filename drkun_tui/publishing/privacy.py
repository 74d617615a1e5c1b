"""What must not leave this machine: personal data, and where its files lie."""

from __future__ import annotations

import re
from pathlib import Path

from drkun_tui import paths

_PERSONAL = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "phone": re.compile(
        r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)"
        r"|(?<![\d.-])(?:\+86[- ]?0?\d{2,3}[- ]|0\d{2,3}[- ]|[(（]0\d{2,3}[)）][- ]?)\d{3,4}[- ]?\d{4}(?!\d)"
    ),
    "identity": re.compile(
        r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}[\dXx](?![\dXx])"
    ),
}
"""E-mail addresses, Chinese telephone numbers and identity numbers."""

_ADDRESS = re.compile(r"\b(?!file:)[a-zA-Z][\w+.-]*://[^\s|`'\"<>]+", re.ASCII)
"""What names a place elsewhere, and may look like a path behind that."""

_ROOTS = (
    *("Users", "Volumes", "content", "data", "datasets", "etc", "home", "kaggle", "media", "mnt", "nas"),
    *("opt", "private", "root", "scratch", "srv", "tmp", "usr", "var", "work", "workspace", "workspaces"),
)
_NAME = r"[^\s/|`'\"<>()\[\]]"
_PATH = re.compile(
    rf"""file:/{_NAME}*/\S+
    | /(?:home|Users)/{_NAME}+/{_NAME}
    | (?<![\w./~<-]) /(?:{"|".join(_ROOTS)})/{_NAME}
    | (?<![^\s"'`(=|,:：，、（“]) /(?!(?:v\d+|api|openapi|chat)/)(?!\d){_NAME}+/{_NAME}
    | (?<![\w./]) ~[a-z_]?[\w-]*/{_NAME}
    | (?<![A-Za-z0-9]) [A-Za-z]:[\\/](?![\\/\s])\S
    | (?<!\\) \\\\[^\s\\/]+\\[^\s\\]
    """,
    re.ASCII | re.VERBOSE,
)
"""Absolute paths: below a known root whatever is written before them, below any other where one can begin."""


def personal(text: str) -> tuple[str, str] | None:
    """The sort of the first personal datum in a text, and what it is."""
    for sort, pattern in _PERSONAL.items():
        if found := pattern.search(text):
            return sort, found[0]
    return None


def own_place(text: str) -> str:
    """A folder of this machine's user that a text names; "" where there is none."""
    for place in {str(place) for place in (Path.home(), paths.home(), Path.cwd())}:
        if len(place) > 1 and re.search(rf"(?<![\w.-]){re.escape(place)}(?![\w-])", text, re.ASCII):
            return place
    return ""


def local_path(text: str) -> str:
    """The first path of some machine in a text; "" where there is none."""
    if place := own_place(text):
        return place
    plain = _ADDRESS.sub(" ", text)
    if (found := _PATH.search(plain)) is None:
        return ""
    return re.split(r"[\s|`'\"]", plain[found.start() :], maxsplit=1)[0]
