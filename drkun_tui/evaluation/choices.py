"""Questions with options: how they are put, and which letters an answer chose."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

_LETTERS = re.compile(r"[A-Z](?:[\s,，、;；/]*[A-Z])*")
_NARROW = {
    wide: wide - 0xFEE0 for first, last in ("０９", "Ａｚ") for wide in range(ord(first), ord(last) + 1)
}
"""From full-width letters and digits. NFKC would do more: ℃ becomes °C, and that is no choice."""

_OPTION = re.compile(r"\s*([A-ZＡ-Ｚ])\s*[.．、:：)）\s]\s*(.+?)\s*")
_CHINESE = re.compile("[\u4e00-\u9fff]")

_ASKS = {
    ("zh", False): "请选出唯一正确的选项。最后一行只写“答案：”和选项字母。",
    ("zh", True): "请选出所有正确的选项。最后一行只写“答案：”和全部选项字母。",
    ("en", False): 'Choose the one correct option. End with a line that says "Answer:" and its letter.',
    ("en", True): 'Choose all correct options. End with a line that says "Answer:" and their letters.',
}
_DEPARTMENT = {
    "zh": "根据上面的描述，应该挂哪个科室？只能从下列科室中选一个，最后一行只写“科室：”和科室名称。\n{names}",
    "en": "Which department should this patient go to? Choose one of the following, and end with a line that "
    'says "Department:" and its name.\n{names}',
}


def language(text: str) -> str:
    """``zh`` where there is a Chinese character in it, else ``en``."""
    return "zh" if _CHINESE.search(text) else "en"


def options_of(text: str) -> dict[str, str]:
    """Options as data sets write them, by their letters; those without text are left out.

    Args:
        text: a JSON object from letters to texts (CMB, MedQA), a JSON list of texts or of objects with
            ``key`` and ``value``, or lines that begin with a letter (CMExam).
    """
    try:
        told = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except ValueError:
        told = None
    pairs: list[tuple[str, str]] = []
    if isinstance(told, dict):
        pairs = [(str(key), str(value)) for key, value in told.items() if value is not None]
    elif isinstance(told, list) and all(isinstance(each, dict) for each in told):
        pairs = [(str(each.get("key", "")), str(each.get("value", ""))) for each in told]
    elif isinstance(told, list):
        pairs = [(chr(ord("A") + place), str(each)) for place, each in enumerate(told[:26])]
    else:
        found = (_OPTION.fullmatch(line) for line in text.splitlines())
        pairs = [(match[1], match[2]) for match in found if match]
    cleaned = ((_narrow(key).upper(), value.strip()) for key, value in pairs)
    return {
        key: value for key, value in cleaned if len(key) == 1 and key.isascii() and key.isalpha() and value
    }


def key_of(text: str, options: Mapping[str, str]) -> str:
    """The letters of a key, sorted, e.g. ``ABD``; "" where it is none: letters that are no options, or text
    that is none of them."""
    text = text.strip()
    narrow = _narrow(text).upper()
    if _LETTERS.fullmatch(narrow):
        letters = set(re.sub(r"[^A-Z]", "", narrow))
        if letters <= options.keys():
            return "".join(sorted(letters))
    return next((letter for letter, option in options.items() if option == text), "")


def asked(question: str, options: Mapping[str, str], *, several: bool) -> str:
    """The question with its options and how to answer it."""
    lines = [f"{letter}. {text}" for letter, text in options.items()]
    return "\n".join([question, *lines, _ASKS[language(question), several]])


def asked_for_department(question: str, names: Collection[str]) -> str:
    """A question about the department that somebody should go to."""
    spoken = language(question)
    separator = "、" if spoken == "zh" else ", "
    return f"{question}\n\n{_DEPARTMENT[spoken].format(names=separator.join(names))}"


def chosen(answer: str, options: Collection[str]) -> str:
    """The letters that an answer chooses, sorted; "" where it names none.

    Only the last place counts where letters stand: a model that weighs options names several before it
    decides. Letters stand alone or in a row (``ABD``, ``A、B和D``); none is part of a word, and an English
    article is no choice.

    Args:
        answer: without the reasoning.
        options: the letters there are.
    """
    letters = "".join(options)
    if not letters:
        return ""
    one = f"[{letters}]"
    joined = r"(?:[\s,，、;；/]|和|及|与|and|\*)*"
    places = re.finditer(
        rf"(?<![A-Za-z0-9°])({one}(?:{joined}{one})*)(?![A-Za-z0-9])(?!'|’)(?!(?<=A) (?!is |was )[a-z\d])",
        _narrow(answer),
    )
    last = ""
    for match in places:
        last = match[1]
    return "".join(sorted(set(re.findall(one, last.replace("and", "")))))


def _narrow(text: str) -> str:
    return text.strip().translate(_NARROW)


def department(answer: str, names: Collection[str]) -> str:
    """The department that an answer names last; "" where it names none. Where one name is within another
    (内科 in 心内科), the longer one counts."""
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    if not longest_first:
        return ""
    found = re.findall("|".join(map(re.escape, longest_first)), answer)
    return found[-1] if found else ""
