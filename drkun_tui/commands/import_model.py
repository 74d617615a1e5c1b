"""``drkun import``: bring a model that lies elsewhere into the store."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from drkun_tui import hardware, paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library.fit import Wish
from drkun_tui.library.manage import Mode, import_model
from drkun_tui.ui.typeset.sanitise import one_line


def run(arguments: argparse.Namespace) -> int:
    """Import one model; by default as a link, which costs no space and leaves the source as it is."""
    own = settings.load(paths.settings_file())
    set_language(own.language)
    mode = Mode(arguments.mode or Mode.LINK)
    model = import_model(Path(arguments.path), mode, arguments.name)
    if arguments.json:
        told = model.as_dict(hardware.read(), wish=Wish(own.context_length, own.kv_cache))
        print(json.dumps({"mode": mode.value} | told, ensure_ascii=False))
    else:
        print(t(f"inventory.imported_{mode.value}", name=one_line(model.name, 80)))
    return EXIT_DONE
