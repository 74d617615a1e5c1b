"""``drkun compare``: one question to several models, their answers told apart and held against each other."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from drkun_tui import hardware, paths
from drkun_tui.commands.ask import DIM, PLAIN, Printer, from_standard_input
from drkun_tui.commands.asking import ask, can_ask
from drkun_tui.commands.choice import chosen
from drkun_tui.comparison import records, votes
from drkun_tui.comparison.contest import Contest, News, order, shuffled, unlike
from drkun_tui.comparison.contestants import enter_all
from drkun_tui.comparison.differences import differing, tokens
from drkun_tui.comparison.records import Record
from drkun_tui.consult import answering, safety
from drkun_tui.consult.conversation import State, Turn
from drkun_tui.engine.client import Restarting
from drkun_tui.engine.protocol import Delta, Finished, Started
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import language, t
from drkun_tui.settings import Settings
from drkun_tui.ui.comparison_text import figures, vote_lines
from drkun_tui.ui.table import GAP
from drkun_tui.ui.typeset.sanitise import clean, one_line

Errors = list[tuple[str, DrkunError]]
"""Whose they are, and what went wrong."""

MARKED = "\x1b[4m"
"""Underlined: a terminal without colours shows it, too."""


def run(arguments: argparse.Namespace) -> int:
    """Ask; the exit code says whether everyone answered."""
    settings = chosen(arguments)
    if arguments.votes:
        return _tell_votes(as_json=arguments.json)
    if arguments.blind and (arguments.json or not (can_ask() and sys.stdout.isatty())):
        hint = t("compare.blind_needs_terminal_hint")
        raise DrkunError("blind_needs_terminal", t("compare.blind_needs_terminal"), hint, EXIT_BAD_INPUT)
    question = " ".join(arguments.text) if arguments.text else from_standard_input()
    if not question.strip():
        raise DrkunError("no_question", t("ask.no_question"), t("compare.no_question_hint"), EXIT_BAD_INPUT)
    seed = settings.sampling.seed
    if seed is None:
        # One for all: what differs is then the models' doing.
        seed = random.getrandbits(31)
    sampling = msgspec.structs.replace(settings.sampling, seed=seed)
    settings = msgspec.structs.replace(settings, sampling=sampling)
    entered = enter_all(arguments.models, settings, arguments.adapter_scale)
    plans = [contestant.plan for contestant in entered]
    if arguments.blind:
        entered = shuffled(entered, seed, question.strip())
    contest = Contest(
        entered, order(plans, hardware.read(), in_turn=arguments.in_turn), paths.home(), paths.machine_file()
    )
    names = [
        str(number) if arguments.blind else one_line(one.name, 60) for number, one in enumerate(entered, 1)
    ]
    shown = (
        None
        if arguments.json or not sys.stdout.isatty()
        else Streamed(contest, names, anonymous=arguments.blind)
    )
    _tell_before(contest, question, anonymous=arguments.blind)
    try:
        errors = asyncio.run(_ask(contest, question.strip(), settings, names, shown))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    return _tell_end(contest, names, errors, arguments)


def _tell_before(contest: Contest, question: str, *, anonymous: bool) -> None:
    """What is known before the first model is loaded."""
    if red_flags := safety.red_flags(question):
        _tell(safety.advice(red_flags, language()))
    entered = [one for one in contest.contestants if one.plan.notice]
    notices = [clean(one.plan.notice if anonymous else f"{one.name}: {one.plan.notice}") for one in entered]
    for told in [*dict.fromkeys(notices), unlike(one.plan for one in contest.contestants)]:
        if told:
            _tell(told)
    _tell(contest.order.reason)


async def _ask(
    contest: Contest, question: str, settings: Settings, names: Sequence[str], shown: Streamed | None
) -> Errors:
    """Ask everyone; what went wrong comes back."""
    _on_interrupt(contest)
    if shown is not None:
        shown.begin()
    errors: Errors = []
    try:
        answers = contest.ask(
            question, sampling=settings.sampling, think=settings.think, system=settings.system
        )
        async for index, news in answers:
            if isinstance(news, Restarting):
                _tell(f"{names[index]}: {t('engine.safe_mode')}")
            elif shown is not None:
                shown.add(index, news)
            elif isinstance(news, Started):
                _tell(t("compare.answering", name=names[index]))
            if isinstance(news, DrkunError):
                errors.append((one_line(contest.contestants[index].name, 60), news))
    finally:
        await contest.close()
    if shown is not None:
        shown.end()
    return errors


def _tell_end(contest: Contest, names: Sequence[str], errors: Errors, arguments: argparse.Namespace) -> int:
    """What is known when all have answered; in a blind comparison the names last."""
    turns = contest.answers
    if errors and len(errors) == len(turns):
        raise errors[0][1]
    record = Record.of(contest, blind=arguments.blind)
    if arguments.json:
        print(json.dumps(_result(record, contest), ensure_ascii=False))
    elif sys.stdout.isatty():
        _print_differences(contest, names)
    else:
        _print(contest)
    try:
        records.keep(record)
        if arguments.blind and votes.can_vote(turns):
            _vote(record, turns)
    except DrkunError as error:
        errors.append(("drkun", error))
    if arguments.blind:
        print(f"\n== {t('compare.who')}")
        for number, (contestant, turn) in enumerate(zip(contest.contestants, turns, strict=True), 1):
            print(GAP.join([str(number), one_line(contestant.name, 60), *figures(turn)]))
    for said in dict.fromkeys(answering.origin(turn) for turn in turns):
        _tell(said)
    for name, failure in errors:
        _tell(" ".join(clean(f"{name}: {failure.message}  {failure.hint}").split()))
    if errors:
        return EXIT_FAILED
    return EXIT_INTERRUPTED if any(turn.state is State.CANCELLED for turn in turns) else EXIT_DONE


def _vote(record: Record, turns: Sequence[Turn]) -> None:
    """Ask which is best, and keep what is said; an empty line is no vote.

    Raises:
        DrkunError: it was not kept.
    """
    if any(turn.demonstration for turn in turns):
        _tell(t("compare.some_demonstration"))
    while said := ask(t("compare.vote_ask", last=len(turns))):
        if said.isdecimal() and int(said) <= len(turns):
            records.vote(record, int(said) - 1 if int(said) else None)
            return


class Streamed:
    """On a terminal the answers as they come, one below the other: who stands below waits for who stands
    above, though it may have answered meanwhile.

    Args:
        names: headings of the answers.
        anonymous: nothing tells who is who.
    """

    def __init__(self, contest: Contest, names: Sequence[str], *, anonymous: bool) -> None:
        self._contest, self._names, self._anonymous = contest, names, anonymous
        self._waiting: list[list[Delta]] = [[] for _ in names]
        self._ended: set[int] = set()
        self._current = -1

    def begin(self) -> None:
        """Name the first."""
        self._begin_next()

    def add(self, index: int, news: News) -> None:
        """Show what is new, or keep it until those above have ended."""
        if isinstance(news, Delta):
            if index == self._current:
                self._printer.add(news)
            else:
                self._waiting[index].append(news)
        elif isinstance(news, Finished | DrkunError):
            self._end(index)

    def end(self) -> None:
        """Show what is left."""
        for index in range(len(self._names)):
            self._end(index)

    def _end(self, index: int) -> None:
        self._ended.add(index)
        while self._current in self._ended:
            self._printer.end()
            self._tell_figures(self._contest.answers[self._current])
            self._begin_next()

    def _tell_figures(self, turn: Turn) -> None:
        told = figures(turn, anonymous=self._anonymous)
        if not turn.answer.strip():
            print(t("consult.empty_answer"))
        if turn.state is not State.DONE:
            told.append(f"({t(f'consult.state_{turn.state}')})")
        dim, plain = (DIM, PLAIN) if "NO_COLOR" not in os.environ else ("", "")
        print(f"{dim}{GAP.join(told)}{plain}", flush=True)

    def _begin_next(self) -> None:
        self._current += 1
        self._printer = Printer(quiet=False)
        if self._current < len(self._names):
            print(_heading(self._current, self._names[self._current]), flush=True)
            for delta in self._waiting[self._current]:
                self._printer.add(delta)


def _result(record: Record, contest: Contest) -> dict[str, Any]:
    return {
        "question": record.question,
        "together": contest.order.together,
        "reason": contest.order.reason,
        "sampling": record.sampling,
        "red_flags": record.red_flags,
        "answers": [msgspec.to_builtins(answer) for answer in record.answers],
    }


def _heading(index: int, name: str) -> str:
    number = str(index + 1)
    return f"{'' if index == 0 else chr(10)}== {number}{'' if name == number else GAP + name}"


def _print(contest: Contest) -> None:
    """Every answer below its name, for a pipe."""
    for index, (contestant, turn) in enumerate(zip(contest.contestants, contest.answers, strict=True)):
        print(_heading(index, one_line(contestant.name, 100)))
        print(f"{GAP.join(figures(turn))}\n")
        if turn.reasoning.strip():
            print(f"{t('consult.reasoning')}\n\n{clean(turn.reasoning).strip()}\n")
        print(clean(turn.answer).strip() or t("consult.empty_answer"))
        if turn.state is not State.DONE:
            print(f"({t(f'consult.state_{turn.state}')})")


def _print_differences(contest: Contest, names: Sequence[str]) -> None:
    """The answers once more, what the others do not say underlined."""
    texts = [clean(turn.answer).strip() for turn in contest.answers]
    marked = _marked(texts)
    print(f"\n== {t('compare.differences' if marked != texts else 'compare.no_differences')}")
    if marked != texts:
        for name, text in zip(names, marked, strict=True):
            print(f"\n{name}: {text}")


def _marked(texts: list[str]) -> list[str]:
    """The texts with what differs underlined."""
    places = [tokens(text) for text in texts]
    words = [[text[a:b] for a, b in spans] for text, spans in zip(texts, places, strict=True)]
    out = []
    for text, spans, marks in zip(texts, places, differing(words), strict=True):
        pieces, at = [], 0
        for (start, end), differs in zip(spans, marks, strict=True):
            word = f"{MARKED}{text[start:end]}{PLAIN}" if differs else text[start:end]
            pieces += [text[at:start], word]
            at = end
        out.append("".join([*pieces, text[at:]]).replace(PLAIN + MARKED, ""))
    return out


def _tell_votes(*, as_json: bool) -> int:
    pairs = votes.tally(records.read())
    if as_json:
        print(json.dumps({"pairs": [pair.as_dict() for pair in pairs]}, ensure_ascii=False))
    elif not pairs:
        print(t("compare.no_votes"))
    else:
        print("\n".join(vote_lines(pairs)))
    return EXIT_DONE


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _on_interrupt(contest: Contest) -> None:
    """Ctrl+C keeps what has come; a second one ends everything."""
    loop, comparing = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        with suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
        if contest.answers:
            contest.stop()
        elif comparing is not None:
            comparing.cancel()

    with suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, interrupt)
