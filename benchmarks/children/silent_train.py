"""A training run that tells nothing of its steps: what telling costs is the difference.

Run as ``python -m benchmarks.children.silent_train RUN_FOLDER``. Prints one JSON object, the tokens a second
behind the first steps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from drkun_tui import settings as all_settings
from drkun_tui.jobs.detached import Reporter
from drkun_tui.training import recipe as recipes
from drkun_tui.training import sft
from drkun_tui.training.job import Teller
from drkun_tui.training.runs import RECIPE

WARM_UP = 5
"""Steps that are not counted."""


def main() -> None:
    """Train, print."""
    folder = Path(sys.argv[1])
    recipe = recipes.load(folder / RECIPE)
    if sft._backend(recipe)[0] == "unsloth":
        import unsloth  # noqa: F401
    from drkun_tui.training import trainer as ours

    made: list[Any] = []
    began = [0.0, 0]

    def silenced(*arguments: Any, **options: Any) -> Any:
        trainer = built(*arguments, **options)
        trainer.args.logging_steps = 10**9
        made.append(trainer)
        return trainer

    def on_step_end(*arguments: Any, **_: Any) -> None:
        import torch

        state = arguments[2]
        if state.global_step in (WARM_UP, state.max_steps):
            torch.cuda.synchronize()
            trainer, now = made[0], time.perf_counter()
            if state.global_step == state.max_steps:
                rate = (trainer.seen - began[1]) / (now - began[0])
                print(json.dumps({"tok_s": rate}), flush=True)
            began[:] = [now, trainer.seen]

    built, ours.build = ours.build, silenced
    ours._Telling.on_step_end = on_step_end  # type: ignore[method-assign]
    sft.train(recipe, all_settings.Settings(), folder, Teller(Reporter(folder)))


if __name__ == "__main__":
    main()
