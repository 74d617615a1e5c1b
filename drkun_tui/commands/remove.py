"""``drkun remove``: take a model out of the store, after a question."""

from __future__ import annotations

import argparse
import json
import os
import sys

from drkun_tui import paths, settings
from drkun_tui.commands.asking import agreed, can_ask
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_DONE, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.library import inventory, manage
from drkun_tui.library.manage import Removal
from drkun_tui.library.model import Model
from drkun_tui.library.plan import folders
from drkun_tui.ui.table import size
from drkun_tui.ui.typeset.sanitise import clean, one_line


def run(arguments: argparse.Namespace) -> int:
    """Remove one model."""
    own = settings.load(paths.settings_file())
    set_language(own.language)
    models = inventory.scan(folders(own))
    model = inventory.chosen(arguments.model, models)
    planned = manage.removal(model, models)
    removed = arguments.yes or _confirmed(model, planned)
    if removed:
        manage.remove(model)
    if arguments.json:
        told = {
            "name": model.name,
            "removed": removed,
            "paths": [os.fsencode(path).decode("utf8", "replace") for path in planned.paths],
            "frees_bytes": planned.frees_bytes,
            "note": planned.note,
        }
        print(json.dumps(told, ensure_ascii=False))
    else:
        key = "inventory.removed" if removed else "inventory.kept"
        print(t(key, name=one_line(model.name, 80), size=size(planned.frees_bytes)))
    return EXIT_DONE


def _confirmed(model: Model, planned: Removal) -> bool:
    """Ask on the terminal, on standard error.

    Raises:
        DrkunError: ``remove_unconfirmed``, there is nobody to ask.
    """
    if not can_ask():
        message = t("inventory.remove_unconfirmed", name=model.name)
        raise DrkunError(
            "remove_unconfirmed", message, t("inventory.remove_unconfirmed_hint"), EXIT_BAD_INPUT
        )
    for path in planned.paths:
        print(f"  {clean(str(path))}", file=sys.stderr)
    if planned.note:
        print(f"  {clean(planned.note)}", file=sys.stderr)
    name = one_line(model.name, 80)
    return agreed(t("inventory.remove_question", name=name, size=size(planned.frees_bytes)))
