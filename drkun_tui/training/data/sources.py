"""The files of a data set, or a hub's. Format and encoding are found from the content."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drkun_tui.errors import DrkunError
from drkun_tui.training.data import encodings
from drkun_tui.training.data.formats import ROWS_AT_ONCE, Batch, Reader, as_texts
from drkun_tui.training.data.summary import data_error

ABOUT = re.compile(r"(licen[cs]e|notice|readme|changelog|citation|requirements)(\.|$)", re.IGNORECASE)
"""What lies beside data and tells of them; in a folder such a file is none of its data."""

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
"""Which files of a folder are taken for data; a file that is named itself may have any."""


@dataclass(slots=True)
class File:
    """One file of a data set.

    Attributes:
        path: where it is.
        name: what it is called in the data set.
        size: bytes.
        modified: nanoseconds since the epoch.
        format: found by `look`.
        encoding: found by `look`.
    """

    path: Path
    name: str
    size: int
    modified: int
    format: str = ""
    encoding: str = ""
    _exact: bool = field(default=False, repr=False)
    _head: str = field(default="", repr=False)

    def look(self) -> None:
        """Find the format and the encoding.

        Raises:
            DrkunError: ``empty``, ``binary`` or ``unreadable``.
        """
        try:
            with self.path.open("rb") as file:
                begin = file.read(4)
            if begin == b"PAR1":
                self.format = "parquet"
                return
            self.encoding, self._exact = encodings.find(self.path)
            with io.BufferedReader(encodings.Utf8(self.path.open("rb"), self.encoding)) as reader:
                self._head = reader.read(1 << 16).decode("utf8", "ignore")
        except OSError as error:
            raise unreadable(self.path, error) from error
        if not self._head.strip():
            raise data_error("empty", path=str(self.path))
        self.format = _format(self._head, self.path.suffix.lower())

    def batches(self) -> Iterator[Batch]:
        """The rows, after `look`.

        Raises:
            DrkunError: ``unreadable``, ``row_too_long``, ``bad_json``, ``truncated``, ``bad_parquet`` or
                ``bad_csv``.
        """
        reader = Reader(self.path, self.size, self.format, self.encoding, self._exact, self._head)
        try:
            yield from reader.batches()
        except OSError as error:
            raise unreadable(self.path, error) from error


class Hub:
    """A data set of the hub, through its own client library and its cache.

    Args:
        name: on the hub, or a local folder in the hub's layout.
        config: "" for its only or default one.
        split: e.g. ``train``.

    Raises:
        DrkunError: ``hub_failed``, ``hub_unreachable`` or ``packages_missing``.
    """

    def __init__(self, name: str, config: str, split: str) -> None:
        try:
            import datasets
        except ImportError as error:
            raise data_error("packages_missing", packages="datasets", extra="train") from error
        datasets.disable_progress_bars()
        try:
            self._set = datasets.load_dataset(name, config or None, split=split)
        except ConnectionError as error:
            raise data_error("hub_unreachable", name=name) from error
        except Exception as error:
            # The library, and whatever it reads with, has no common error.
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise data_error("hub_failed", name=name, reason=reason) from error
        self.name = name
        self.fingerprint = str(self._set._fingerprint)
        self.size = len(self._set)

    def batches(self) -> Iterator[Batch]:
        """The rows."""
        number = 0
        for table in self._set.with_format("arrow").iter(ROWS_AT_ONCE):
            numbers = list(range(number, number + len(table)))
            number += len(table)
            yield Batch(as_texts(table), numbers, {}, number)


def files(path: Path) -> list[File]:
    """The file, or the files of a folder and of the folders in it, in the order of their names.

    Raises:
        DrkunError: ``not_found``, ``unreadable``, or ``no_files``.
    """
    try:
        if not path.exists():
            raise data_error("not_found", path=str(path))
        if not path.is_dir():
            return [_file(path, path.name)]
        found = []
        for folder, folders, names in os.walk(path, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [
                Path(folder) / name
                for name in names
                if Path(name).suffix.lower() in SUFFIXES and not (name.startswith(".") or ABOUT.match(name))
            ]
        found.sort()
        if not found:
            raise data_error("no_files", path=str(path), suffixes=" ".join(SUFFIXES))
        return [_file(file, file.relative_to(path).as_posix()) for file in found]
    except OSError as error:
        raise unreadable(path, error) from error


def _raise(error: OSError) -> None:
    raise error


def _file(path: Path, name: str) -> File:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise data_error("not_found", path=str(path))
    return File(path, name, status.st_size, status.st_mtime_ns)


def unreadable(path: Path, error: OSError) -> DrkunError:
    """The error of a file that is gone, or may not be read."""
    if isinstance(error, FileNotFoundError):
        return data_error("not_found", path=str(path))
    return data_error("unreadable", path=str(path), reason=error.strerror or str(error))


def _format(head: str, suffix: str) -> str:
    """A file whose name says that it is a table is one; else the first character tells."""
    begin = head.lstrip()[:1]
    if suffix not in (".csv", ".tsv") and begin in ("[", "{"):
        return "json" if begin == "[" else "jsonl"
    line = head.lstrip("\r\n").split("\n", 1)[0]
    return "tsv" if line.count("\t") > line.count(",") else "csv"
