"""A hub on loopback in a process of its own: ``python -m benchmarks.children.hub HOME FILE REPO…``.

Every repository holds the file as its one model. The first line on standard output is JSON: the environment
that makes the hubs' clients talk to it. It ends with its input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.hub_server import serving


def main() -> None:
    """Serve until the input ends."""
    home, weights, *repositories = sys.argv[1:]
    with serving() as hub:
        for repo in repositories:
            for content in hub.add(repo, {"model-Q4_K_M.gguf": Path(weights)}).files.values():
                # Hashed now, so that no request waits for it.
                _ = content.sha256
        print(json.dumps(hub.environment(Path(home))), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
