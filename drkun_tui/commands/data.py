"""``drkun data check``: what a data set holds, what would be left out of it, and why."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.training.data.summary import EDGES, Summary, data_error
from drkun_tui.training.recipe import Data, Training
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import one_line

CLEAR = "\r\x1b[K"
PREVIEW = 3
"""Rows that are shown of those to train on."""

_SHOWN = ("question", "reasoning", "answer")


def run(arguments: argparse.Namespace) -> int:
    """Check, and print tables or an object."""
    set_language(settings.load(paths.settings_file()).language)
    options = Data(
        path="" if arguments.hub else arguments.path,
        hub=arguments.path if arguments.hub else "",
        config=arguments.config,
        split=arguments.split,
        columns=_mapping(arguments.columns),
    )
    try:
        dataset = importlib.import_module("drkun_tui.training.data.dataset")
    except ImportError as error:
        raise data_error("packages_missing", packages=error.name or "pyarrow", extra="data") from error
    with tempfile.TemporaryDirectory(prefix="drkun-data-") as name:
        folder = Path(name)
        seed = Training().seed
        try:
            summary = dataset.check(options, folder, seed, _progress(arguments), lambda: False)
        finally:
            _clear()
        preview = list(_rows(folder / dataset.TRAIN, PREVIEW))
        shown = None
        if arguments.dropped:
            shown = list(_rows(folder / dataset.DROPPED, arguments.limit, arguments.dropped))
    if arguments.json:
        told = _as_dict(summary, preview)
        if shown is not None:
            told["dropped_rows"] = shown
        print(json.dumps(told, ensure_ascii=False))
    elif shown is not None:
        _print_dropped(shown, summary.dropped.get(arguments.dropped, 0))
    else:
        _print(summary, preview, arguments.path)
    return EXIT_DONE


def _mapping(texts: Sequence[str]) -> dict[str, str]:
    mapping = {}
    for text in texts:
        role, sign, column = text.partition("=")
        if not (role and sign and column):
            raise data_error("bad_mapping", text=text)
        mapping[role] = column
    return mapping


def _progress(arguments: argparse.Namespace) -> Any:
    """How much is read, on a terminal: bytes, and of a hub's data set rows."""
    if arguments.json or not sys.stderr.isatty():
        return lambda _done, _total: None

    def show(done: int, total: int) -> None:
        amounts = (f"{count:,}" if arguments.hub else size(count) for count in (done, total))
        line = t("data.reading", **dict(zip(("done", "total"), amounts, strict=True)))
        width = shutil.get_terminal_size().columns - 1
        print(CLEAR + cell(line, width).rstrip(), end="", flush=True, file=sys.stderr)

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        print(CLEAR, end="", flush=True, file=sys.stderr)


def _rows(path: Path, limit: int, reason: str = "") -> Iterator[dict[str, Any]]:
    """The first rows of a file, of one reason where one is given."""
    pyarrow = importlib.import_module("pyarrow")
    with pyarrow.OSFile(str(path), "rb") as file:
        for batch in pyarrow.ipc.open_stream(file):
            for row in batch.to_pylist():
                if limit <= 0:
                    return
                if not reason or row["reason"] == reason:
                    limit -= 1
                    yield row


def _as_dict(summary: Summary, preview: list[dict[str, Any]]) -> dict[str, Any]:
    """The command-line contract; what differs between files is told once each."""
    used = [file for file in summary.files if not file.problem]

    def joined(name: str) -> str:
        return ", ".join(dict.fromkeys(filter(None, (getattr(file, name) for file in used))))

    return {
        **msgspec.to_builtins(summary),
        "format": joined("format"),
        "encoding": joined("encoding"),
        "shape": joined("shape"),
        "columns": used[0].columns if used else {},
        "preview": preview,
        "tokens": None,
    }


def _print(summary: Summary, preview: list[dict[str, Any]], path: str) -> None:
    heads = [t(f"data.{name}") for name in ("file", "format", "encoding", "shape", "rows", "columns")]
    rows = [heads]
    for file in summary.files:
        columns = ", ".join(name if role == name else f"{role}={name}" for role, name in file.columns.items())
        told = t(f"data.problem_{file.problem}") if file.problem else columns
        rows.append(
            [
                *(one_line(text, 40) for text in (file.path, file.format, file.encoding, file.shape)),
                f"{file.rows:,}",
                one_line(told, 60),
            ]
        )
    _print_table(rows, (40, 8, 10, 10, 10, 60), right=(4,))
    print()
    counts = [
        [t(f"data.{name}"), f"{getattr(summary, name):,}", ""]
        for name in ("rows", "usable", "train", "held_out", "unused")
        if name != "unused" or summary.unused
    ]
    for reason, count in summary.dropped.items():
        counts.append([f"{t('data.dropped')}: {t(f'data.reason_{reason}')}", f"{count:,}", reason])
    for flag, count in summary.flagged.items():
        counts.append([f"{t('data.flagged')}: {t(f'data.flag_{flag}')}", f"{count:,}", ""])
    _print_table(counts, (60, 12, 16), right=(1,))
    print()
    edges = [f"≤ {edge}" for edge in EDGES] + [f"> {EDGES[-1]}"]
    lengths = [[t("data.characters"), t("data.median"), "90 %", "99 %", t("data.most"), *edges]]
    for name, of in summary.lengths.items():
        numbers = (of.median, of.p90, of.p99, of.most, *of.histogram)
        lengths.append([t(f"data.{name}"), *(f"{number:,}" for number in numbers)])
    _print_table(lengths, (12,) * len(lengths[0]), right=tuple(range(1, len(lengths[0]))))
    for row in preview:
        print()
        _print_table(
            [[t(f"data.{name}"), one_line(row[name], 90)] for name in _SHOWN if row[name]], (12, 90), right=()
        )
    if summary.dropped:
        print()
        print(t("data.see_dropped", path=one_line(path, 200), reason=next(iter(summary.dropped))))


def _print_dropped(rows: list[dict[str, Any]], count: int) -> None:
    if not rows:
        print(t("data.none_dropped"))
        return
    lines = [["#", t("data.file"), "", t("data.question"), t("data.answer")]]
    for row in rows:
        texts = [one_line(row[name], width) for name, width in (("source", 24), ("detail", 24))]
        texts += [one_line(row[name], 44) for name in ("question", "answer")]
        lines.append([str(row["row"]), *texts])
    _print_table(lines, (10, 24, 24, 44, 44), right=(0,))
    if count > len(rows):
        print(t("data.more", count=count - len(rows)))


def _print_table(rows: list[list[str]], most: Sequence[int], right: Sequence[int]) -> None:
    widths = fit_columns(rows, most)
    for row in rows:
        cells = [
            cell(text, width, right=column in right)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(GAP.join(cells).rstrip())
