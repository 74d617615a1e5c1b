"""A data check that somebody looks at: ``python -m drkun_tui.training.checking.job FOLDER``.

The first line on standard input is a `Check`; what it finds is told on standard output. Rows and examples can
be asked for as soon as there are any. It ends with its input and takes the folder along, whatever it does.
"""

from __future__ import annotations

import queue
import shutil
import sys
import threading
from pathlib import Path

from drkun_tui import paths, settings
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import set_language
from drkun_tui.library import inventory
from drkun_tui.library.plan import folders
from drkun_tui.training.checking.protocol import (
    Check,
    Checked,
    Event,
    Examples,
    Failed,
    ListExamples,
    ListRows,
    Measured,
    Reading,
    Request,
    Rows,
    Tokenizing,
    decode_request,
    encode,
)
from drkun_tui.training.data.summary import StoppedError, data_error


class Server:
    """Checks one data set and answers what is asked about it.

    Args:
        folder: for the prepared data; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._left = threading.Event()
        self._settings = settings.load(paths.settings_file())

    def listen(self) -> None:
        """Take requests until whoever asks is gone."""
        for line in sys.stdin.buffer:
            self._requests.put(decode_request(line))
        self._left.set()
        self._requests.put(None)

    def serve(self) -> None:
        """Do what is asked, until nobody asks any more."""
        threading.Thread(target=self.listen, daemon=True).start()
        asked = self._requests.get()
        if not isinstance(asked, Check):
            return
        set_language(asked.language)
        try:
            self._check(asked)
        except StoppedError:
            return
        except DrkunError as error:
            _tell(Failed(kind=error.kind, message=error.message, hint=error.hint))
        except ImportError as error:
            missing = data_error("packages_missing", packages=error.name or "pyarrow", extra="data")
            _tell(Failed(kind=missing.kind, message=missing.message, hint=missing.hint))
        while (request := self._requests.get()) is not None:
            self._answer(asked, request)

    def _check(self, asked: Check) -> None:
        # Imported late: without these packages it can still be said which are missing.
        from drkun_tui.training.checking import check, vocabulary
        from drkun_tui.training.data import dataset

        def read(done: int, total: int) -> None:
            _tell(Reading(done=done, total=total))

        def tokenized(done: int, total: int) -> None:
            _tell(Tokenizing(done=done, total=total))
            # Who looks at a long data set need not wait for the last of its tokens. That nobody asks any more
            # is known before it is put in line, and is left there.
            while not self._requests.empty() and not self._left.is_set():
                self._answer(asked, self._requests.get())

        data = asked.data
        _tell(Checked(summary=dataset.check(data, self._folder, asked.seed, read, self._left.is_set)))
        model = inventory.find(asked.model, folders(self._settings))
        self._renderer = check.renderer(vocabulary.tokenizer_of(model), data.template)
        tokens = check.measure(
            self._folder,
            model.name,
            self._renderer,
            data.system,
            asked.context_length,
            tokenized,
            self._left.is_set,
        )
        _tell(Measured(tokens=tokens))

    def _answer(self, asked: Check, request: Request | None) -> None:
        from drkun_tui.training.checking import check

        if isinstance(request, ListRows):
            rows = check.rows(self._folder, request.reason, request.limit, request.offset)
            _tell(Rows(rows=tuple(rows)))
        elif isinstance(request, ListExamples):
            shown = check.examples(
                self._folder,
                self._renderer,
                asked.data.system,
                asked.context_length,
                request.limit,
                request.offset,
            )
            _tell(Examples(examples=tuple(shown)))


def _tell(event: Event) -> None:
    sys.stdout.buffer.write(encode(event) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve, and leave nothing behind."""
    folder = Path(sys.argv[1])
    try:
        Server(folder).serve()
    except BrokenPipeError:
        # Whoever asked is gone.
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
