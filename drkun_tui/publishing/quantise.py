"""A stage: a GGUF in fewer bits, by llama.cpp. ``python -m drkun_tui.publishing.quantise``"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from pathlib import Path
from typing import Any

import llama_cpp as binding

from drkun_tui.library.files import size_of
from drkun_tui.publishing import imatrix, steps
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.tasks import Quantise

MOST_ROWS_BYTES = 1 << 30
"""Bytes of a tensor that llama.cpp holds in 32 bits at once."""

_LOOK_EVERY_S = 0.2
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_ERROR = 4


def quantise(task: Quantise, tell: steps.Tell) -> dict[str, Any]:
    """Write it.

    Raises:
        PublishingError: ``quantise_failed``, ``imatrix_unreadable``, or ``imatrix_other``.
    """
    log = _Log()
    binding.llama_log_set(log.callback, ctypes.c_void_p(0))
    binding.llama_backend_init()
    params = binding.llama_model_quantize_default_params()
    params.ftype = task.file_type
    params.nthread = task.threads
    params.max_buf_size = MOST_ROWS_BYTES
    if task.imatrix:
        entries = imatrix.read(Path(task.imatrix), Path(task.converters))
        matrix = imatrix.for_quantising(entries)
        params.imatrix = matrix
    source, out = task.source.encode(), task.out.encode()
    params.dry_run = True
    _run(source, out, params, log)
    if log.wants_imatrix:
        raise PublishingError("needs_imatrix")
    total = log.size
    params.dry_run = False
    done = threading.Event()
    watching = threading.Thread(target=_watch, args=(Path(task.out), total, tell, done), daemon=True)
    watching.start()
    try:
        _run(source, out, params, log)
    finally:
        done.set()
        watching.join()
    return {"bytes": size_of(Path(task.out))}


def _run(source: bytes, out: bytes, params: Any, log: _Log) -> None:
    if binding.llama_model_quantize(source, out, ctypes.byref(params)):
        if "iostream" in log.error:  # all that C++ says of a disk that takes no more
            raise PublishingError("disk_full")
        if "imatrix size" in log.error:
            raise PublishingError("imatrix_other", reason=log.error)
        raise PublishingError("quantise_failed", reason=log.error)


def _watch(out: Path, total: int, tell: steps.Tell, done: threading.Event) -> None:
    while not done.wait(_LOOK_EVERY_S):
        tell(min(size_of(out), total), total)


class _Log:
    """What llama.cpp says: to standard error, and the size and the first error for us."""

    def __init__(self) -> None:
        self.size = 0
        self.wants_imatrix = False
        self.error = "?"
        # ctypes frees a callback with its last reference.
        self.callback = binding.llama_log_callback(self._hear)

    def _hear(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf8", "replace")
        sys.stderr.write(line)
        if found := _SIZE.search(line):
            self.size = int(float(found[1]) * 1024 * 1024)
        if "will require an imatrix" in line:
            self.wants_imatrix = True
        if level == _ERROR and self.error == "?":
            self.error = line.strip()[:200]


if __name__ == "__main__":
    steps.serve(Quantise, quantise)
