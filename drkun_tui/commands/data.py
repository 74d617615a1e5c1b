"""``drkun data check``: what training would make of a data set."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.training.data.summary import EDGES, Summary, data_error
from drkun_tui.training.recipe import Data
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import one_line

PACKAGES = ("pyarrow", "numpy")
SHOWN = 3
"""Rows of a preview."""
_CLEAR = "\r\x1b[K"


def run(arguments: argparse.Namespace) -> int:
    """Check a data set, and print a table or an object."""
    set_language(settings.load(paths.settings_file()).language)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise data_error("packages_missing", packages=", ".join(missing))
    # Imported late: they need what was just looked for.
    from drkun_tui.training.data.dataset import DROPPED, TRAIN, prepare, read_rows

    columns = dict(_pair(given) for given in arguments.columns)
    options = Data(path=arguments.path, columns=columns)
    live = sys.stderr.isatty() and not arguments.json

    def report(done: int, total: int) -> None:
        if live:
            told = t("data.reading", done=size(done), total=size(total))
            print(f"{_CLEAR}{told}", end="", flush=True, file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="drkun-data-") as made:
        folder = Path(made)
        try:
            summary = prepare(options, folder, 3407, report, lambda: False)
        finally:
            if live:
                print(_CLEAR, end="", flush=True, file=sys.stderr)
        if arguments.dropped:
            if arguments.dropped not in summary.dropped:
                known = ", ".join(summary.dropped) or "0"
                raise data_error("reason_unknown", reason=arguments.dropped, reasons=known)
            dropped = read_rows(folder / DROPPED)
            rows = [row for row in dropped.to_pylist() if row["reason"] == arguments.dropped]
            _print_rows(rows[: arguments.limit], as_json=arguments.json)
            return EXIT_DONE
        preview = read_rows(folder / TRAIN).slice(0, SHOWN).to_pylist()
    if arguments.json:
        print(json.dumps(as_dict(summary, preview), ensure_ascii=False))
    else:
        _print(summary, preview)
    return EXIT_DONE


def _pair(given: str) -> tuple[str, str]:
    role, _, column = given.partition("=")
    return role.strip(), column.strip()


def as_dict(summary: Summary, preview: list[dict[str, Any]]) -> dict[str, Any]:
    """The object of ``drkun data check --json``."""
    first = next((told for told in summary.files if not told.problem), summary.files[0])
    told = msgspec.to_builtins(summary)
    return {
        **{name: told[name] for name in ("rows", "usable", "train", "held_out", "dropped", "flagged")},
        "format": first.format,
        "encoding": first.encoding,
        "shape": first.shape,
        "columns": first.columns,
        "files": told["files"],
        "lengths": told["lengths"],
        "preview": preview,
    }


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"rows": rows}, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['row'] + 1:>8}{GAP}{one_line(row['question'], 60)}{GAP}| {one_line(row['answer'], 80)}")


def _print(summary: Summary, preview: list[dict[str, Any]]) -> None:
    counts = [(t(f"data.{name}"), getattr(summary, name)) for name in ("rows", "usable", "train", "held_out")]
    counts += [(t("data.unused"), summary.unused)] if summary.unused else []
    counts += [(f"{t('data.dropped')} {name}", count) for name, count in summary.dropped.items()]
    counts += [(f"{t('data.flagged')} {name}", count) for name, count in summary.flagged.items()]
    notes = {f"{t('data.dropped')} {name}": t(f"data.drop_{name}") for name in summary.dropped}
    notes |= {f"{t('data.flagged')} {name}": t(f"data.flag_{name}") for name in summary.flagged}
    _table([[name, f"{count:,}", notes.get(name, "")] for name, count in counts], (32, 12, 60), right=(1,))
    names = ("file", "format", "encoding", "shape", "rows", "columns")
    rows = [[t(f"data.column_{name}") for name in names]]
    for told in summary.files:
        columns = ", ".join(f"{role}={one_line(name, 20)}" for role, name in told.columns.items())
        shown = columns or told.problem
        rows.append(
            [one_line(told.path, 40), told.format, told.encoding, told.shape, f"{told.rows:,}", shown]
        )
    print()
    _table(rows, (40, 8, 10, 10, 12, 80), right=(4,))
    bars = [f"<={edge}" for edge in EDGES] + [f">{EDGES[-1]}"]
    rows = [["", *(t(f"data.{name}") for name in ("median", "p90", "p99", "most")), *bars]]
    for name, told_lengths in summary.lengths.items():
        if told_lengths.most:
            numbers = (told_lengths.median, told_lengths.p90, told_lengths.p99, told_lengths.most)
            rows.append([t(f"data.{name}"), *map(str, (*numbers, *told_lengths.histogram))])
    print()
    _table(rows, (12,) * len(rows[0]), right=tuple(range(1, len(rows[0]))))
    print()
    for row in preview:
        for name in ("question", "reasoning", "answer"):
            if row[name]:
                print(f"{cell(t(f'data.{name}'), 10)}{one_line(row[name], 100)}")
        print()


def _table(rows: list[list[str]], most: tuple[int, ...], right: tuple[int, ...]) -> None:
    widths = fit_columns(rows, most)
    for row in rows:
        cells = [
            cell(text, width, right=column in right)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(GAP.join(cells).rstrip())
