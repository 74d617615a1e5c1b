"""From files to a data set on disk: read, cleaned, without duplicates, split."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.training.data import sources
from drkun_tui.training.data.reading import Reader, Report, Stopped
from drkun_tui.training.data.splitting import DROPPED, FLAGGED, HELD_OUT, TRAIN, Rows
from drkun_tui.training.data.summary import Summary, data_error
from drkun_tui.training.recipe import Data

SUMMARY = "summary.json"

DEMO = Path(__file__).parent.parent / "demo.jsonl"
"""The data set that ``path = "demo"`` is."""

_VERSION = 2
"""Of what is made from the same files; another one makes what lies on disk again."""

_MADE = (TRAIN, HELD_OUT, DROPPED, FLAGGED)
_ROWS, _UNFINISHED = "rows.arrow", ".unfinished"


def prepare(options: Data, folder: Path, seed: int, report: Report, stopped: Stopped) -> Summary:
    """`check`, and there must be something to train on.

    Raises:
        StoppedError: `stopped` said so.
        DrkunError: as `check`, and ``no_rows``.
    """
    summary = check(options, folder, seed, report, stopped)
    if not summary.usable:
        told = [f"{t(f'data.reason_{reason}')} {count}" for reason, count in summary.dropped.items()]
        raise data_error("no_rows", rows=summary.rows, dropped=", ".join(told) or "0")
    return summary


def check(options: Data, folder: Path, seed: int, report: Report, stopped: Stopped) -> Summary:
    """Write ``train.arrow``, ``held_out.arrow``, ``dropped.arrow``, ``flagged.arrow`` and ``summary.json``
    into a folder, or nothing. What lies there already from the same files, options and seed is taken as it
    is.

    Args:
        options: where the data are and what is left out.
        folder: made where it is not there.
        seed: of the split.
        report: told bytes (rows of a hub's data set) read so far and in all.
        stopped: asked between batches.

    Raises:
        StoppedError: `stopped` said so.
        DrkunError: a kind of the catalogue's section ``data``.
    """
    hub = sources.Hub(options.hub, options.config, options.split) if options.hub else None
    files = [] if hub else sources.files(_place(options))
    there: list[Any] = (
        [hub.fingerprint]
        if hub
        else [(str(file.path.absolute()), file.size, file.modified) for file in files]
    )
    inputs = _digest(there, options, seed)
    with contextlib.suppress(OSError, msgspec.DecodeError):
        done = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
        if done.inputs == inputs and all((folder / name).exists() for name in _MADE):
            return done
    aside = folder / _UNFINISHED
    try:
        # What a killed process left behind; no two prepare one folder.
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(max(1, min(workers, 4))) as pool:
            digests = [(file.name, pool.submit(_digest_of, file.path)) for file in files]
            reader = Reader(options, files, hub, report, stopped)
            cleaned = reader.write(aside / _ROWS, pool)
            content = [(name, digest.result()) for name, digest in digests]
        split = Rows(aside / _ROWS, cleaned, options, seed, stopped).split(aside)
        summary = Summary(
            **msgspec.structs.asdict(split),
            files=tuple(reader.told),
            fingerprint=_digest(content or inputs, options, seed),
            inputs=inputs,
        )
        (aside / SUMMARY).write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
        # The summary goes first and comes last: files without one count for nothing.
        (folder / SUMMARY).unlink(missing_ok=True)
        for name in (*_MADE, SUMMARY):
            (aside / name).replace(folder / name)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return summary


def _unwritable(folder: Path, error: OSError) -> DrkunError:
    return data_error("unwritable", folder=str(folder), reason=error.strerror or str(error))


def _place(options: Data) -> Path:
    return DEMO if options.path == "demo" else Path(options.path).expanduser()


def _digest(what: Any, options: Data, seed: int) -> str:
    parts = (_VERSION, what, msgspec.to_builtins(options), seed)
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise sources.unreadable(path, error) from error
