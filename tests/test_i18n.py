"""Both languages say everything that the program asks for, and nothing else."""

from __future__ import annotations

import ast
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import drkun_tui
from drkun_tui import i18n

PACKAGE = Path(drkun_tui.__file__).parent
CATALOGUES = {language: i18n.catalogue(language) for language in i18n.LANGUAGES}
KEYS = set(CATALOGUES["zh"])


@pytest.mark.parametrize("language", i18n.LANGUAGES)
def test_the_sections_are_those_of_the_file(language: str) -> None:
    whole = tomllib.loads((PACKAGE / "locales" / f"{language}.toml").read_text("utf8"))
    told = {f"{section}.{key}": text for section, texts in whole.items() for key, text in texts.items()}
    assert i18n.catalogue(language) == told


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf8"))


def is_lookup(node: ast.AST) -> bool:
    """A call of ``t`` or ``has``."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("t", "has")


def ends(node: ast.JoinedStr) -> tuple[str, str]:
    """What an f-string begins and ends with."""
    first, last = node.values[0], node.values[-1]
    return (
        str(first.value) if isinstance(first, ast.Constant) else "",
        str(last.value) if isinstance(last, ast.Constant) else "",
    )


def asked_for() -> tuple[dict[str, Path], dict[tuple[str, str], Path]]:
    """Keys that are looked up as they stand, and beginnings and ends of those that are put together."""
    whole: dict[str, Path] = {}
    parts: dict[tuple[str, str], Path] = {}
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not is_lookup(node):
                continue
            for found in ast.walk(node.args[0]):
                if isinstance(found, ast.JoinedStr):
                    parts[ends(found)] = path
            keys = [node.args[0]]
            if isinstance(node.args[0], ast.IfExp):
                keys = [node.args[0].body, node.args[0].orelse]
            for key in keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    whole[key.value] = path
    return whole, parts


def written_anywhere() -> tuple[set[str], set[tuple[str, str]]]:
    """Every text constant of the program, and the ends of every one that is put together."""
    nodes = [node for _, tree in trees() for node in ast.walk(tree)]
    return (
        {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)},
        {ends(node) for node in nodes if isinstance(node, ast.JoinedStr)},
    )


def placeholders(text: str) -> list[tuple[str, str]]:
    return sorted(
        (name, form or "") for _, name, form, _ in string.Formatter().parse(text) if name is not None
    )


def test_both_languages_have_the_same_keys() -> None:
    assert set(CATALOGUES["en"]) == KEYS
    assert len(KEYS) > 300


def test_both_languages_have_the_same_placeholders() -> None:
    chinese, english = ({key: placeholders(text[key]) for key in KEYS} for text in CATALOGUES.values())
    assert chinese == english
    assert any(chinese.values())


def test_no_text_is_empty_but_where_there_is_nothing_to_say() -> None:
    empty = {key for key in KEYS if not (CATALOGUES["zh"][key] and CATALOGUES["en"][key])}
    assert empty <= {"keys.none_help"}


def test_texts_are_in_their_language() -> None:
    chinese = {key for key in KEYS if any("\u4e00" <= char <= "\u9fff" for char in CATALOGUES["en"][key])}
    assert chinese <= {"settings.language_zh"}


def test_every_key_that_is_looked_up_exists() -> None:
    whole, _ = asked_for()
    assert len(whole) > 100
    assert {key: path for key, path in whole.items() if key not in KEYS} == {}


def test_every_key_that_is_put_together_has_candidates() -> None:
    _, parts = asked_for()
    missing = {
        key: path
        for key, path in parts.items()
        if not any(known.startswith(key[0]) and known.endswith(key[1]) for known in KEYS)
    }
    assert missing == {}


def test_no_text_is_left_over() -> None:
    """A key is used when it is looked up, stands in a table, or fits one that is put together."""
    used, parts = written_anywhere()
    sections = {key.partition(".")[0] + "." for key in KEYS}
    prefixes = tuple(begin for begin, _ in parts if begin.startswith(tuple(sections)))
    # Whose kinds of failure are a section's keys.
    prefixes += tuple(
        f"{node.args[0].value}."
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Kinds"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )
    # What stands in a table may be looked up with a suffix, such as a key binding's help.
    suffixes = tuple(end for begin, end in asked_for()[1] if not begin and end)
    left = {
        key
        for key in KEYS
        if key not in used
        and not key.startswith(prefixes)
        and not any(key.endswith(suffix) and key.removesuffix(suffix) in used for suffix in suffixes)
    }
    assert left == set()


# Looking up


def test_placeholders_are_filled_with_anything() -> None:
    assert i18n.t("engine.load_failed", file="{x}", reason="100% {0}") == "无法载入 {x}：100% {0}"


def test_an_unknown_key_is_a_mistake_in_the_program() -> None:
    assert not i18n.has("engine.nothing")
    with pytest.raises(KeyError):
        i18n.t("engine.nothing")


def test_the_language_can_be_switched() -> None:
    assert (i18n.language(), i18n.t("place.consult")) == ("zh", "咨询")
    i18n.set_language("en")
    assert (i18n.language(), i18n.t("place.consult")) == ("en", CATALOGUES["en"]["place.consult"])


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"LANG": "ZH"}, "zh"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({}, "en"),
        ({"LANG": "en_US", "LC_MESSAGES": "zh_CN"}, "zh"),
        ({"LC_ALL": "C", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
    ],
)
def test_the_language_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], language: str
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    i18n.set_language("auto")
    assert i18n.language() == language
    i18n.set_language("fr")
    assert i18n.language() == language
