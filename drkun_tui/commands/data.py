"""``drkun data check``: what a data set holds, what would be left out of it, and why."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from drkun_tui import paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library import inventory
from drkun_tui.library.plan import folders
from drkun_tui.training.checking.protocol import Row, Shown, Tokens
from drkun_tui.training.data.summary import EDGES, Summary, data_error
from drkun_tui.training.recipe import Data, Training
from drkun_tui.ui import data_text
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import one_line

CLEAR = "\r\x1b[K"
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
PREVIEW = 3
"""Rows that are shown of those to train on, as they are and as they are rendered."""

WIDEST = 110
"""Cells of a line of an example, on a wider terminal too."""

_SHOWN = ("question", "reasoning", "answer")


def run(arguments: argparse.Namespace) -> int:
    """Check, and print tables or an object."""
    chosen = settings.load(paths.settings_file())
    set_language(chosen.language)
    options = Data(
        path="" if arguments.hub else arguments.path,
        hub=arguments.path if arguments.hub else "",
        config=arguments.config,
        split=arguments.split,
        columns=_mapping(arguments.columns),
        template=arguments.template,
        system=arguments.system,
    )
    model = inventory.find(arguments.model, folders(chosen))
    try:
        dataset = importlib.import_module("drkun_tui.training.data.dataset")
        check = importlib.import_module("drkun_tui.training.checking.check")
        vocabulary = importlib.import_module("drkun_tui.training.checking.vocabulary")
    except ImportError as error:
        raise data_error("packages_missing", packages=error.name or "pyarrow", extra="data") from error
    # Looked at first: a model that is none should not cost the reading of the data.
    renderer = check.renderer(vocabulary.tokenizer_of(model), options.template)
    with tempfile.TemporaryDirectory(prefix="drkun-data-") as name:
        folder = Path(name)
        try:
            read = _progress(arguments, "data.reading", in_bytes=not arguments.hub)
            summary = dataset.check(options, folder, Training().seed, read, lambda: False)
            rows = check.rows(folder, arguments.show, arguments.limit) if arguments.show else None
            if rows is not None and not arguments.json:
                _clear()
                _print_rows(rows, (summary.dropped | summary.flagged).get(arguments.show, 0))
                return EXIT_DONE
            counted = _progress(arguments, "data.tokenizing", in_bytes=False)
            tokens = check.measure(folder, model.name, renderer, options.system, arguments.length, counted)
        finally:
            _clear()
        preview = check.preview(folder, PREVIEW)
        examples = check.examples(folder, renderer, options.system, arguments.length, PREVIEW)
    if arguments.json:
        told = _as_dict(summary, preview)
        told |= {"tokens": msgspec.to_builtins(tokens), "examples": msgspec.to_builtins(examples)}
        if rows is not None:
            told["shown_rows"] = msgspec.to_builtins(rows)
        print(json.dumps(told, ensure_ascii=False))
    else:
        _print(summary, preview, arguments.path)
        _print_tokens(tokens, examples)
    return EXIT_DONE


def _mapping(texts: Sequence[str]) -> dict[str, str]:
    mapping = {}
    for text in texts:
        role, sign, column = text.partition("=")
        if not (role and sign and column):
            raise data_error("bad_mapping", text=text)
        mapping[role] = column
    return mapping


def _progress(arguments: argparse.Namespace, key: str, *, in_bytes: bool) -> Callable[[int, int], None]:
    """How far it is, on a terminal."""
    if arguments.json or not sys.stderr.isatty():
        return lambda _done, _total: None

    def show(done: int, total: int) -> None:
        amounts = (size(count) if in_bytes else f"{count:,}" for count in (done, total))
        line = t(key, **dict(zip(("done", "total"), amounts, strict=True)))
        width = shutil.get_terminal_size().columns - 1
        print(CLEAR + cell(line, width).rstrip(), end="", flush=True, file=sys.stderr)

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        print(CLEAR, end="", flush=True, file=sys.stderr)


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
    counts = data_text.counts(summary)
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
    if listed := summary.dropped | summary.flagged:
        print()
        print(t("data.see_rows", path=one_line(path, 200), reason=next(iter(listed))))


def _print_tokens(tokens: Tokens, examples: list[Shown]) -> None:
    print()
    print(t("data.tokens_of", model=one_line(tokens.model, 60)))
    facts = [list(fact) for fact in data_text.token_facts(tokens)]
    _print_table(facts, (60, 16), right=(1,))
    if warning := data_text.token_warning(tokens):
        print(f"! {warning}")
    print()
    _print_table(data_text.histogram(tokens.histogram), (12, 12, data_text.BAR), right=(0, 1))
    if not examples:
        return
    print()
    print(t("data.legend", sign=data_text.TRAINED.strip()))
    styled = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    styles = {"strong": BOLD, "label": BOLD, "dim": DIM} if styled else {}
    width = min(WIDEST, shutil.get_terminal_size().columns)
    for example in examples:
        print()
        for line in data_text.example_lines(example, width):
            parts = (styles.get(span.style, "") + span.text + (PLAIN if styles else "") for span in line)
            print("".join(parts).rstrip())


def _print_rows(rows: list[Row], count: int) -> None:
    if not rows:
        print(t("data.none_dropped"))
        return
    lines = [["#", t("data.file"), "", t("data.question"), t("data.answer")]]
    for row in rows:
        texts = [one_line(text, 24) for text in (row.source, data_text.detail(row))]
        texts += [one_line(text, 44) for text in (row.question, row.answer)]
        lines.append([str(row.row + 1), *texts])
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
