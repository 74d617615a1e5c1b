"""What is learned about a machine outlives the program, and never costs more than learning it again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from drkun_tui import learned


def test_sections_are_kept_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    assert learned.get(file, "numbers", list[int], [7]) == [7]
    learned.put(file, "numbers", [1, 2])
    learned.put(file, "names", {"a": "甲"})
    learned.put(file, "numbers", [3])
    assert learned.get(file, "numbers", list[int], []) == [3]
    assert learned.get(file, "names", dict[str, str], {}) == {"a": "甲"}
    assert [path.name for path in tmp_path.iterdir()] == ["machine.json"]


def test_a_newer_program_s_sections_stay(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text('{"unknown": {"deep": [1, null]}, "numbers": [1]}')
    learned.put(file, "numbers", [2])
    assert json.loads(file.read_bytes()) == {"unknown": {"deep": [1, None]}, "numbers": [2]}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"numbers": "none"}', b'{"numbers": ["\xff"]}'])
def test_what_cannot_be_read_is_as_good_as_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(content)
    assert learned.get(file, "numbers", list[int], []) == []
    learned.put(file, "numbers", [1])
    assert learned.get(file, "numbers", list[int], []) == [1]


def test_what_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    learned.put(tmp_path / "missing" / "machine.json", "numbers", [1])
    assert list(tmp_path.iterdir()) == []


def test_writers_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"

    def write(section: str) -> None:
        for number in range(50):
            learned.put(file, section, [number])

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert json.loads(file.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["machine.json"]
