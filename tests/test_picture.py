"""The documentation's pictures: Chinese keeps its width, and nothing is fetched from the network."""

from __future__ import annotations

import importlib.util
import io
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
CELL = 12.2
"""Rich's width of one cell, in the picture's units."""

LINES = ("问  最近总是头晕，应该怎么办？ 24 tok/s", "<b> & “引号” …  é e\u0301 한국어", "  ascii only  ")


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    """The script, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("picture", ROOT / "scripts" / "picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exported(*lines: str) -> str:
    """What Rich makes of some lines, which are drawn from the left edge."""
    console = Console(width=60, file=io.StringIO(), record=True, force_terminal=True, legacy_windows=False)
    for line in lines:
        console.print(Text(line))
    return console.export_svg(title="")


def placed(svg: str) -> list[tuple[str, list[float], float | None]]:
    """Each piece of text with the places of its characters, or its one place and its length."""
    found = []
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        length = element.get("textLength")
        places = [float(place) for place in (element.get("x") or "").split()]
        found.append((element.text or "", places, None if length is None else float(length)))
    return found


def test_text_is_cut_where_the_width_changes(picture: ModuleType) -> None:
    assert picture.runs("a头晕 b，c") == ["a", "头晕", " b", "，", "c"]
    assert picture.runs("xe\u0301头") == ["xe\u0301", "头"]
    assert picture.runs("") == []


def test_every_piece_stands_in_its_cells(picture: ModuleType) -> None:
    for line in LINES:
        rest, column = line, 0
        for text, places, length in placed(picture.repaired(exported(line))):
            shown = text.replace("\xa0", " ")
            before = rest.index(shown)
            assert not rest[:before].strip()
            column += cell_len(rest[:before])
            assert places[0] == pytest.approx(column * CELL, abs=0.01)
            if length is None:
                assert len(places) == len(shown)
                assert all(b - a == pytest.approx(2 * CELL, abs=0.01) for a, b in pairwise(places))
            else:
                assert length == pytest.approx(cell_len(shown) * CELL, abs=0.01)
            column += cell_len(shown)
            rest = rest[before + len(shown) :]
        assert not rest.strip()


def test_markup_in_the_text_stays_text(picture: ModuleType) -> None:
    svg = picture.repaired(exported("<b>头&晕</b>"))
    assert "".join(text for text, _, _ in placed(svg)) == "<b>头&晕</b>"


def test_no_font_comes_from_the_network(picture: ModuleType) -> None:
    svg = picture.repaired(exported(*LINES))
    assert "@font-face" not in svg
    assert not re.search(r"url\((?!#)", svg)
    assert f"font-family: {picture.FONTS};" in svg
    assert "full-width" not in svg


@pytest.mark.parametrize("name", ["consult.svg", "consult-80.svg"])
def test_the_pictures_are_repaired_and_say_what_answers(picture: ModuleType, name: str) -> None:
    assert name in picture.SIZES
    svg = (ROOT / "docs" / "pictures" / name).read_text("utf8")
    text = "".join(text for text, _, _ in placed(svg))
    assert "演示模型，仅供体验，不是医疗建议" in text
    assert "starter" in text
    assert "@font-face" not in svg
