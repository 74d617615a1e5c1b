"""Takes the picture of the compare screen: ``python scripts/picture_compare.py``.

The bundled model answers beside a LoRA of it that was trained for nothing and only changes what it says.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from picture import PICTURES, repaired

SIZE = (120, 30)
QUESTION, SEED = "最近总是头晕，应该怎么办？", 3
PATIENCE_S = 120.0


async def take() -> str:
    """Compare in the real application, and return the repaired picture."""
    from drkun_tui import i18n, paths
    from drkun_tui.app import DrkunApp
    from drkun_tui.comparison import records
    from drkun_tui.sampling import Sampling
    from drkun_tui.settings import Settings
    from drkun_tui.ui.widgets.prompt import Prompt

    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.gguf_files import lora

    i18n.set_language("zh")
    lora(paths.model_store() / "my-lora.gguf")
    app = DrkunApp(
        Settings(language="zh", contestants=["starter", "starter+my-lora"], sampling=Sampling(seed=SEED))
    )
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("f5")
        app.screen.query_one(Prompt).replace_text(QUESTION)
        await pilot.pause(2)
        await pilot.press("enter")
        async with asyncio.timeout(PATIENCE_S):
            while not any(records.read()):
                await pilot.pause(0.1)
        await pilot.pause(1)
        svg = repaired(app.export_screenshot(simplify=True))
        await app.action_quit()
    return svg


def main() -> None:
    """Take the picture and write it."""
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory(prefix="drkun-") as home:
        os.environ["DRKUN_HOME"] = home
        svg = asyncio.run(take())
    (PICTURES / "compare.svg").write_text(svg, encoding="utf8")
    print(f"{PICTURES / 'compare.svg'}  {len(svg.encode()):,} bytes")


if __name__ == "__main__":
    main()
