"""Takes the picture of the evaluation screen: ``python scripts/picture_evaluation.py``.

All of it is real: the bundled model learns from the dialogues that come with the program, once through,
and answers what was held out before and after. Takes some minutes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import Any

import msgspec
from picture import PICTURES, repaired, until

SIZE = (132, 40)
EPOCHS = 1
PATIENCE_S = 1800.0


async def take() -> str:
    """Train, evaluate, compare in the real application, and return the repaired picture."""
    from drkun_tui import i18n
    from drkun_tui.app import DrkunApp
    from drkun_tui.evaluation.evaluations import Evaluations
    from drkun_tui.evaluation.protocol import Order
    from drkun_tui.i18n import t
    from drkun_tui.settings import Settings
    from drkun_tui.training import preflight, recipe
    from drkun_tui.training.runs import Runs
    from drkun_tui.ui.widgets.line_view import LineView

    i18n.set_language("zh")
    settings = Settings(language="zh", model="drkun/starter-bf16")
    found = preflight.check(recipe.parse(f'preset = "starter-cpu"\n[training]\nepochs = {EPOCHS}'), settings)
    runs, evaluations = Runs(), Evaluations()
    run = await _through(runs, await runs.start(found.recipe))
    plain = Order(suite=run.id, is_run=True, settings=settings)
    before = await _through(evaluations, await evaluations.start(plain))
    tuned = msgspec.structs.replace(settings, adapter=found.recipe.adapter.name)
    order = msgspec.structs.replace(plain, against=before.id, settings=tuned)
    await _through(evaluations, await evaluations.start(order))
    app = DrkunApp(settings)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("f3")
        await pilot.pause(2)
        await pilot.press("l")
        shown = app.screen.query_one("#evaluation", LineView)

        def compared() -> bool:
            text = "".join(span.text for line in shown.lines for span in line)
            return "McNemar" in text and t("evaluation_screen.comparing") not in text

        await until(pilot, compared)
        return repaired(app.export_screenshot(simplify=True))


async def _through(roster: Any, job: Any) -> Any:
    """Wait until a run or an evaluation is done; it does not outlive a failure of this script."""
    try:
        while job.running:
            await asyncio.sleep(0.5)
            job = await roster.get(job.id)
    finally:
        if job.running:
            await roster.stop(job.id)
    if job.phase != "done":
        raise job.error or RuntimeError(job.phase)
    return job


def main() -> None:
    """Take the picture and write it."""
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory(prefix="drkun-") as home:
        os.environ["DRKUN_HOME"] = home
        svg = asyncio.run(asyncio.wait_for(take(), PATIENCE_S))
    (PICTURES / "evaluation.svg").write_text(svg, encoding="utf8")
    print(f"{PICTURES / 'evaluation.svg'}  {len(svg.encode()):,} bytes")


if __name__ == "__main__":
    main()
