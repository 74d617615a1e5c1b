"""``drkun compare``: one question to several models, their answers told apart and held against each other."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from contextlib import suppress
from typing import Any

import msgspec

from drkun_tui import hardware, paths
from drkun_tui.commands.ask import DIM, PLAIN, from_standard_input
from drkun_tui.commands.choice import chosen
from drkun_tui.comparison import records, votes
from drkun_tui.comparison.contest import Contest, order, unlike
from drkun_tui.comparison.contestants import enter_all
from drkun_tui.comparison.differences import differing, tokens
from drkun_tui.comparison.records import Record
from drkun_tui.consult import answering, safety
from drkun_tui.consult.conversation import State
from drkun_tui.engine.client import Restarting
from drkun_tui.engine.protocol import Started
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import language, t
from drkun_tui.settings import Settings
from drkun_tui.ui.comparison_text import figures, vote_lines
from drkun_tui.ui.table import GAP
from drkun_tui.ui.typeset.sanitise import clean, one_line

MARKED = "\x1b[4m"
"""Underlined: a terminal without colours shows it, too."""


def run(arguments: argparse.Namespace) -> int:
    """Ask; the exit code says whether everyone answered."""
    settings = chosen(arguments)
    if arguments.votes:
        return _tell_votes(as_json=arguments.json)
    question = " ".join(arguments.text) if arguments.text else from_standard_input()
    if not question.strip():
        raise DrkunError("no_question", t("ask.no_question"), t("compare.no_question_hint"), EXIT_BAD_INPUT)
    sampling = settings.sampling
    if sampling.seed is None:
        # One for all: what differs is then the models' doing.
        sampling = msgspec.structs.replace(sampling, seed=random.getrandbits(31))
        settings = msgspec.structs.replace(settings, sampling=sampling)
    entered = enter_all(arguments.models, settings, arguments.adapter_scale)
    plans = [contestant.plan for contestant in entered]
    contest = Contest(
        entered, order(plans, hardware.read(), in_turn=arguments.in_turn), paths.home(), paths.machine_file()
    )
    try:
        return asyncio.run(_compare(contest, question.strip(), settings, as_json=arguments.json))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _compare(contest: Contest, question: str, settings: Settings, *, as_json: bool) -> int:
    _on_interrupt(contest)
    red_flags = safety.red_flags(question)
    if red_flags:
        _tell(safety.advice(red_flags, language()))
    for contestant in contest.contestants:
        if contestant.plan.notice:
            _tell(f"{clean(contestant.name)}: {clean(contestant.plan.notice)}")
    if told := unlike(one.plan for one in contest.contestants):
        _tell(told)
    _tell(contest.order.reason)
    errors: list[tuple[str, DrkunError]] = []
    try:
        answers = contest.ask(
            question, sampling=settings.sampling, think=settings.think, system=settings.system
        )
        async for index, news in answers:
            name = one_line(contest.contestants[index].name, 60)
            if isinstance(news, Restarting):
                _tell(f"{name}: {t('engine.safe_mode')}")
            elif isinstance(news, Started):
                _tell(t("compare.answering", name=name))
            elif isinstance(news, DrkunError):
                errors.append((name, news))
    finally:
        await contest.close()
    turns = contest.answers
    if errors and len(errors) == len(turns):
        raise errors[0][1]
    record = Record.of(contest)
    if as_json:
        print(json.dumps(_result(record, contest), ensure_ascii=False))
    else:
        _print(contest)
    for said in dict.fromkeys(answering.origin(turn) for turn in turns):
        _tell(said)
    try:
        records.keep(record)
    except DrkunError as error:
        errors.append(("drkun", error))
    for name, failure in errors:
        _tell(" ".join(clean(f"{name}: {failure.message}  {failure.hint}").split()))
    if errors:
        return EXIT_FAILED
    return EXIT_INTERRUPTED if any(turn.state is State.CANCELLED for turn in turns) else EXIT_DONE


def _result(record: Record, contest: Contest) -> dict[str, Any]:
    return {
        "question": record.question,
        "together": contest.order.together,
        "reason": contest.order.reason,
        "sampling": record.sampling,
        "red_flags": record.red_flags,
        "answers": [msgspec.to_builtins(answer) for answer in record.answers],
    }


def _print(contest: Contest) -> None:
    """Every answer below its name, what the others do not say marked."""
    turns = contest.answers
    shown = [(clean(turn.reasoning), clean(turn.answer)) for turn in turns]
    marked = [_marked([text[part] for text in shown]) for part in (0, 1)]
    on_terminal = sys.stdout.isatty()
    dim, plain = (DIM, PLAIN) if on_terminal and "NO_COLOR" not in os.environ else ("", "")
    for index, (contestant, turn) in enumerate(zip(contest.contestants, turns, strict=True)):
        print(f"{'' if index == 0 else chr(10)}== {index + 1}  {one_line(contestant.name, 100)}")
        print(f"{dim}{GAP.join(figures(turn))}{plain}\n")
        if turn.reasoning.strip():
            print(f"{dim}{t('consult.reasoning')}{plain}\n{marked[0][index].strip()}\n")
        print(marked[1][index].strip() or t("consult.empty_answer"))
        if turn.state is not State.DONE:
            print(f"{dim}({t(f'consult.state_{turn.state}')}){plain}")


def _marked(texts: list[str]) -> list[str]:
    """The texts as they are, on a terminal with what differs underlined."""
    if not sys.stdout.isatty():
        return texts
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
