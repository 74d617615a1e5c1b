"""Conversations written out: readable, complete, and unable to act on what surrounds them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from drkun_tui import i18n
from drkun_tui.consult import export
from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.errors import DrkunError


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    before = i18n.language()
    i18n.set_language("en")
    yield
    i18n.set_language(before)


def conversation(*turns: Turn) -> Conversation:
    return Conversation(3, title="头晕 <b>*三天*", system="简短回答", turns=list(turns), created_at=1.0)


def turn(**values: object) -> Turn:
    defaults: dict[str, object] = {
        "state": State.DONE,
        "model": "starter",
        "answer": "多休息。",
        "created_at": 1.8e9,
    }
    return Turn(1, 3, "头晕\n怎么办？", **{**defaults, **values})  # type: ignore[arg-type]


def test_markdown_names_the_model_and_what_it_is() -> None:
    text = export.to_markdown(
        conversation(
            turn(reasoning="患者头晕……", demonstration=True),
            turn(model="qwen", adapter="my_lora", state=State.CANCELLED, dropped_turns=2),
        )
    )
    assert text.startswith("# 头晕 \\<b\\>\\*三天\\*\n\n")
    assert "> 简短回答" in text
    assert "> 头晕\n> 怎么办？" in text
    assert "<details>\n<summary>Reasoning</summary>\n\n患者头晕……\n\n</details>" in text
    assert "**Answer, written by the model starter**" in text
    assert "**Answer, written by the model qwen + my\\_lora**" in text
    assert text.count("demonstration") == 1
    assert "*Stopped by the reader.*" in text
    assert "2 oldest turns" in text


@pytest.mark.parametrize("state", list(State))
def test_every_state_can_be_written(state: State) -> None:
    text = export.to_markdown(conversation(turn(state=state, model="", answer="")))
    assert "an unknown model" in text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("血压 <140，且 a<b", "血压 <140，且 a&lt;b"),
        ("<script>x</script>", "&lt;script>x&lt;/script>"),
        ("```\n1 < 2\n```", "```\n1 < 2\n```"),
        ("```\n1 < 2", "```\n1 < 2\n```"),
        ("~~~~\n```\n~~~\nx", "~~~~\n```\n~~~\nx\n~~~~"),
        ("- x\n  ```\ny", "- x\n  ```\ny"),
        ("```a`b", "```a`b"),
        ("红\x1b[31m字\u202e反\r\n行", "红[31m字反\n行"),
    ],
)
def test_an_answer_stays_in_its_place(answer: str, expected: str) -> None:
    assert f"\n\n{expected}\n" in export.to_markdown(conversation(turn(answer=answer)))


@given(st.text(alphabet="`~<>/-#* \nab", max_size=60))
def test_no_answer_hides_the_next_question(answer: str) -> None:
    text = export.to_markdown(
        conversation(turn(reasoning=answer, answer=answer), turn(answer="THE END", reasoning="x" + answer))
    )
    tokens = MarkdownIt("commonmark").parse(text)
    assert any(token.type == "paragraph_open" and token.level == 0 for token in tokens[-3:])
    assert "THE END" in tokens[-2].content
    html = [part for token in tokens for part in (token, *(token.children or ())) if "html" in part.type]
    assert all("details" in part.content for part in html)
    assert len(html) in (2, 4), "opened and closed, or not there"


def test_json_leaves_nothing_out() -> None:
    original = turn(reasoning="想", usage={"answer_tokens": 3}, sampling={"seed": None})
    document = json.loads(export.to_json(conversation(original)))
    assert document["format"] == "drkun-conversation"
    assert document["turns"][0]["reasoning"] == "想"
    assert document["turns"][0]["state"] == "done"
    assert document["system"] == "简短回答"
    assert "头晕" in export.to_json(conversation(original)), "readable as it is"


def test_writing_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "头晕.md"
    path.write_text("old")
    export.write(path, "头晕\ud800\n")
    assert path.read_bytes() == "头晕?\n".encode()
    assert [file.name for file in tmp_path.iterdir()] == ["头晕.md"]


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path, tmp_path / "no" / "folder.md"):
        with pytest.raises(DrkunError) as raised:
            export.write(path, "x")
        assert raised.value.kind == "export_failed"
        assert str(path) in raised.value.message
        assert raised.value.hint

    path = tmp_path / "kept.md"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DrkunError, match="the disk is full"):
        export.write(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.md"]


def test_both_languages_have_every_line() -> None:
    lines = [{key for key in i18n.catalogue(code) if key.startswith("export.")} for code in i18n.LANGUAGES]
    assert lines[0] == lines[1]
