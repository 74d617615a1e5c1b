"""What one answer shows by itself: does it go round in circles, does it send to an emergency service?"""

from __future__ import annotations

import re

GRAM = 8
"""Characters of the runs whose repetition is counted."""

MOST_REPEATED = 0.3
"""The share of repeated runs above which a text goes round in circles. In the dialogues that come with the
program no reference answer comes near it."""

_EMERGENCY = re.compile(
    r"(?<![\d/／.])(?:120|911|999|112)(?!\s*(?:[\d/／毫克次℃%]|mg|ml)|\.\d|[a-z])|急救|急诊"
    r"|(?:立即|立刻|马上|赶紧|尽快|迅速|即刻)(?:拨打|送|去|前往|到)?[^，。；！\n]{0,6}(?:就医|就诊|医院)"
    r"|emergency|ambulance"
    r"|(?:go|get|rush(?:ed)?|be taken) (?:straight |immediately )?to (?:the |a |an )?(?:nearest )?"
    r"(?:hospital|er\b)"
    r"|(?:seek|get) (?:immediate|urgent) (?:medical )?(?:care|help|attention)",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:不需要|不用|不必|无需|无须|没必要|没有必要|不需|别)[^，。；！,.;!\n]{0,6}$"
    r"|(?:no need|not need|n't need|not necessary|unnecessary|rather than|instead of|not an?|isn't an?)"
    r"[^.;!\n]{0,20}$",
    re.IGNORECASE,
)


def repetition(text: str) -> float:
    """The share of its runs of `GRAM` characters that stood before: 1 − different ones / all, as seq-rep-n of
    Welleck et al. 2020 (arXiv:1908.04319), on characters. White space does not count."""
    text = "".join(text.split())
    runs = len(text) - GRAM + 1
    if runs < 1:
        return 0.0
    return 1 - len({text[place : place + GRAM] for place in range(runs)}) / runs


def repeats(text: str) -> bool:
    """Does it go round in circles?"""
    return repetition(text) > MOST_REPEATED


def advises_emergency(answer: str) -> bool:
    """Does it say to call an ambulance, or to go to a hospital now? Not where it says that this is not
    needed."""
    return any(
        not _NEGATED.search(answer[max(0, place.start() - 40) : place.start()])
        for place in _EMERGENCY.finditer(answer)
    )
