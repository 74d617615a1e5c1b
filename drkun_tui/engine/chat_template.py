"""A model's own chat template, rendered in a sandbox.

A template is code from a stranger: it runs in Jinja's immutable sandbox, with the few functions that
Hugging Face's templates expect and nothing else.
"""

from __future__ import annotations

import datetime
import json
import os.path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.protocol import ChatMessage, Partial
from drkun_tui.engine.thinking import SPELLINGS, Start, opened_by, start_state

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For files that bring no template."""

_SENTINEL = "Dr-Kun-was-here"

_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What parsing or rendering a stranger's template can raise."""


class _Generation(Extension):
    """Hugging Face's ``{% generation %}`` marks what is trained on; here its body stands as it is."""

    tags = {"generation"}  # noqa: RUF012  # as the base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Renders conversations to prompts.

    Args:
        source: Jinja text.
        bos: text of the beginning-of-sequence token, or "".
        eos: text of the end-of-sequence token, or "".

    Raises:
        EngineError: ``template_broken``, the source does not parse.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except _FAULTS as error:
            raise EngineError("template_broken", reason=_reason(error)) from error
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self.can_toggle_thinking = "enable_thinking" in source

    def render(self, messages: list[ChatMessage], *, think: bool) -> str:
        """The prompt that asks for the next assistant message.

        Raises:
            EngineError: ``template_refused``, the template raised on this conversation.
        """
        return self._render(messages, think=think, add_generation_prompt=True)

    def history(self, messages: list[ChatMessage], *, think: bool) -> str:
        """What every later prompt will begin with once `messages` are the past.

        A template may render the last answer otherwise than the ones before it, so two prompts with
        different next questions are rendered and their common beginning is taken.
        """
        one, other = (
            self._render([*messages, ChatMessage("user", text)], think=think, add_generation_prompt=False)
            for text in ("1", "2")
        )
        # Character by character is what is wanted here.
        return os.path.commonprefix([one, other])  # noqa: RUF071

    def between_turns(self) -> str:
        """What stands between the end of an answer and the next question's text."""
        try:
            text = self._render(
                [
                    ChatMessage("user", "1"),
                    ChatMessage("assistant", _SENTINEL),
                    ChatMessage("user", _SENTINEL),
                ],
                think=True,
                add_generation_prompt=False,
            )
        except EngineError:
            return ""
        parts = text.split(_SENTINEL)
        return parts[1] if len(parts) > 2 else ""

    def _render(self, messages: list[ChatMessage], *, think: bool, add_generation_prompt: bool) -> str:
        try:
            return self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=add_generation_prompt,
                enable_thinking=think,
                **self._tokens,
            )
        except _FAULTS as error:
            raise EngineError("template_refused", reason=_reason(error)) from error


def carry_on(prompt: str, partial: Partial | None) -> str:
    """The raw text of a partial answer, as the model would have written it after `prompt`."""
    if partial is None:
        return ""
    start = start_state(prompt)
    if start is Start.CLOSED or (start is Start.FRESH and not partial.thinking):
        return partial.answer
    spelling = opened_by(prompt) or SPELLINGS[0]
    opened = "" if start is Start.OPEN else f"{spelling.open}\n"
    closed = f"\n{spelling.close}\n\n{partial.answer}" if partial.answer else ""
    return opened + partial.thinking + closed


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _reason(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    text = " ".join(str(error).split())[:200]
    return f"line {line}: {text}" if line else text
