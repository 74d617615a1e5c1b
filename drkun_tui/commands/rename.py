"""``drkun rename``: give a model a name of one's own."""

from __future__ import annotations

import argparse
import json

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library import aliases, inventory
from drkun_tui.library.plan import folders
from drkun_tui.ui.typeset.sanitise import one_line


def run(arguments: argparse.Namespace) -> int:
    """Rename one model; its files stay as they are."""
    own = settings.load(paths.settings_file())
    set_language(own.language)
    models = inventory.scan(folders(own))
    model = inventory.chosen(arguments.model, models)
    name = aliases.rename(model, arguments.alias, models)
    if arguments.json:
        print(json.dumps({"name": name, "disk_name": model.disk_name}, ensure_ascii=False))
    else:
        print(t("inventory.renamed", old=one_line(model.name, 80), new=one_line(name, 80)))
    return EXIT_DONE
