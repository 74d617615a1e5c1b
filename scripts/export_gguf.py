"""Make a GGUF of an adapter and its base from Python, as the tutorials' last step does.

usage: export_gguf.py ADAPTER [TYPE]     (TYPE: Q4_K_M, Q8_0, F16, ...; lora; safetensors)
"""

from __future__ import annotations

import asyncio
import sys

from drkun_tui import paths, settings
from drkun_tui.errors import DrkunError
from drkun_tui.publishing.exports import Exports
from drkun_tui.publishing.faults import error_of
from drkun_tui.publishing.preflight import check
from drkun_tui.publishing.protocol import Failed, Finished, Progress, Proved
from drkun_tui.ui.publishing_text import progress_text, proved_text


async def main(adapter: str, target: str = "Q4_K_M") -> None:
    """Look whether it can be done, begin, follow it to its end."""
    try:
        found = check(adapter, target, settings.load(paths.settings_file()))
    except DrkunError as error:
        sys.exit(f"{error.message}  {error.hint}")
    exports = Exports()
    export = await exports.start(found.request)
    async for event, _ in exports.follow(export.id):
        if isinstance(event, Progress):
            print(progress_text(event), file=sys.stderr)
        elif isinstance(event, Proved):
            print(proved_text(event), file=sys.stderr)
        elif isinstance(event, Failed):
            failed = error_of(event.kind, event.values)
            sys.exit(f"{failed.message}  {failed.hint}")
        elif isinstance(event, Finished):
            print(event.path)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:3]))
