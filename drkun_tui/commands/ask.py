"""``drkun ask``: one question, answered on standard output as the answer comes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from typing import TextIO

import msgspec

from drkun_tui import paths
from drkun_tui.commands.choice import chosen
from drkun_tui.consult import safety
from drkun_tui.engine.client import EngineClient, Restarting
from drkun_tui.engine.protocol import ChatMessage, Delta, Finished, Generate, Ready
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import language, t
from drkun_tui.library import speed
from drkun_tui.library.plan import Plan, plan_load
from drkun_tui.settings import Settings
from drkun_tui.ui.typeset.sanitise import clean

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def run(arguments: argparse.Namespace) -> int:
    """Ask; the exit code says whether the answer was complete."""
    settings = chosen(arguments)
    question = " ".join(arguments.text) if arguments.text else from_standard_input()
    if not question.strip():
        raise DrkunError("no_question", t("ask.no_question"), t("ask.no_question_hint"), EXIT_BAD_INPUT)
    plan = plan_load(settings)
    try:
        return asyncio.run(_ask(question.strip(), settings, plan, as_json=arguments.json))
    except asyncio.CancelledError:
        # Ctrl+C before the first word.
        raise KeyboardInterrupt from None


def from_standard_input() -> str:
    """What is piped in; "" from a terminal."""
    if sys.stdin.isatty():
        return ""
    return sys.stdin.read()


async def _ask(question: str, settings: Settings, plan: Plan, *, as_json: bool) -> int:
    engine = EngineClient(paths.engine_log(), paths.machine_file())
    _on_interrupt(engine)
    red_flags = safety.red_flags(question)
    _tell(plan.notice)
    if red_flags:
        _tell(safety.advice(red_flags, language()))
    out = Printer(quiet=as_json)
    try:
        async for event in engine.load(plan.load):
            if isinstance(event, Restarting):
                _tell(t("engine.safe_mode"))
            elif isinstance(event, Ready) and event.cpu_layers:
                _tell(t("engine.cpu_layers", layers=event.cpu_layers))
            elif isinstance(event, Ready) and event.not_fused:
                _tell(t("engine.not_fused", reason=event.not_fused))
        ready = engine.ready
        told = plan.system(settings.system)
        system = [ChatMessage("system", told)] if told.strip() else []
        request = Generate(
            id=0,
            messages=[*system, ChatMessage("user", question)],
            sampling=settings.sampling,
            think=plan.thinks(settings.think),
        )
        finished: Finished | None = None
        async for answer in engine.generate(request):
            if isinstance(answer, Delta):
                out.add(answer)
            elif isinstance(answer, Finished):
                finished = answer
    finally:
        out.end()
        await engine.close()
    if finished is None or ready is None:
        return EXIT_INTERRUPTED
    speed.record(paths.machine_file(), plan, finished)
    if finished.thinking_truncated and finished.finish_reason == "length":
        _tell(t("consult.thinking_truncated"))
    local = "consult.demonstration" if plan.model.demonstration else "consult.by_model"
    _tell(t("remote.by_model" if plan.server else local))
    if as_json:
        timings = {
            "load_s": ready.load_s,
            "ttft_s": finished.timings.ttft_s,
            "decode_tok_s": finished.timings.decode_tok_s,
        }
        result = {
            "model": plan.model.name,
            "adapter": plan.adapter.name if plan.adapter else None,
            "demonstration": plan.model.demonstration,
            "profile": str(plan.profile),
            "engine": ready.engine,
            "thinking": out.thinking,
            "answer": out.answer,
            "finish_reason": finished.finish_reason,
            "thinking_truncated": finished.thinking_truncated,
            "red_flags": red_flags,
            "usage": msgspec.to_builtins(finished.usage),
            "timings": timings,
        }
        print(json.dumps(result, ensure_ascii=False))
    return EXIT_INTERRUPTED if finished.finish_reason == "cancelled" else EXIT_DONE


class Printer:
    """Reasoning dimmed on standard error, the answer on standard output, both as they come."""

    def __init__(self, *, quiet: bool) -> None:
        self.thinking = self.answer = ""
        self._quiet = quiet
        dim = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._dim, self._plain = (DIM, PLAIN) if dim else ("", "")

    def add(self, delta: Delta) -> None:
        """Print what is new."""
        if delta.reclassify:
            # What was printed as the answer cannot be taken back; the line says what it was.
            self.thinking, self.answer = self.thinking + self.answer, ""
            self._write(sys.stderr, "\n" + t("ask.reclassified") + "\n")
        if delta.thinking:
            self.thinking += delta.thinking
            self._write(sys.stderr, f"{self._dim}{clean(delta.thinking)}{self._plain}")
        if delta.answer:
            if not self.answer and self.thinking:
                self._write(sys.stderr, "\n\n")
            self.answer += delta.answer
            self._write(sys.stdout, clean(delta.answer))

    def end(self) -> None:
        """End the last line."""
        if self.answer:
            self._write(sys.stdout, "\n")
        elif self.thinking:
            self._write(sys.stderr, "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        if not self._quiet:
            print(text, end="", flush=True, file=stream)


def _tell(line: str) -> None:
    if line:
        print(line, file=sys.stderr)


def _on_interrupt(engine: EngineClient) -> None:
    """Ctrl+C keeps what has come; a second one ends everything."""
    loop, asking = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        with suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
        if engine.loaded:
            engine.cancel()
        elif asking is not None:
            asking.cancel()

    # Windows has no such handlers; there Ctrl+C raises KeyboardInterrupt.
    with suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, interrupt)
