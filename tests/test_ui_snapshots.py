"""The screen as a picture: `pytest tests/test_ui_snapshots.py --snapshot-update` makes the pictures anew.

The conversation is put into the database, not generated: it is the same on every machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from drkun_tui import i18n, paths
from drkun_tui.app import DrkunApp
from drkun_tui.consult.conversation import State
from drkun_tui.consult.store import Store
from drkun_tui.engine import safe_mode
from tests import gguf_files
from tests.ui_helpers import Chat, gguf_folder, plainly, stored

REASONING = "患者想了解：血压偏高时吃什么、怎么量。\n这个问题属于心血管科。\n先说明饮食，再给出测量的办法。"
ANSWER = """血压偏高时，**饮食**和*作息*同样要紧：

1. 每天食盐不超过 5 克，少吃咸菜、腊肉；
2. 多吃蔬菜、水果和豆类，例如：
   - 芹菜、菠菜
   - 苹果、香蕉

| 时间 | 收缩压 | 舒张压 |
| --- | ---: | ---: |
| 早上 | 138 | 86 |
| 晚上 | 129 | 81 |

用下面的格式记下每天的读数：

```text
2026-11-20  早 138/86  晚 129/81
```

> 收缩压超过 180 时，请立即就医。
"""


class SnapCompare(Protocol):
    """What pytest-textual-snapshot's fixture is."""

    def __call__(
        self,
        app: DrkunApp,
        *,
        terminal_size: tuple[int, int],
        run_before: Callable[[Pilot[Any]], Awaitable[None]],
    ) -> bool: ...


def consultations() -> None:
    """One of today, with an answer that was stopped, and one of last year."""
    old = stored(("胃痛三天，饭后更重", "少食多餐。"))
    stored(
        ("你好", "您好，请描述您的症状。"),
        demonstration=True,
        usage={"prompt_tokens": 21, "thinking_tokens": 20, "answer_tokens": 12},
    )
    new = stored(
        ("血压有点高，平时吃什么好？", ANSWER),
        reasoning=REASONING,
        demonstration=True,
        profile="cpu",
        usage={"prompt_tokens": 25, "thinking_tokens": 37, "answer_tokens": 214},
        timings={"ttft_s": 0.04, "decode_tok_s": 742.4, "thinking_s": 0.1},
    )
    store = Store(paths.database())
    turn = new.turns[0]
    turn.question, turn.answer, turn.reasoning, turn.state = (
        "胸口剧烈疼痛，出冷汗",
        "请",
        "这个问题",
        State.CANCELLED,
    )
    turn.red_flags = ["chest_pain"]
    store.add_turn(turn)
    store.close()
    with sqlite3.connect(paths.database()) as db:
        db.execute("UPDATE conversations SET updated_at = 1750000000 WHERE id = ?", (old.id,))
    db.close()


def program(**changes: Any) -> DrkunApp:
    safe_mode.remember(paths.machine_file())
    # Whoever has a model is not told which one suits this machine.
    gguf_files.write(gguf_folder() / "own.gguf")
    return DrkunApp(plainly(**changes), paths.settings_file())


def at_rest(*keys: str, opened: bool = True) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Wait for the model, open the newest conversation, press `keys`."""

    async def prepare(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, DrkunApp)
        app.animation_level = "none"
        it = Chat(app, pilot)
        await it.until(lambda: len(app.screen_stack) > 1)
        it.prompt.cursor_blink = False
        await it.loaded()
        if opened:
            listing = it.screen.query_one(OptionList)
            await it.until(lambda: listing.option_count > 2)
            listing.focus()
            await it.press("home", "enter")
            await it.until(lambda: it.turns)
        await it.press(*keys)
        await it.until(lambda: not it.working() & {"proposal", "guide", "scan", "measure"})

    return prepare


def test_a_conversation_at_120_columns(snap_compare: SnapCompare) -> None:
    consultations()
    assert snap_compare(program(), terminal_size=(120, 36), run_before=at_rest())


def test_a_conversation_at_80_columns(snap_compare: SnapCompare) -> None:
    consultations()
    assert snap_compare(program(), terminal_size=(80, 24), run_before=at_rest())


def test_an_earlier_answer_at_80_columns(snap_compare: SnapCompare) -> None:
    consultations()
    assert snap_compare(program(), terminal_size=(80, 40), run_before=at_rest("alt+up"))


def test_a_conversation_in_light_and_english(snap_compare: SnapCompare) -> None:
    i18n.set_language("en")
    consultations()
    app = program(theme="drkun-light", language="en")
    assert snap_compare(app, terminal_size=(120, 36), run_before=at_rest("alt+up"))


@pytest.mark.parametrize("width", [80, 120])
def test_the_empty_state(snap_compare: SnapCompare, width: int) -> None:
    size = (width, 24 if width == 80 else 36)
    assert snap_compare(program(), terminal_size=size, run_before=at_rest(opened=False))


def test_the_settings(snap_compare: SnapCompare) -> None:
    assert snap_compare(program(), terminal_size=(120, 36), run_before=at_rest("f6", "down", opened=False))


def test_the_help(snap_compare: SnapCompare) -> None:
    assert snap_compare(program(), terminal_size=(120, 48), run_before=at_rest("f1", opened=False))


def test_the_question_before_deleting(snap_compare: SnapCompare) -> None:
    consultations()
    keys = ("ctrl+l", "ctrl+l", "home", "delete")
    assert snap_compare(program(), terminal_size=(100, 30), run_before=at_rest(*keys))
