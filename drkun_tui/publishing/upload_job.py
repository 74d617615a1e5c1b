"""The uploading process: ``python -m drkun_tui.publishing.upload_job FOLDER``.

Started again in the same folder, it goes on: what the hub has already is not sent again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from drkun_tui.jobs import detached
from drkun_tui.library.files import size_of
from drkun_tui.library.inspection import licence_of
from drkun_tui.library.kinds import Values
from drkun_tui.publishing.destinations import Destination, connect
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.release import CARD as CARD_NAME
from drkun_tui.publishing.release import as_published
from drkun_tui.publishing.upload_protocol import (
    CARD,
    Event,
    Failed,
    Finished,
    Phase,
    Progress,
    Request,
    Stopped,
    encode,
    read_request,
)

TICK_S = 0.25
"""How often progress is told, and a wish to stop looked for."""

_STAGED, _CREATED, _TRACKER = "staged", "created", "uploaded.json"
_SHORTEST_SECRET = 8
"""Characters; less is no token, and would be found in any text."""


def main() -> None:
    """Run the job, and end the process, whatever its threads wait for."""
    folder = Path(sys.argv[1])
    try:
        reporter = detached.Reporter(folder)
    except detached.RunsAlreadyError:
        sys.exit(detached.RUNS_ALREADY)
    request = read_request(folder)
    if request is None:
        sys.exit(f"no request in {folder}")
    upload = Upload(folder, request, reporter)
    signal.signal(signal.SIGTERM, lambda *_: upload.stop())
    code = upload.run()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that waits for the network would keep the process for as long.
    os._exit(code)


class Upload:
    """A request on its way to a hub. One thread watches, another works."""

    def __init__(self, folder: Path, request: Request, reporter: detached.Reporter) -> None:
        self._folder = folder
        self._request = request
        self._reporter = reporter
        self._wish = threading.Event()
        self._sent = 0
        self._secret = ""
        self._failure: PublishingError | None = None
        self._page = ""
        self._private = request.private

    def stop(self) -> None:
        """Stop soon."""
        self._wish.set()

    def run(self) -> int:
        """Upload everything; the exit code is 0 when it is there or stopped."""
        self._enter("starting")
        working = threading.Thread(target=self._work, daemon=True)
        working.start()
        began = time.monotonic()
        total = sum(size_of(Path(path)) for path in self._request.files.values())
        told = -1
        while working.is_alive():
            working.join(TICK_S)
            if self._wish.is_set() or self._reporter.stop_requested:
                self._tell(Stopped())
                self._enter("stopped")
                return 0
            if (done := min(self._sent, total)) != told and done:
                speed = done / (time.monotonic() - began)
                self._tell(Progress(done=done, total=total, speed=speed, eta_s=(total - done) / speed))
                told = done
        if self._failure is not None:
            self._fail(self._failure.kind, self._failure.values)
            return 1
        # What the hub had already was not sent.
        self._tell(Progress(done=total, total=total))
        self._tell(Finished(repo=self._request.repo, page=self._page, private=self._private))
        self._enter("done")
        shutil.rmtree(self._folder / _STAGED, ignore_errors=True)
        return 0

    def _work(self) -> None:
        try:
            self._upload()
        except PublishingError as error:
            self._failure = error
        except OSError as error:
            reason = error.strerror or str(error)
            self._failure = PublishingError("unwritable", folder=str(error.filename or ""), reason=reason)
        except Exception as error:
            sys.stderr.write(self._without_secret(traceback.format_exc()))
            self._failure = PublishingError("internal", reason=type(error).__name__)

    def _upload(self) -> None:
        request = self._request
        hub = connect(request.hub, self._count)
        self._secret = hub.token if len(hub.token) >= _SHORTEST_SECRET else ""
        self._page = hub.page(request.repo)
        staged = self._stage()
        self._enter("creating")
        self._create(hub)
        self._enter("uploading")
        hub.upload(request.repo, staged, self._folder / _TRACKER)

    def _create(self, hub: Destination) -> None:
        """Make the repository, once. One that is there is only added to when that was asked for, and when it
        is not public unasked."""
        made, request = self._folder / _CREATED, self._request
        if not made.exists():
            try:
                licence = licence_of((self._folder / CARD).read_text("utf8"))
                hub.create(request.repo, private=request.private, licence=licence)
            except PublishingError as error:
                if error.kind != "repo_taken" or not request.update:
                    raise
            else:
                made.touch()
                return
        self._private = hub.is_private(request.repo)
        if request.private and not self._private:
            raise PublishingError("repo_public", repo=request.repo)
        made.touch()

    def _stage(self) -> Path:
        """A folder with what is uploaded: links, the reviewed card, and nothing that names this machine."""
        staged = self._folder / _STAGED
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        for name, path in self._request.files.items():
            if (text := as_published(name, Path(path))) is None:
                (staged / name).symlink_to(path)
            else:
                (staged / name).write_text(text, "utf8")
        shutil.copyfile(self._folder / CARD, staged / CARD_NAME)
        return staged

    def _count(self, sent: int) -> None:
        self._sent += sent

    def _fail(self, kind: str, values: Values) -> None:
        self._tell(Failed(kind=kind, values=values))
        shown = {
            name: self._without_secret(value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        self._enter("failed", {"kind": kind, **shown})

    def _enter(self, phase: Phase, error: Values | None = None) -> None:
        self._reporter.state(phase, error)

    def _tell(self, event: Event) -> None:
        self._reporter.event(self._without_secret(encode(event).decode()).encode())

    def _without_secret(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


if __name__ == "__main__":
    main()
