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

SIKAO = (
    "{{ bos_token }}以下是描述任务的指令，以及提供更多上下文的输入。\n"
    "请写出恰当完成该请求的回答。\n"
    "在回答之前，请仔细思考问题，并创建一个逐步的思维链，以确保回答合乎逻辑且准确。\n\n"
    "### 指令：\n{% for m in messages if m.role == 'system' %}{{ m.content }}"
    "{% else %}你是一位精通临床推理、诊断和治疗计划的医学专家。请回答以下医学问题。{% endfor %}\n"
    "{% for m in messages if m.role != 'system' %}"
    "{% if m.role == 'user' %}\n### 问题：\n{{ m.content }}\n\n### 回答：\n"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<思考>\n{% if not enable_thinking %}\n</思考>\n\n{% endif %}"
    "{% endif %}"
)
"""A text with headings and ``<思考>``, for adapters that were trained on such a text."""

NAMED = {"sikao": SIKAO}
"""Templates that an adapter's ``drkun.json`` may name."""

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
