"""The list of models as rows: made once for each entry, laid out when somebody looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drkun_tui import hardware, i18n, paths
from drkun_tui.library import speed
from drkun_tui.library.overview import Entry, overview
from drkun_tui.ui import model_rows
from tests.gguf_files import metadata, write
from tests.model_files import put_base

MACHINE = hardware.read()


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    put_base(tmp_path / "models" / "base")
    for number in range(3):
        write(tmp_path / "models" / f"m{number}.gguf", metadata())
    (tmp_path / "models" / "text.gguf").write_text("no model")
    known = speed.known(paths.machine_file(), MACHINE)
    return overview([tmp_path / "models"], MACHINE, known).entries


def test_what_has_not_changed_is_the_same_row(entries: list[Entry]) -> None:
    before = model_rows.rows(entries)
    changed = [replace(entries[0]), *entries[1:]]
    after = model_rows.rows(changed, before)
    assert after == before == model_rows.rows(entries)
    assert [new is old for new, old in zip(after.each, before.each, strict=True)] == [False] + [True] * 4
    assert model_rows.rows(entries[2:], before) == model_rows.rows(entries[2:])


def test_in_another_language_every_row_is_another(entries: list[Entry]) -> None:
    before = model_rows.rows(entries)
    i18n.set_language("en" if i18n.language() == "zh" else "zh")
    after = model_rows.rows(entries, before)
    assert not any(new is old for new, old in zip(after.each, before.each, strict=True))
    assert after.titles != before.titles


def test_a_line_has_its_columns_under_their_titles_or_what_is_wrong(entries: list[Entry]) -> None:
    rows = model_rows.rows(entries)
    lines = rows.lines(("name", "size", "cpu"), 30)
    assert len(lines) == len(entries) == 5
    assert list(lines) == lines[:] == [lines[at] for at in range(5)]
    for entry, (text, problem) in zip(entries, lines, strict=True):
        assert text.startswith(entry.model.name[:10])
        assert bool(problem) == bool(entry.model.problems)
        if not problem:
            assert model_rows.cells(entry)["size"] in text and text.endswith(model_rows.cells(entry)["cpu"])
    assert any(problem for _, problem in lines)
