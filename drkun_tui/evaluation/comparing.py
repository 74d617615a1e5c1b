"""The comparison of two evaluations, for who loads no numerics:
``python -m drkun_tui.evaluation.comparing ROOT BEFORE AFTER`` writes one line."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE, DrkunError
from drkun_tui.evaluation.comparison import compare
from drkun_tui.evaluation.evaluations import Evaluations
from drkun_tui.evaluation.protocol import Compared, encode_compared
from drkun_tui.i18n import set_language
from drkun_tui.library.kinds import retold


def main(root: str, before: str, after: str) -> int:
    """Compare, and tell; the exit code."""
    set_language(settings.load(paths.settings_file()).language)
    evaluations = Evaluations(Path(root))
    told = Compared()
    try:
        one, other = (asyncio.run(evaluations.get(id)) for id in (before, after))
        told = Compared(differences=compare(evaluations, one, other))
    except DrkunError as error:
        values = retold(error)
        told = Compared(kind=error.kind, values=values)
    sys.stdout.buffer.write(encode_compared(told) + b"\n")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
