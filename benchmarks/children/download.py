"""Fetches a repository in a process of its own, and says how long that took.

Run as ``python -m benchmarks.children.download job|client REPO FOLDER``. What either side needs is imported
before the clock starts; asking the hub for the list of files counts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def job(repo: str, folder: Path) -> float:
    """The program's download job, from its start until every file is verified and in its place."""
    from drkun_tui.jobs.detached import Reporter
    from drkun_tui.library.hub import hugging_face, transfer  # noqa: F401  # imported late by the job
    from drkun_tui.library.hub.job import Download
    from drkun_tui.library.hub.protocol import Request

    own = folder / "job"
    own.mkdir(parents=True)
    request = Request(hub="hf", repo=repo, store=str(folder / "models"), include=["*"])
    began = time.perf_counter()
    if Download(own, request, Reporter(own)).run():
        sys.exit((own / "events.jsonl").read_text("utf8").splitlines()[-1])
    return time.perf_counter() - began


def client(repo: str, folder: Path) -> float:
    """The hub's own client library, which verifies lengths."""
    from huggingface_hub import snapshot_download

    began = time.perf_counter()
    snapshot_download(repo, local_dir=folder / "models" / repo)
    return time.perf_counter() - began


if __name__ == "__main__":
    seconds = {"job": job, "client": client}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    print(json.dumps(seconds))
