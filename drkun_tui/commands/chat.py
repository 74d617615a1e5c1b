"""``drkun``: the chat screen."""

from __future__ import annotations

import argparse
import gc
import os
import sys

from drkun_tui import paths
from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.settings import Settings, load


def run(arguments: argparse.Namespace) -> int:
    """Open the chat screen on the terminal."""
    # Textual paints on standard error.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise DrkunError("no_terminal", t("chat.no_terminal"), t("chat.no_terminal_hint"), EXIT_BAD_INPUT)
    path, notice = paths.settings_file(), None
    try:
        settings = load(path)
    except DrkunError as error:
        # A wrong file is shown, not overwritten: this session's changes are not kept.
        settings, notice = Settings(), DrkunError(error.kind, error.message, t("chat.defaults"))
    set_language(settings.language)
    # Nothing made before the first frame is garbage; collecting it would only delay that frame.
    gc.disable()
    # Textual waits this long after Escape for the rest of a key sequence; over SSH 0.1 s is enough.
    os.environ.setdefault("ESCDELAY", "50")
    from drkun_tui.app import run as run_app

    return run_app(settings, None if notice else path, notice, debug=arguments.debug)
