"""Prompts from a model's own template: rendered as it says, and without what it must not do."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.chat_template import CHATML, ChatTemplate, carry_on
from drkun_tui.engine.protocol import ChatMessage, Partial
from drkun_tui.engine.thinking import Spelling, Start, opened_by, split, start_state
from drkun_tui.library.gguf import read
from drkun_tui.paths import starter
from tests.conftest import user

QWEN3 = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "<|im_end|>\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string
        and not(message.content.startswith('<tool_response>')
        and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n')
                    .split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n')
                    + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""

DEEPSEEK_R1 = r"""
{%- if not add_generation_prompt is defined -%}{%- set add_generation_prompt = false -%}{%- endif -%}
{%- set ns = namespace(is_first=false, system_prompt='') -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}{%- set ns.system_prompt = message['content'] -%}{%- endif -%}
{%- endfor -%}
{{- bos_token -}}{{- ns.system_prompt -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}{{- '<｜User｜>' + message['content'] -}}{%- endif -%}
    {%- if message['role'] == 'assistant' and message['content'] is not none -%}
        {%- set content = message['content'] -%}
        {%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}
        {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜><think>\n' -}}{%- endif -%}
"""

MISTRAL = r"""
{{- bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + message['content'] + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token }}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported!') }}
    {%- endif %}
{%- endfor %}
"""

TEMPLATES = {
    "qwen3": ChatTemplate(QWEN3),
    "deepseek-r1": ChatTemplate(DEEPSEEK_R1, bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>"),
    "mistral": ChatTemplate(MISTRAL, bos="<s>", eos="</s>"),
    "chatml": ChatTemplate(CHATML),
    "starter": ChatTemplate(read(starter()).chat_template or ""),
}

SYSTEM = ChatMessage("system", "你是医生。")


def refusal(source: str, messages: list[ChatMessage] | None = None) -> EngineError:
    """What comes of parsing `source` and rendering a question with it."""
    with pytest.raises(EngineError) as raised:
        ChatTemplate(source).render(messages or user("头晕"), think=True)
    return raised.value


# Rendering


def test_the_prompt_of_a_question() -> None:
    prompts = {name: template.render(user("头晕"), think=True) for name, template in TEMPLATES.items()}
    chatml = "<|im_start|>user\n头晕<|im_end|>\n<|im_start|>assistant\n"
    assert prompts == {
        "qwen3": chatml,
        "chatml": chatml,
        "starter": chatml,
        "deepseek-r1": "<｜begin▁of▁sentence｜><｜User｜>头晕<｜Assistant｜><think>\n",
        "mistral": "<s>[INST] 头晕 [/INST]",
    }


def test_the_prompt_of_a_second_question() -> None:
    messages = [SYSTEM, *user("头晕", "测血压。", "然后呢？")]
    assert TEMPLATES["qwen3"].render(messages, think=True) == (
        "<|im_start|>system\n你是医生。<|im_end|>\n<|im_start|>user\n头晕<|im_end|>\n"
        "<|im_start|>assistant\n测血压。<|im_end|>\n<|im_start|>user\n然后呢？<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert TEMPLATES["deepseek-r1"].render(messages, think=True) == (
        "<｜begin▁of▁sentence｜>你是医生。<｜User｜>头晕<｜Assistant｜>测血压。<｜end▁of▁sentence｜>"
        "<｜User｜>然后呢？<｜Assistant｜><think>\n"
    )


@pytest.mark.parametrize("name", ["qwen3", "starter"])
def test_thinking_can_be_turned_off(name: str) -> None:
    template = TEMPLATES[name]
    assert template.can_toggle_thinking
    thinking, direct = (template.render(user("头晕"), think=think) for think in (True, False))
    assert direct == thinking + "<think>\n\n</think>\n\n"
    assert (start_state(thinking), start_state(direct)) == (Start.FRESH, Start.CLOSED)


def test_a_template_without_the_switch_says_so() -> None:
    template = TEMPLATES["deepseek-r1"]
    assert not template.can_toggle_thinking
    prompt = template.render(user("头晕"), think=False)
    assert start_state(prompt) is Start.OPEN
    assert opened_by(prompt) == Spelling("<think>", "</think>")


def test_tojson_escapes_nothing_for_html() -> None:
    template = ChatTemplate("{{ messages[0] | tojson }}|{{ [1] | tojson(indent=2) }}")
    first, second = template.render(user("血压<140 & '头晕'"), think=True).split("|")
    assert first == '{"role": "user", "content": "血压<140 & \'头晕\'"}'
    assert second == json.dumps([1], indent=2)


def test_what_hugging_face_templates_use() -> None:
    source = (
        "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
        "{% generation %}{{ bos_token }}{% endgeneration %} {{ strftime_now('%Y') }}"
    )
    rendered = ChatTemplate(source, bos="<s>").render(user("a", "b", "c"), think=True)
    assert re.fullmatch(r"a<s> \d{4}", rendered)


def test_blocks_leave_no_lines_behind() -> None:
    """Hugging Face renders with trim_blocks and lstrip_blocks; the model was trained on that."""
    source = "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n"
    assert ChatTemplate(source).render(user("a"), think=True) == "a\n"


def test_text_of_a_message_is_never_a_template() -> None:
    assert "{{ 7 * 7 }}" in TEMPLATES["qwen3"].render(user("{{ 7 * 7 }}{% for %}"), think=True)


# What a template must not do


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ (messages | attr('__class__')).mro() }}",
        "{{ '{0.__class__.__mro__}'.format(messages)[1] + 1 }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    assert refusal(source).kind == "template_refused"


@pytest.mark.parametrize("name", ["''|attr('__class__')", "raise_exception.__globals__"])
def test_unsafe_attributes_read_as_nothing(name: str) -> None:
    assert ChatTemplate(f"{{{{ {name} }}}}").render(user("头晕"), think=True) == ""


def test_the_clock_is_all_that_strftime_now_gives() -> None:
    assert refusal("{{ strftime_now.__closure__[0] }}").kind == "template_refused"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[7].content + 1 }}",
        "{{ 1 / 0 }}",
        "{{ messages + 1 }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ messages[0].content * 10 ** 15 }}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{{ strftime_now(3) }}",
        "{{ raise_exception('不支持') }}",
    ],
)
def test_a_template_that_fails_on_a_conversation_is_refused(source: str) -> None:
    assert refusal(source).kind == "template_refused"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 if }}",
        "{% if %}",
        "{% for m in messages %}",
        "{% unknown %}",
        "{{",
        "{{ 'never closed }}",
        "{% for a in [1] %}" * 40 + "{% endfor %}" * 40,
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{{ " + "9" * 5000 + " }}",
    ],
)
def test_a_template_that_does_not_parse_is_broken(source: str) -> None:
    error = refusal(source)
    assert error.kind == "template_broken"
    assert "\n" not in str(error.values["reason"])
    assert len(str(error.values["reason"])) < 300


def test_the_line_of_a_mistake_is_named() -> None:
    assert str(refusal("a\nb\n{{ 1 if }}").values["reason"]).startswith("line 3: ")


def test_a_templates_own_refusal_is_passed_on() -> None:
    error = refusal(MISTRAL, [SYSTEM, *user("头晕")])
    assert (error.kind, error.values) == (
        "template_refused",
        {"reason": "Conversation roles must alternate user/assistant/user/assistant/..."},
    )


# What later prompts begin with


@pytest.mark.parametrize("name", TEMPLATES)
@given(
    texts=st.lists(st.text("头晕a1 \n<>", min_size=1, max_size=12), min_size=2, max_size=6),
    system=st.booleans(),
    think=st.booleans(),
)
def test_history_begins_every_later_prompt(name: str, texts: list[str], system: bool, think: bool) -> None:
    template = TEMPLATES[name]
    past = user(*texts[: len(texts) // 2 * 2])
    if system and name != "mistral":
        past = [SYSTEM, *past]
    history = template.history(past, think=think)
    for question in ("还要做什么检查？", "1", "\n", "<think>"):
        assert template.render([*past, ChatMessage("user", question)], think=think).startswith(history)
    assert past[-1].content.strip("\n") in history


def test_history_leaves_the_last_answers_empty_thinking_out() -> None:
    """Qwen3 writes a thinking block into the answer that is last, and takes it away once it no longer is."""
    template = TEMPLATES["qwen3"]
    past = user("头晕", "测血压。")
    as_last = template._render(past, think=True, add_generation_prompt=False)
    assert "<think>" in as_last
    history = template.history(past, think=True)
    assert "<think>" not in history
    assert history.endswith("<|im_start|>assistant\n测血压。<|im_end|>\n<|im_start|>user\n")


@pytest.mark.parametrize(
    ("name", "between"),
    [
        ("qwen3", "<|im_end|>\n<|im_start|>user\n"),
        ("deepseek-r1", "<｜end▁of▁sentence｜><｜User｜>"),
        ("mistral", "</s>[INST] "),
    ],
)
def test_what_stands_between_turns(name: str, between: str) -> None:
    assert TEMPLATES[name].between_turns() == between


@pytest.mark.parametrize("source", ["{{ messages[0].content }}", "{{ raise_exception('no') }}"])
def test_nothing_is_known_of_turns_that_a_template_does_not_show(source: str) -> None:
    assert ChatTemplate(source).between_turns() == ""


# Carrying on


FRESH, OPEN, CLOSED = "assistant\n", "assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("prompt", "partial", "carried"),
    [
        (FRESH, None, ""),
        (FRESH, Partial("", ""), ""),
        (FRESH, Partial("患者", ""), "<think>\n患者"),
        (FRESH, Partial("患者", "您好"), "<think>\n患者\n</think>\n\n您好"),
        (FRESH, Partial("", "您好"), "您好"),
        (OPEN, Partial("", ""), ""),
        (OPEN, Partial("患者", ""), "患者"),
        (OPEN, Partial("患者", "您好"), "患者\n</think>\n\n您好"),
        (OPEN, Partial("", "您好"), "\n</think>\n\n您好"),
        (CLOSED, Partial("", "您好"), "您好"),
        (CLOSED, Partial("还是想了", "您好"), "您好"),
        ("assistant\n<思考>\n", Partial("患者", "您好"), "患者\n</思考>\n\n您好"),
        ("## Thinking\n", Partial("Pain.", "Rest"), "Pain.\n## Final Response\n\nRest"),
    ],
)
def test_a_partial_answer_as_the_model_wrote_it(prompt: str, partial: Partial | None, carried: str) -> None:
    assert carry_on(prompt, partial) == carried


PIECES = st.text("患者头晕，。\n ", max_size=12)


@given(
    prompt=st.sampled_from([FRESH, OPEN, CLOSED, "<思考>\n", "## Thinking\n"]), thinking=PIECES, answer=PIECES
)
def test_what_is_carried_on_splits_into_what_it_was(prompt: str, thinking: str, answer: str) -> None:
    thinking, answer = thinking.strip(), answer.lstrip()
    start = start_state(prompt)
    found = split(carry_on(prompt, Partial(thinking, answer)), start, opened_by(prompt))
    assert found.answer == answer
    assert found.thinking == ("" if start is Start.CLOSED else thinking)
