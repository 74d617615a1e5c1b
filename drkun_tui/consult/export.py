"""A conversation as a file for others to read: Markdown for people, JSON for programs."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import tempfile
import time
from pathlib import Path

from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t

FORMAT = "drkun-conversation"
VERSION = 1

# Terminal escapes and direction overrides: a file that is shown with `cat` is a terminal, too.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def to_markdown(conversation: Conversation) -> str:
    """The conversation as Markdown. Every answer names the model that wrote it."""
    parts = [f"# {_line(conversation.title) or t('export.untitled')}", t("export.notice")]
    if conversation.system.strip():
        parts += [f"**{t('export.system')}**", _quoted(conversation.system)]
    for turn in conversation.turns:
        parts += _turn(turn)
    return "\n\n".join(parts) + "\n"


def to_json(conversation: Conversation) -> str:
    """The conversation as one JSON object, nothing left out."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "notice": t("export.notice"),
        **dataclasses.asdict(conversation),
    }
    return json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n"


def write(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all. The file is for its owner's eyes.

    Raises:
        DrkunError: ``export_failed``; what was at `path` before is still there.
    """
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        reason = t("export.full") if error.errno == errno.ENOSPC else os.strerror(error.errno or 0)
        message = t("export.failed", path=path, reason=reason)
        raise DrkunError("export_failed", message, t("export.failed_hint")) from error


def _turn(turn: Turn) -> list[str]:
    asked = time.strftime("%Y-%m-%d %H:%M", time.localtime(turn.created_at))
    parts = ["---", f"**{t('export.question')}** · {asked}", _quoted(turn.question)]
    if turn.dropped_turns:
        parts.append(f"*{t('export.dropped', count=turn.dropped_turns)}*")
    if turn.reasoning.strip():
        parts += [
            f"<details>\n<summary>{t('export.reasoning')}</summary>",
            _contained(turn.reasoning),
            "</details>",
        ]
    model = " + ".join(_line(name) for name in (turn.model, turn.adapter) if name)
    parts.append(f"**{t('export.answer', model=model or t('export.unknown_model'))}**")
    if turn.demonstration:
        parts.append(f"*{t('export.demonstration')}*")
    if turn.answer.strip():
        parts.append(_contained(turn.answer))
    if turn.state is not State.DONE:
        parts.append(f"*{t(f'export.state_{turn.state}')}*")
    return parts


def _line(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown would act on."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(_UNPRINTABLE.sub("", text).split()))


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in _contained(text).split("\n"))


def _contained(text: str) -> str:
    """Markdown of a model or a person that cannot act on what surrounds it.

    HTML tags become text, and a code block that was cut off is closed: it would swallow all that follows.
    """
    # Imported late: JSON and everything but an export do without.
    from markdown_it import MarkdownIt

    text = _TAG.sub("&lt;", _UNPRINTABLE.sub("", text.replace("\r\n", "\n")).strip("\n"))
    last = MarkdownIt("commonmark").parse(f"{text}\n\nnext")[-1]
    return f"{text}\n{last.markup}" if last.type == "fence" else text
