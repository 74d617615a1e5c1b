"""Evaluations as text, for the screen and for ``drkun eval``: the list, how far one is, what it has found."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import PurePath

from rich.cells import cell_len

from drkun_tui.evaluation.evaluations import Evaluation
from drkun_tui.evaluation.progress import Progress
from drkun_tui.evaluation.protocol import Difference, Figure, Result, written
from drkun_tui.i18n import t
from drkun_tui.ui.progress import duration
from drkun_tui.ui.table import GAP, cell, fit_columns, middle_cut
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, wrap

BAR = 24
"""Cells of a bar, which are of ASCII: terminals disagree on the width of block characters."""

WIDEST = 48
"""Cells of a column, where there is room for all."""

_GIVES_WAY = ("count", "interval")
"""Columns of the table of figures that go where there is no room, in this order."""

_PHASE_STYLES = {"failed": "danger", "stopped": "warning", "done": "dim"}


def name_of(model: str, adapter: str | None) -> str:
    """What answered."""
    return one_line(f"{model} + {adapter}" if adapter else model, 120)


def asked(evaluation: Evaluation) -> str:
    """What answers, or did."""
    return name_of(evaluation.order.settings.model, evaluation.order.settings.adapter)


def suite_of(evaluation: Evaluation) -> str:
    """What the suite is called, without its folders."""
    if evaluation.prepared is not None:
        return one_line(evaluation.prepared.suite, 60)
    return one_line(PurePath(evaluation.order.suite).name, 60)


# The list


def list_lines(evaluations: Sequence[Evaluation], compared: str, width: int) -> list[Line]:
    """The names of the columns, and a line for each: what answers, the suite, how it stands, questions, when.

    Args:
        compared: id of the one that the highlighted one is compared with, which is marked.
        width: cells; names give way.
    """
    rows = [
        (
            asked(each),
            suite_of(each),
            t(f"evaluation.phase_{each.phase}"),
            f"{each.prepared.questions:,}" if each.prepared else "",
            when(each.updated),
        )
        for each in evaluations
    ]
    head = tuple(t(f"evaluation.{name}") for name in ("model", "suite", "phase", "count", "when"))
    widths = fit_columns([head, *rows], (width, 36, 12, 9, 12))
    room = max(24, width - 2 - sum(widths[2:]) - 4 * len(GAP))
    # A name says more than a file: it gets what both need, or two thirds of what there is.
    suite = min(widths[1], max(room - widths[0], room // 3))
    name = min(widths[0], room - suite)
    names = (cell(head[0], name), cell(head[1], suite), cell(head[2], widths[2]))
    numbers = (cell(text, wide, right=True) for text, wide in zip(head[3:], widths[3:], strict=True))
    lines: list[Line] = [(Span("  " + GAP.join((*names, *numbers)), "dim"),)]
    for each, row in zip(evaluations, rows, strict=True):
        live = "strong" if each.running else ""
        lines.append(
            (
                Span("= " if each.id == compared else "  ", "label"),
                Span(cell(middle_cut(row[0], name), name) + GAP, live),
                Span(cell(middle_cut(row[1], suite), suite) + GAP, live or "dim"),
                Span(cell(row[2], widths[2]) + GAP, _PHASE_STYLES.get(each.phase, "accent")),
                Span(cell(row[3], widths[3], right=True) + GAP, live or "dim"),
                Span(cell(row[4], widths[4], right=True), "dim"),
            )
        )
    return lines


def when(updated: float) -> str:
    """A time of today as such, another as its day."""
    if not updated:
        return ""
    then = datetime.datetime.fromtimestamp(updated)
    today = datetime.datetime.now().date() == then.date()
    return then.strftime("%H:%M" if today else "%m-%d")


# How far it is


def state_lines(evaluation: Evaluation, progress: Progress, width: int) -> list[Line]:
    """What is evaluated on what; while it runs how far it is; what went wrong, with its remedy."""
    phase = t(f"evaluation.phase_{evaluation.phase}")
    name = middle_cut(asked(evaluation), max(12, width - cell_len(phase) - len(GAP)))
    told = [suite_of(evaluation)]
    prepared = progress.prepared or evaluation.prepared
    if prepared is not None:
        told.append(t("evaluation_screen.questions", questions=f"{prepared.questions:,}"))
        if prepared.rows != prepared.questions:
            told.append(t("evaluation_screen.rows", rows=f"{prepared.rows:,}"))
    sampling = evaluation.order.settings.sampling
    told.append(t("evaluation_screen.temperature", temperature=f"{sampling.temperature:g}"))
    if sampling.max_tokens:
        told.append(t("evaluation_screen.tokens", tokens=f"{sampling.max_tokens:,}"))
    lines: list[Line] = [
        (Span(name + GAP, "strong"), Span(phase, _PHASE_STYLES.get(evaluation.phase, "accent"))),
        *wrap([Span("   ".join(told), "dim")], width),
    ]
    if evaluation.error is not None:
        said = clean(f"x {evaluation.error.message}  {evaluation.error.hint}")
        lines += wrap([Span(" ".join(said.split()), "danger")], width, hanging=2)
    if progress.total and evaluation.phase != "done":
        lines.append(progress_line(progress, running=evaluation.running))
    if prepared is not None and evaluation.result is None and prepared.dropped:
        lines += wrap([Span(t("evaluation.dropped", reasons=reasons(prepared.dropped)), "dim")], width)
    return lines


def progress_line(progress: Progress, *, running: bool) -> Line:
    """A bar, the share, and `progress_text`; of one that does not run how much is kept."""
    filled = progress.done * BAR // progress.total
    bar = (Span("=" * filled, "accent"), Span("-" * (BAR - filled), "faint"))
    share = f" {progress.done / progress.total:4.0%}" + GAP
    return (*bar, Span(share + progress_text(progress, running=running)))


def progress_text(progress: Progress, *, running: bool = True) -> str:
    """How many of how many; while it runs, and once that is known, how fast and how much longer."""
    told = f"{progress.done:,} / {progress.total:,}"
    if progress.left_s is None or not running:
        return told
    left = duration(progress.left_s)
    return told + GAP + t("evaluation.progress", rate=f"{progress.rate:.1f}", left=left)


def reasons(dropped: dict[str, int]) -> str:
    """Why rows were left out, and how many."""
    return ", ".join(f"{t(f'evaluation.reason_{reason}')} {count}" for reason, count in dropped.items())


# What was found


def title(result: Result) -> str:
    """Suite, questions, and what answered."""
    model = name_of(result.model, result.adapter)
    return t("evaluation.of", suite=one_line(result.suite, 80), questions=result.questions, model=model)


def figure_lines(
    result: Result, before: Result | None, differences: Sequence[Difference], width: int | None = None
) -> list[Line]:
    """The figures with their intervals, beside those of an evaluation before where there is one.

    Args:
        width: cells that there are; what has no room goes. None for any number.
    """
    shown = {difference.name: difference for difference in differences}
    heads = ["metric", *(["before", "after"] if before else ["value"]), "interval", "count"]
    heads += ["difference"] if before else []
    rows = [[t(f"evaluation.{head}") for head in heads]]
    for figure in result.figures:
        name = figure.name
        old = before.figure(name) if before else None
        cells = {
            "metric": t(f"evaluation.metric_{name}"),
            "before": written(name, old.value) if old else "",
            "interval": f"{written(name, figure.low)} – {written(name, figure.high)}",
            "count": f"{figure.count:,}",
            "difference": _difference(shown[name]) if name in shown else "",
        }
        rows.append([cells.get(head, written(name, figure.value)) for head in heads])
    for name in _GIVES_WAY:
        if width is not None and _width(rows) > width:
            at = heads.index(name)
            heads, rows = heads[:at] + heads[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]
    styles = {"metric": "", "before": "dim", "interval": "dim", "count": "dim"}
    lines = []
    widths = fit_columns(rows, [WIDEST] * len(heads))
    for number, row in enumerate(rows):
        spans = []
        for head, text, cells_wide in zip(heads, row, widths, strict=True):
            style = styles.get(head, "strong" if head != "difference" else "")
            if head == "difference" and number:
                difference = shown.get(result.figures[number - 1].name)
                style = "accent" if difference is not None and difference.shown else "dim"
            text = cell(text, cells_wide, right=head not in ("metric", "difference"))
            spans.append(Span(text if head == "metric" else GAP + text, "dim" if not number else style))
        lines.append(_trimmed(spans))
    return lines


def _width(rows: Sequence[Sequence[str]]) -> int:
    widths = fit_columns(rows, [WIDEST] * len(rows[0]))
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _trimmed(spans: list[Span]) -> Line:
    return (*spans[:-1], Span(spans[-1].text.rstrip(), spans[-1].style))


def _difference(difference: Difference) -> str:
    if difference.p is not None:
        p = t("evaluation.p_small") if difference.p < 0.001 else f"p = {difference.p:.3f}"
    else:
        low, high = (written(difference.name, bound) for bound in (difference.low, difference.high))
        p = f"{low} – {high}"
    return t("evaluation.shown" if difference.shown else "evaluation.none_shown", p=p)


def bar_lines(result: Result, before: Result | None = None) -> list[Line]:
    """The shares as bars with their intervals between brackets, below those of an evaluation before."""
    figures = [figure for figure in result.figures if figure.is_share]
    if not figures:
        return []
    labels = {figure.name: t(f"evaluation.metric_{figure.name}") for figure in figures}
    width = max(map(cell_len, labels.values()))
    sides = [t("evaluation.before"), t("evaluation.after")] if before else [""]
    side = max(map(cell_len, sides))
    lines: list[Line] = []
    for figure in figures:
        old = before.figure(figure.name) if before else None
        for told, name in ((old, sides[0]), (figure, sides[-1])):
            if told is None:
                continue
            first = told is old or old is None
            label = cell(labels[figure.name] if first else "", width) + GAP
            value = cell(written(told.name, told.value), 7, right=True)
            style = "dim" if told is old else "accent"
            lines.append(
                (
                    Span(label),
                    Span(cell(name, side) + GAP if side else "", "dim"),
                    Span(_bar(told), style),
                    Span(GAP + value, "dim" if told is old else ""),
                )
            )
    return lines


def _bar(figure: Figure) -> str:
    cells = ["=" if place < round(figure.value * BAR) else "." for place in range(BAR)]
    cells.insert(round(figure.high * BAR), "]")
    cells.insert(round(figure.low * BAR), "[")
    return "".join(cells)


def remarks(result: Result, before: Result | None) -> list[str]:
    """What the figures should be read with."""
    lines = []
    if result.overlap is not None:
        told = result.overlap
        values = {"same": told.same, "near": told.near, "rows": told.rows, "questions": result.questions}
        lines.append(t("evaluation.overlap" if told.rows else "evaluation.overlap_unknown", **values))
    for key, failures in (("failed", result.failed), ("unscored", result.unscored)):
        if failures:
            kinds = ", ".join(f"{kind} {count}" for kind, count in failures.items())
            lines.append(t(f"evaluation.{key}", kinds=kinds))
    if result.dropped:
        lines.append(t("evaluation.dropped", reasons=reasons(result.dropped)))
    if before is not None:
        lines.append(t("evaluation.how_compared"))
    if result.demonstration:
        lines.append(t("evaluation.demonstration"))
    return [clean(line) for line in lines]


def took(result: Result) -> str:
    """How long it took, and how fast that was."""
    rate = result.questions / result.seconds if result.seconds else 0.0
    return t("evaluation.took", time=duration(result.seconds), rate=f"{rate:.1f}")
