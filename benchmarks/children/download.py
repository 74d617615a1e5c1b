"""Fetches a repository in a process of its own, and says how long that took.

Run as ``python -m benchmarks.children.download job|client hf|modelscope REPO FOLDER``. What either side needs
is imported before the clock starts; asking the hub for the list of files counts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Literal


def job(hub: Literal["hf", "modelscope"], repo: str, folder: Path) -> float:
    """The program's download job, from its start until every file is verified and in its place."""
    from drkun_tui.jobs.detached import Reporter
    from drkun_tui.library.hub import (  # noqa: F401  # imported late by the job
        hugging_face,
        modelscope,
        transfer,
    )
    from drkun_tui.library.hub.job import Download
    from drkun_tui.library.hub.protocol import Request

    own = folder / "job"
    own.mkdir(parents=True)
    request = Request(hub=hub, repo=repo, store=str(folder / "models"), include=["*"])
    began = time.perf_counter()
    if Download(own, request, Reporter(own)).run():
        sys.exit((own / "events.jsonl").read_text("utf8").splitlines()[-1])
    return time.perf_counter() - began


def client(hub: Literal["hf", "modelscope"], repo: str, folder: Path) -> float:
    """The hub's own client library: Hugging Face's verifies lengths, ModelScope's hashes."""
    target = folder / "models" / repo
    if hub == "modelscope":
        from modelscope_hub import HubApi

        began = time.perf_counter()
        HubApi().download_repo(repo, "model", local_dir=target)
    else:
        from huggingface_hub import snapshot_download

        began = time.perf_counter()
        snapshot_download(repo, local_dir=target)
    return time.perf_counter() - began


if __name__ == "__main__":
    which, at, what, to = sys.argv[1:]
    seconds = {"job": job, "client": client}[which](
        "modelscope" if at == "modelscope" else "hf", what, Path(to)
    )
    print(json.dumps(seconds))
