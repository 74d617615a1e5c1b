"""What somebody types where the data are: completed, and said what it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from textual.suggester import Suggester

from drkun_tui.i18n import t
from drkun_tui.ui.table import size

DEMO = "demo"


class ExistingPath(Suggester):
    """Completes what is typed to a file or folder that is there.

    Args:
        demo: the dialogues that come with the program can be meant, too.
    """

    def __init__(self, *, demo: bool = True) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._demo = demo

    async def get_suggestion(self, value: str) -> str | None:
        """The first that begins so."""
        return await asyncio.to_thread(_completed, value, self._demo)


def _completed(value: str, demo: bool) -> str | None:
    if demo and value and DEMO.startswith(value):
        return DEMO
    if "/" not in value:
        return None
    before, _, begun = value.rpartition("/")
    folder = Path(before or "/").expanduser()
    try:
        found = sorted(path for path in folder.iterdir() if path.name.startswith(begun))
    except OSError:
        return None
    found = [path for path in found if begun.startswith(".") or not path.name.startswith(".")]
    if not found:
        return None
    return f"{before}/{found[0].name}" + ("/" if found[0].is_dir() else "")


def is_hub(text: str) -> bool:
    """Is it ``owner/name`` and not here?"""
    if text.count("/") != 1 or text.startswith(("/", "~", ".")) or text.endswith("/"):
        return False
    return not Path(text).exists()


def about_data(text: str) -> tuple[str, bool]:
    """What it is, and whether there can be rows in it."""
    if not text:
        return t("training_screen.data_none"), False
    if text == DEMO:
        return t("training_screen.data_demo"), True
    if is_hub(text):
        return t("training_screen.data_hub"), True
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            found = list(path.iterdir())
            # Also of nothing but folders, such as one for each department: the check reads them all.
            return t("training_screen.data_folder", files=len(found)), bool(found)
        return t("training_screen.data_file", size=size(path.stat().st_size)), True
    except OSError:
        return t("training_screen.data_missing"), False
