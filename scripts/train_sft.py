"""Fine-tune by a recipe, in this process: the step "train" of the tutorials as a file.

    python scripts/train_sft.py RECIPE.toml | PRESET | RUN_FOLDER

Over several GPUs: ``accelerate launch scripts/train_sft.py RUN_FOLDER``, with a run that ``drkun train
--detach`` has made and ``drkun stop`` has stopped, so that all processes share its folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from drkun_tui import paths, settings
from drkun_tui.commands.train import Shown, read
from drkun_tui.errors import DrkunError
from drkun_tui.training import job
from drkun_tui.training.preflight import check
from drkun_tui.training.runs import RECIPE, Runs


def main() -> int:
    """Train; the exit code is 0 when the adapter is there."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        folder = Path(sys.argv[1])
        if not (folder / RECIPE).exists():
            folder = Runs().make(check(read(sys.argv[1]), settings.load(paths.settings_file())).recipe)
    except DrkunError as error:
        print(f"{error.message}  {error.hint}", file=sys.stderr)
        return error.exit_code
    return job.run(folder, Shown(as_json=False).add)


if __name__ == "__main__":
    sys.exit(main())
