"""Takes the pictures of the chat screen that the documentation shows: ``python scripts/picture.py``.

Runs the real application on the bundled model in a data folder of its own, asks with fixed seeds, and
writes what Textual exports, repaired for Chinese. Another kind of processor rounds otherwise and may
give other answers to the same seeds: read them before you keep the pictures.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from drkun_tui.app import DrkunApp

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"

SIZES = {"consult.svg": (120, 34), "consult-80.svg": (80, 24)}
"""File name to columns and rows."""

EARLIER = ("高血压患者饮食上要注意什么？", 3)
SHOWN = (("经常胃胀反酸，平时饮食要注意什么？", 4), ("最近总是头晕，应该怎么办？", 5))
"""Questions with their seeds: one for a conversation before, two for the one that is shown."""

PATIENCE_S = 120.0

FONTS = (
    "'Fira Code', 'Cascadia Mono', Menlo, Consolas, 'DejaVu Sans Mono', 'Noto Sans Mono', "
    "'Noto Sans Mono CJK SC', 'Sarasa Mono SC', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', "
    "monospace"
)
"""Whatever of these the viewer has: first for Latin letters, then for Chinese."""

_WEB_FONT = re.compile(r"@font-face\s*\{[^}]*\}\s*")
_FAMILY = re.compile(r"font-family: Fira Code, monospace;")
_FULL_WIDTH = re.compile(r"font-variant-east-asian: full-width;\s*")
_TEXT = re.compile(
    r'<text class="(?P<style>[^"]*)" x="(?P<x>[^"]*)" y="(?P<y>[^"]*)" textLength="(?P<length>[^"]*)"'
    r"(?P<clip>[^>]*)>(?P<text>[^<]*)</text>"
)
_SPACE = "\xa0"
"""As which Rich writes every space."""


def repaired(svg: str) -> str:
    """A picture exported by Rich, with Chinese text in its true width and no fonts from the network.

    Rich counts every character as one cell when it says how long a run of text is, so a browser
    squeezes Chinese to half its width. Here each run is cut where the width of its characters changes.
    A narrow piece keeps one place and a length; in a wide one every character gets its own place,
    because browsers share out what a length leaves over between the characters, not after each.
    """
    svg = _FULL_WIDTH.sub("", _WEB_FONT.sub("", svg))
    svg = _FAMILY.sub(f"font-family: {FONTS};", svg)
    svg = svg.replace("<svg ", '<svg xml:lang="zh-CN" ', 1)
    return _TEXT.sub(_pieces, svg)


def runs(text: str) -> list[str]:
    """`text` cut where the cells of its characters change; a combining mark stays with its letter."""
    cut: list[str] = []
    width = 0
    for char in text:
        cells = cell_len(char)
        if cut and cells in (0, width):
            cut[-1] += char
        else:
            cut.append(char)
            width = cells
    return cut


def _pieces(element: re.Match[str]) -> str:
    """The elements that take the place of one."""
    text = html.unescape(element["text"])
    cell = float(element["length"]) / len(text)
    x = float(element["x"])
    pieces = []
    for run in runs(text):
        # Spaces show nothing, and at the ends of a run they only cost room.
        if shown := run.strip():
            left = x + cell * cell_len(run[: run.index(shown)])
            content = html.escape(shown).replace(_SPACE, "&#160;")
            pieces.append(
                f'<text class="{element["style"]}" {_place(shown, left, cell)} y="{element["y"]}"'
                f"{element['clip']}>{content}</text>"
            )
        x += cell * cell_len(run)
    return "".join(pieces)


def _place(run: str, left: float, cell: float) -> str:
    """The attributes that say where a run stands."""
    if cell_len(run[0]) == 1:
        return f'x="{left:.5g}" textLength="{cell * cell_len(run):.5g}"'
    places = (left + cell * cell_len(run[:index]) for index in range(len(run)))
    return f'x="{" ".join(f"{place:.5g}" for place in places)}"'


async def take() -> dict[str, str]:
    """Run the application; return the repaired pictures by their file names."""
    from drkun_tui import i18n
    from drkun_tui.app import DrkunApp
    from drkun_tui.settings import Settings

    i18n.set_language("zh")
    app = DrkunApp(Settings(language="zh"))
    pictures = {}
    async with app.run_test(size=SIZES["consult.svg"]) as pilot:
        await until(pilot, lambda: app.session.engine.loaded)
        await _ask(app, pilot, *EARLIER)
        await pilot.press("ctrl+n")
        for question, seed in SHOWN:
            await _ask(app, pilot, question, seed)
        for name, size in SIZES.items():
            await pilot.resize_terminal(*size)
            await pilot.press("ctrl+end")
            await pilot.pause(0.5)
            pictures[name] = repaired(app.export_screenshot(simplify=True))
    return pictures


async def _ask(app: DrkunApp, pilot: Pilot[None], question: str, seed: int) -> None:
    """Type a question and wait for the end of its answer."""
    from drkun_tui.consult.conversation import State
    from drkun_tui.sampling import Sampling
    from drkun_tui.ui.widgets.prompt import Prompt

    app.change_settings(sampling=Sampling(seed=seed))
    prompt = app.screen.query_one(Prompt)
    prompt.cursor_blink = False
    prompt.replace_text(question)
    await pilot.press("enter")

    def answered() -> bool:
        last = app.session.last
        return last is not None and last.question == question and last.state is State.DONE

    await until(pilot, answered)
    await pilot.pause(0.2)


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await pilot.pause(0.05)


def main() -> None:
    """Take the pictures and write them."""
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory(prefix="drkun-picture-") as home:
        os.environ["DRKUN_HOME"] = home
        pictures = asyncio.run(take())
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures.items():
        (PICTURES / name).write_text(svg, encoding="utf8")
        print(f"{PICTURES / name}  {len(svg.encode()):,} bytes")


if __name__ == "__main__":
    main()
