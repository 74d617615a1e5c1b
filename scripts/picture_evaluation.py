"""Takes the picture of the evaluation screen: ``python scripts/picture_evaluation.py``.

All of it is real: the bundled model learns from the dialogues that come with the program, once through,
and answers what was held out before and after. Takes some minutes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import TYPE_CHECKING

import msgspec
from picture import PICTURES, repaired

if TYPE_CHECKING:
    from drkun_tui.evaluation.evaluations import Evaluations
    from drkun_tui.evaluation.protocol import Order

SIZE = (132, 40)
EPOCHS = 1
PATIENCE_S = 1800.0


async def take() -> str:
    """Train, evaluate, compare in the real application, and return the repaired picture."""
    from drkun_tui import i18n
    from drkun_tui.app import DrkunApp
    from drkun_tui.evaluation.evaluations import Evaluations
    from drkun_tui.evaluation.protocol import Order
    from drkun_tui.settings import Settings
    from drkun_tui.training import preflight, recipe
    from drkun_tui.training.runs import Runs, adapter_name

    i18n.set_language("zh")
    settings = Settings(language="zh", model="drkun/starter-bf16")
    found = preflight.check(recipe.parse(f'preset = "starter-cpu"\n[training]\nepochs = {EPOCHS}'), settings)
    runs, evaluations = Runs(), Evaluations()
    run = await runs.start(found.recipe)
    while run.phase != "done":
        if run.error is not None:
            raise run.error
        await asyncio.sleep(0.5)
        run = await runs.get(run.id)
    adapter = run.recipe.adapter.name or adapter_name(run.recipe, "drkun/starter")
    before = await _through(evaluations, Order(suite=run.id, is_run=True, settings=settings))
    tuned = msgspec.structs.replace(settings, adapter=adapter)
    await _through(evaluations, Order(suite=run.id, is_run=True, against=before, settings=tuned))
    app = DrkunApp(settings)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("f3")
        await pilot.pause(2)
        await pilot.press("l")
        await pilot.pause(4)
        return repaired(app.export_screenshot(simplify=True))


async def _through(evaluations: Evaluations, order: Order) -> str:
    """Evaluate; the id."""
    evaluation = await evaluations.start(order)
    while evaluation.phase != "done":
        if evaluation.error is not None:
            raise evaluation.error
        await asyncio.sleep(0.5)
        evaluation = await evaluations.get(evaluation.id)
    return evaluation.id


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
