"""``drkun inspect``: what one model's files say, from disk alone."""

from __future__ import annotations

import argparse
import json

from drkun_tui import hardware, paths, settings
from drkun_tui.errors import EXIT_DONE, EXIT_NO_MODEL
from drkun_tui.i18n import set_language
from drkun_tui.library import adapters, inspection, inventory
from drkun_tui.library.fit import Wish
from drkun_tui.library.plan import folders
from drkun_tui.ui.typeset.sanitise import clean


def run(arguments: argparse.Namespace) -> int:
    """Show one model; the exit code says whether it is whole."""
    own = settings.load(paths.settings_file())
    set_language(own.language)
    where = folders(own)
    found = inventory.find(arguments.model, where)
    base = adapters.base_for(found, inventory.scan(where)) if found.is_adapter else None
    model = inspection.details(found)
    wish = Wish(own.context_length, own.kv_cache)
    facts = model.as_dict(hardware.read(), wish, base)
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        # Shown below by itself, with its line breaks.
        facts["metadata"].pop("tokenizer.chat_template", None)
        for name, value in facts.items():
            _show(name, value)
    return EXIT_DONE if model.complete else EXIT_NO_MODEL


def _show(name: str, value: object, indent: str = "") -> None:
    if isinstance(value, dict):
        print(f"{indent}{clean(name)}")
        for key, inner in value.items():
            _show(str(key), inner, indent + "  ")
    elif isinstance(value, list):
        print(f"{indent}{clean(name):18}  {clean('; '.join(map(str, value)))}")
    else:
        text = clean("" if value is None else str(value))
        if "\n" in text:
            text = "\n" + "\n".join(f"{indent}    {line}" for line in text.splitlines())
        print(f"{indent}{clean(name):18}  {text}")
