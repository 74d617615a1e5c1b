"""Fetch a model from Python: choose its files, download, resume, verify.

usage: download_model.py REPO [HUB [QUANT]]     (HUB: hf or modelscope; run it again to resume)
"""

from __future__ import annotations

import asyncio
import sys

from drkun_tui import paths
from drkun_tui.library.hub.downloads import Downloads, error_of
from drkun_tui.library.hub.protocol import Done, Failed, HubName, Progress, Request
from drkun_tui.ui.table import size


async def main(repo: str = "Qwen/Qwen3-4B-GGUF", hub: HubName = "hf", quant: str = "") -> None:
    """Start or resume the download, follow it to its end."""
    downloads = Downloads()
    request = Request(hub=hub, repo=repo, store=str(paths.model_store().absolute()), quant=quant)
    download = await downloads.start(request)
    async for event, _ in downloads.follow(download.id, download.offset):
        if isinstance(event, Progress):
            told = f"{event.phase}  {size(event.done)} / {size(event.total)}  {size(int(event.speed))}/s"
            print(told, file=sys.stderr)
        elif isinstance(event, Failed):
            error = error_of(event.kind, event.values)
            sys.exit(f"{error.message}  {error.hint}")
        elif isinstance(event, Done):
            print(event.folder)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))  # type: ignore[arg-type]
