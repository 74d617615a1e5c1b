"""Ask a model one question from Python, reasoning and answer apart, as they come.

usage: chat.py [QUESTION [MODEL]]     (MODEL: a name that `drkun models` lists, or a path to a GGUF)
"""

from __future__ import annotations

import asyncio
import sys

from drkun_tui import paths
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.protocol import ChatMessage, Delta, Generate
from drkun_tui.library.plan import plan_load
from drkun_tui.settings import Settings
from drkun_tui.ui.typeset.sanitise import clean


async def main(question: str = "最近总是头晕，应该怎么办？", model: str = "starter") -> None:
    """Load, ask, print, unload."""
    engine = EngineClient(paths.engine_log(), paths.machine_file())
    try:
        async for progress in engine.load(plan_load(Settings(model=model)).load):
            print(progress, file=sys.stderr)
        request = Generate(id=0, messages=[ChatMessage("user", question)])
        async for event in engine.generate(request):
            if isinstance(event, Delta):
                print(clean(event.thinking), end="", flush=True, file=sys.stderr)
                print(clean(event.answer), end="", flush=True)
        print()
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
