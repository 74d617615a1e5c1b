"""Signs of an emergency in a question, and what to tell the reader about them.

The patterns are data (``red_flags.toml``), compiled at the first question. They are there to say
"ask a person, now" beside whatever a model answers; they diagnose nothing, and their silence means
nothing either.
"""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drkun_tui.i18n import catalogue

LONGEST = 8000
"""Characters of a question that are looked at."""

SELF_HARM = "self_harm"

_CLAUSE_ENDS = ",.!?;:。\n"
_LONGEST_CLAUSE = 60
_MOST_HITS = 200
"""Of one term: a question that repeats a word ten thousand times is no richer in signs."""

# Compiled when they are first used, not when the program starts.
_INVISIBLE = "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]+"
_SPACES = r"[ \t\r]+"
_SPACE_BESIDE_CHINESE = r"(?<=[\u3000-\u9fff]) | (?=[\u3000-\u9fff])"
_WRAPPED_LINE = r"(?<=[a-z,]) ?\n(?=[a-z])"

_SHORTHAND = {
    "~~": "[^,.!?;:。\n不没无未]{0,9}",
    "~": "[^,.!?;:。\n不没无未]{0,4}",
    "__": r"(?:[\w'-]+ ){0,3}",
}


@dataclass(frozen=True, slots=True)
class _Flag:
    id: str
    rules: list[list[str]]
    within: int
    strict: bool
    unless: list[str]
    yet: list[str]


@dataclass(frozen=True, slots=True)
class _Patterns:
    flags: list[_Flag]
    terms: dict[str, re.Pattern[str]]
    context: dict[str, re.Pattern[str]]
    simplified: dict[int, str]


def red_flags(text: str) -> list[str]:
    """Ids of the emergency signs in `text`, Chinese or English, in the order of ``red_flags.toml``."""
    patterns = _patterns()
    folded = _fold(text[:LONGEST], patterns.simplified)
    context = patterns.context
    is_general = bool(context["general"].search(folded) and not context["personal"].search(folded))

    @functools.cache
    def hits(term: str, strict: bool) -> list[tuple[int, int]]:
        found = []
        for match in patterns.terms[term].finditer(folded):
            if not _is_called_off(folded, match.start(), match.end(), context, strict=strict):
                found.append(match.span())
                if len(found) == _MOST_HITS:
                    break
        return found

    def holds_any(terms: list[str]) -> bool:
        return any(patterns.terms[term].search(folded) for term in terms)

    def is_raised(flag: _Flag) -> bool:
        if is_general and not flag.strict:
            return False
        if holds_any(flag.unless) and not holds_any(flag.yet):
            return False
        return any(_meet([hits(term, flag.strict) for term in rule], flag.within) for rule in flag.rules)

    return [flag.id for flag in patterns.flags if is_raised(flag)]


def advice(flags: Sequence[str], language: str) -> str:
    """One line for the reader about the signs `flags`, "" when there are none."""
    if not flags:
        return ""
    texts = catalogue(language)
    lines = []
    if bodily := [flag for flag in flags if flag != SELF_HARM]:
        # A database may hold a flag that a later version knows: the line is still true without its name.
        names = texts["safety.and"].join(texts.get(f"safety.name_{flag}", flag) for flag in bodily)
        lines.append(texts["safety.emergency"].format(names=names))
    if SELF_HARM in flags:
        lines.append(texts["safety.self_harm"])
    return " ".join(lines)


def _fold(text: str, simplified: dict[int, str]) -> str:
    """`text` in half width, lower case and simplified characters, without spaces in its Chinese."""
    text = unicodedata.normalize("NFKC", re.sub(_INVISIBLE, "", text)).lower().translate(simplified)
    text = re.sub(_SPACES, " ", text.replace("’", "'"))
    return re.sub(_WRAPPED_LINE, " ", re.sub(_SPACE_BESIDE_CHINESE, "", text))


def _is_called_off(
    text: str, start: int, end: int, context: dict[str, re.Pattern[str]], *, strict: bool
) -> bool:
    """Whether the words at `start` are negated, or (for flags that are not strict) past or supposed."""
    from_here = max(0, start - _LONGEST_CLAUSE)
    clause = text[
        max([from_here, *(text.rfind(mark, from_here, start) + 1 for mark in _CLAUSE_ENDS)]) : start
    ]
    # An English enumeration goes on over commas: no fever, cough or chest pain.
    if context["negated"].search(clause) or context["negated"].search(text[from_here:start]):
        return True
    if context["negated_after"].search(text[end : end + 24]):
        return True
    return not strict and bool(context["past"].search(clause) or context["supposed"].search(clause))


def _meet(found: list[list[tuple[int, int]]], within: int) -> bool:
    """Whether one hit of each term can be found with at most `within` characters between the outer two."""
    starts = [[start for start, _ in hits] for hits in found]

    def follow(start: int, end: int) -> bool:
        """Whether every term has a hit from `start` on that begins soon enough after `end`."""
        for of_term in starts:
            place = bisect_left(of_term, start)
            if place == len(of_term) or of_term[place] - end > within:
                return False
        return True

    return any(follow(start, end) for hits in found for start, end in hits)


@functools.cache
def _patterns() -> _Patterns:
    raw = tomllib.loads(Path(__file__).with_name("red_flags.toml").read_text("utf-8"))
    flags = [
        _Flag(
            flag["id"],
            flag["rules"],
            flag.get("within", 0),
            flag.get("strict", False),
            flag.get("unless", []),
            flag.get("yet", []),
        )
        for flag in raw["flag"]
    ]
    terms = {name: _compile(term["zh"], term["en"]) for name, term in raw["terms"].items()}
    context = {name: re.compile("|".join(f"(?:{p})" for p in ps)) for name, ps in raw["context"].items()}
    simplified = str.maketrans(dict(zip(raw["traditional"], raw["simplified"], strict=True)))
    return _Patterns(flags, terms, context, simplified)


def _compile(chinese: list[str], english: list[str]) -> re.Pattern[str]:
    source = f"(?:{'|'.join(chinese)})|(?<![a-z])(?:{'|'.join(english)})"
    for short, long in _SHORTHAND.items():
        source = source.replace(short, long)
    return re.compile(source)
