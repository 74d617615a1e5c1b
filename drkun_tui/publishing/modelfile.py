"""A Modelfile for Ollama beside a GGUF or a GGUF LoRA.

Ollama renders prompts with a template of Go's and knows only some of the models' own; with any other it asks
without a template, and the answer is gibberish. So the model's template is rendered once with marks in the
place of the texts, and cut at the marks.
"""

from __future__ import annotations

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.chat_template import CHATML, ChatTemplate
from drkun_tui.engine.protocol import ChatMessage
from drkun_tui.library.provenance import Provenance

_SYSTEM, _PROMPT = "Dr-Kun-system", "Dr-Kun-question"


def write(base: str, template: str, trained: Provenance | None, *, adapter: str = "") -> str:
    """The Modelfile of a GGUF, or of a GGUF LoRA with the base that it goes on.

    Args:
        base: path of the model, a GGUF or a folder of safetensors, from the Modelfile's folder or the root.
        template: its chat template, "" for ChatML.
        trained: how it was trained to be asked.
        adapter: path of the GGUF LoRA, or "".
    """
    prompt = trained.prompt if trained else None
    think = prompt is None or prompt.thinking_tags is not None
    rendered = ChatTemplate(template or CHATML)
    lines = [f"FROM {base}", *([f"ADAPTER {adapter}"] if adapter else [])]
    if text := _go_template(rendered, think=think):
        lines.append(f'TEMPLATE """{text}"""')
    if (stop := rendered.between_turns().partition("\n")[0].strip()) and '"' not in stop:
        lines.append(f'PARAMETER stop "{stop}"')
    if prompt is not None and prompt.system and '"""' not in prompt.system:
        lines.append(f'SYSTEM """{prompt.system}"""')
    return "\n".join(lines) + "\n"


def _go_template(template: ChatTemplate, *, think: bool) -> str:
    """The template in Go's language, for one question after another; "" where it cannot be said so."""
    user = ChatMessage("user", _PROMPT)
    try:
        alone = template.render([user], think=think)
    except EngineError:
        return ""
    try:
        told = template.render([ChatMessage("system", _SYSTEM), user], think=think)
    except EngineError:
        told = ""  # some refuse a system text
    if "{{" in alone + told or '"""' in alone + told or alone.count(_PROMPT) != 1:
        return ""
    end = template.between_turns().removesuffix(alone.partition(_PROMPT)[0])
    asked = alone.replace(_PROMPT, "{{ .Prompt }}")
    if told.count(_SYSTEM) == told.count(_PROMPT) == 1:
        with_system = told.replace(_SYSTEM, "{{ .System }}").replace(_PROMPT, "{{ .Prompt }}")
        asked = f"{{{{ if .System }}}}{with_system}{{{{ else }}}}{asked}{{{{ end }}}}"
    return f"{asked}{{{{ .Response }}}}{end}"
