"""Fine-tune by a recipe, in this process: the step "train" of the tutorials as a file.

    python scripts/train_sft.py RECIPE.toml | PRESET | RUN_FOLDER

A run's folder goes on from its newest checkpoint. Over several GPUs: ``accelerate launch scripts/train_sft.py
RUN_FOLDER``, with a run that ``drkun train --detach`` has made and ``drkun stop`` has stopped, so that all
processes share its folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from drkun_tui import paths, settings
from drkun_tui.commands.train import Shown, read, unfinished
from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import set_language
from drkun_tui.jobs.detached import RUNS_ALREADY
from drkun_tui.training import job, ranks
from drkun_tui.training.preflight import check
from drkun_tui.training.protocol import Event
from drkun_tui.training.runs import RECIPE, Runs, error_of
from drkun_tui.ui.typeset.sanitise import clean


def main() -> int:
    """Train; the exit code is 0 when the adapter is there, or when it has stopped because it was asked to."""
    folder = Path(sys.argv[-1])
    made = (folder / RECIPE).exists()
    if len(sys.argv) != 2 or (ranks.world() > 1 and not made):
        print(__doc__, file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        chosen = settings.load(paths.settings_file())
        set_language(chosen.language)
        if not made:
            folder = Runs().make(check(read(sys.argv[1]), chosen).recipe)
    except DrkunError as error:
        _tell(error)
        return error.exit_code
    shown = Shown(as_json=False)

    def show(event: Event) -> None:
        shown.add(event)
        if (error := unfinished(event, folder.name)) is not None:
            shown.end()
            _tell(error)

    code = job.run(folder, show)
    if code == RUNS_ALREADY:
        _tell(error_of("runs_still", {"id": folder.name}))
    return code


def _tell(error: DrkunError) -> None:
    print(f"drkun: {clean(error.message)}  {clean(error.hint)}".rstrip(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
