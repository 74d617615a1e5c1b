"""Takes the picture of the training screen: ``python scripts/picture_training.py``.

The run is real: the bundled model learns from the dialogues that come with the program, on the CPU, and the
picture is taken when two thirds of the steps are made.
"""

from __future__ import annotations

import asyncio
import os
import tempfile

from picture import PICTURES, repaired

SIZE = (132, 40)
PATIENCE_S = 900.0


async def take() -> str:
    """Train, run the application, and return the repaired picture."""
    from drkun_tui import i18n
    from drkun_tui.app import DrkunApp
    from drkun_tui.settings import Settings
    from drkun_tui.training import preflight, recipe
    from drkun_tui.training.runs import Runs

    i18n.set_language("zh")
    settings = Settings(language="zh")
    found = preflight.check(recipe.parse('preset = "starter-cpu"'), settings)
    runs = Runs()
    run = await runs.start(found.recipe)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (history := run.history).total_steps or history.step < history.total_steps * 2 / 3:
                if run.error is not None:
                    raise run.error
                await asyncio.sleep(0.2)
                run = await runs.get(run.id)
        app = DrkunApp(settings)
        async with app.run_test(size=SIZE) as pilot:
            await pilot.press("f4")
            await pilot.pause(2)
            return repaired(app.export_screenshot(simplify=True))
    finally:
        await runs.cancel(run.id)


def main() -> None:
    """Take the picture and write it."""
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory(prefix="drkun-") as home:
        os.environ["DRKUN_HOME"] = home
        svg = asyncio.run(take())
    (PICTURES / "training.svg").write_text(svg, encoding="utf8")
    print(f"{PICTURES / 'training.svg'}  {len(svg.encode()):,} bytes")


if __name__ == "__main__":
    main()
