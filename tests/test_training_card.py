"""The card of an adapter, and what is known of its base."""

from __future__ import annotations

from pathlib import Path

import pytest

from drkun_tui.library.inspection import licence_of
from drkun_tui.library.model import Kind, Model
from drkun_tui.training import recipe
from drkun_tui.training.adapter import revision_of
from drkun_tui.training.card import card
from drkun_tui.training.history import History
from drkun_tui.training.protocol import HeldOut, Prepared, Step

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def base(folder: Path, readme: str = "") -> Model:
    folder.mkdir(parents=True)
    if readme:
        (folder / "README.md").write_text(readme, "utf8")
    return Model(name="Qwen/Qwen3-4B", kind=Kind.BASE, path=folder, size_bytes=1)


def told(steps: int = 0) -> History:
    counts = {"rows": 90, "held_out": 10, "tokens": 9000, "trained_tokens": 4000}
    dropped = {"near_duplicate": 3, "empty": 2}
    events = [Prepared(**counts, dropped=dropped, fingerprint="f00d" * 16)]
    curve = [
        Step(step=step, loss=4 - step / 100, learning_rate=1e-4, epoch=0.1, tokens=step)
        for step in range(1, steps + 1)
    ]
    return History.of([*events, *curve, HeldOut(step=steps, loss=2.5)])


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlanguage: zh\nlicense: Apache-2.0\ntags: [x]\n---\n# A\n", "apache-2.0"),
        ("---\r\nlicense: 'llama3.1'\r\n---\r\n", "llama3.1"),
        ("---\ntags: [x]\n---\n\nlicense: mit\n---\n", ""),
        ("# license: mit\n", ""),
        ("", ""),
    ],
)
def test_the_licence_of_the_base_stands_in_its_own_card(tmp_path: Path, readme: str, licence: str) -> None:
    model = base(tmp_path / "base", readme)
    assert licence_of(readme) == licence
    made = card(recipe.Recipe(), model, model.name, told())
    front = made.split("---\n")[1]
    assert (f"license: {licence}\n" in front) == bool(licence)
    assert f"base model ({licence or 'unknown'})" in made


def test_the_card_tells_the_data_and_the_curves(tmp_path: Path) -> None:
    model = base(tmp_path / "base")
    made = card(recipe.Recipe(), model, model.name, told(steps=75))
    assert "| rows left out | 3 near duplicate, 2 empty |" in made
    assert f"| data fingerprint | {'f00d' * 16} |" in made
    assert "## Held-out response loss\n\n| step | loss |\n| --- | --- |\n| 75 | 2.5000 |\n" in made
    curve = made.partition("## Training loss\n")[2].strip().splitlines()[2:]
    assert (curve[0], curve[-1], len(curve)) == ("| 1 | 3.9900 |", "| 75 | 3.2500 |", 10)


def test_the_commit_of_a_base_in_the_hub_s_cache(tmp_path: Path) -> None:
    there = tmp_path / "models--Qwen--Qwen3-4B" / "snapshots" / COMMIT
    assert revision_of(base(there)) == COMMIT
    assert revision_of(base(tmp_path / "models" / "Qwen3-4B")) == ""
