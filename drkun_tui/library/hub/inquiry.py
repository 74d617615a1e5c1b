"""One question to a hub: ``python -m drkun_tui.library.hub.inquiry``, a line in, a line out."""

from __future__ import annotations

import os
import re
import sys
import threading
import traceback

from drkun_tui.library.hub.base import MAX_CARD, Hub, HubError
from drkun_tui.library.hub.hubs import connect
from drkun_tui.library.hub.names import check_repo
from drkun_tui.library.hub.protocol import (
    Answer,
    Card,
    Failed,
    Limits,
    ListFiles,
    Question,
    ReadCard,
    Results,
    Search,
    decode_question,
    encode,
)
from drkun_tui.library.hub.retry import Backoff

LIMITS = Limits(tries=2, connect_s=5, stall_s=15, most_backoff_s=5)
"""Somebody waits in front of the screen."""

MODELSCOPE = {
    "MODELSCOPE_API_CONNECT_TIMEOUT": "5",
    "MODELSCOPE_API_TIMEOUT": "15",
    "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
}
"""The same for ModelScope's client, which reads it on import, and by itself lists for half a minute."""

_METADATA = re.compile(r"\A\ufeff?---\r?\n.*?\n---\r?\n", re.DOTALL)


def main() -> None:
    """Answer the one question that comes on standard input."""
    question = decode_question(sys.stdin.buffer.readline())
    secret = ""
    answer: Answer
    try:
        for name, value in MODELSCOPE.items():
            os.environ.setdefault(name, value)
        hub = connect(question.hub, LIMITS)
        secret = hub.token
        backoff = Backoff(LIMITS, threading.Event().wait, lambda *_: None)
        answer = backoff.persist(lambda: _answer(hub, question))
    except HubError as error:
        answer = Failed(error.kind, error.values)
    except Exception as error:
        text = traceback.format_exc()
        sys.stderr.write(text.replace(secret, "***") if secret else text)
        answer = Failed("internal", {"reason": type(error).__name__})
    sys.stdout.buffer.write(encode(answer) + b"\n")


def _answer(hub: Hub, question: Question) -> Answer:
    if isinstance(question, Search):
        return Results(hub.search(question.query, question.filters, question.limit))
    check_repo(question.repo)
    if isinstance(question, ListFiles):
        return hub.files(question.repo, question.revision)
    return _card(hub, question)


def _card(hub: Hub, question: ReadCard) -> Card:
    from drkun_tui.library.hub.transfer import Transfer

    transfer = Transfer(hub, question.repo, question.revision, LIMITS, lambda: False)
    text = transfer.beginning("README.md", MAX_CARD).decode("utf8", "replace")
    return Card(_METADATA.sub("", text))


if __name__ == "__main__":
    main()
