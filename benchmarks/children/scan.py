"""Scans a model folder in a process of its own, and says how long that took."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def scan(folder: Path) -> dict[str, float]:
    """The program's scan; imports are counted, as a first scan has to make them."""
    began = time.perf_counter()
    from drkun_tui.library import inventory

    imported = time.perf_counter()
    models = inventory.scan([folder])
    ended = time.perf_counter()
    return {"models": len(models), "import_s": imported - began, "scan_s": ended - imported}


def walk(folder: Path) -> dict[str, float]:
    """The least that any scan must do: look at every name, size and time."""
    began = time.perf_counter()
    files = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            Path(parent, name).stat()
            files += 1
    return {"files": files, "scan_s": time.perf_counter() - began}


if __name__ == "__main__":
    how = {"scan": scan, "walk": walk}[sys.argv[1]]
    print(json.dumps(how(Path(sys.argv[2]))))
