"""A question on the terminal, for what cannot be undone."""

from __future__ import annotations

import sys

YES = {"y", "yes", "是", "好"}


def can_ask() -> bool:
    """Is there somebody to ask?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> str:
    """What is answered on the line behind a question, which goes to standard error."""
    print(question, end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def agreed(question: str) -> bool:
    """Was it answered with yes?"""
    return ask(question).lower() in YES
