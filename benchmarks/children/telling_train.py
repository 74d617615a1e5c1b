"""A training run that tells of its steps in every other block of steps: what telling costs is the difference.

Run as ``python -m benchmarks.children.telling_train RUN_FOLDER``. Prints one JSON object: tokens a second of
the blocks in which it told, and of those in which it did not. One process, so that both are equally warm.
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

WARM_UP, BLOCK, BLOCKS = 10, 10, 16
"""Steps that are not counted, steps in a block, blocks of both kinds together."""

STEPS = WARM_UP + BLOCK * BLOCKS


def main() -> None:
    """Train, print."""
    folder = Path(sys.argv[1])
    recipe = recipes.load(folder / RECIPE)
    if sft._backend(recipe)[0] == "unsloth":
        import unsloth  # noqa: F401
    from drkun_tui.training import trainer as ours
    from drkun_tui.training.callback import RunCallback

    made: list[Any] = []
    began = [0.0, 0]
    tokens, seconds = [0, 0], [0.0, 0.0]

    def build(*arguments: Any, **options: Any) -> Any:
        made.append(built(*arguments, **options))
        return made[0]

    def on_step_end(*arguments: Any, **_: Any) -> None:
        import torch

        state = arguments[2]
        block, within = divmod(state.global_step - WARM_UP, BLOCK)
        if within or block < 0:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now, seen = time.perf_counter(), made[0].seen
        if block:
            kind = (block - 1) % 2
            tokens[kind] += seen - began[1]
            seconds[kind] += now - began[0]
        # The trainer's own word for how often it tells.
        state.logging_steps = 1 if block % 2 == 0 else 10**9
        began[:] = [now, seen]
        if block == BLOCKS:
            told, silent = (amount / took for amount, took in zip(tokens, seconds, strict=True))
            print(json.dumps({"told_tok_s": told, "silent_tok_s": silent}), flush=True)

    built, ours.build = ours.build, build
    RunCallback.on_step_end = on_step_end  # type: ignore[method-assign]
    sft.train(recipe, all_settings.Settings(), folder, Teller(Reporter(folder)))


if __name__ == "__main__":
    main()
