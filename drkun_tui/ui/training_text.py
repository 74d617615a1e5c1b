"""A training run as text: its line in the list, what it is, its numbers, its curves, its last answer."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from drkun_tui.i18n import t
from drkun_tui.training.history import History, smoothed
from drkun_tui.training.protocol import Sample
from drkun_tui.training.runs import Run, error_of
from drkun_tui.ui.plot import Curve
from drkun_tui.ui.progress import duration
from drkun_tui.ui.table import GAP, cell, middle_cut
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, wrap

GIB = 1024**3
HELD_OUT_SIGN = "o"
SIGNS = "ABCDEFGH"
COMPARED_STYLES = ("accent", "warning", "strong", "quote")
"""The letters tell more runs apart than there are quiet colours."""

_PHASE_STYLES = {"failed": "danger", "stopped": "warning", "done": "dim"}

BLANK: Line = ()


# The list


def run_lines(runs: Sequence[Run], marked: Mapping[str, str], width: int) -> list[Line]:
    """A line for each run: its letter if it is marked, adapter, phase, steps, loss, and when.

    Args:
        marked: letters by the runs' ids.
        width: cells; what has no room goes, the time first.
    """
    rows = []
    for run in runs:
        steps = run.history.steps
        total = run.history.total_steps
        rows.append(
            (
                one_line(run.name, 60),
                t(f"runs.phase_{run.phase}"),
                f"{run.history.step:,}/{total:,}" if total else "",
                f"{steps[-1].loss:.3f}" if steps else "",
                _when(run.updated),
            )
        )
    widths = [max((cell_len(row[column]) for row in rows), default=0) for column in range(5)]
    shown = 5
    room = width - 2
    while shown > 3 and sum(widths[1:shown]) + (shown - 1) * len(GAP) + 12 > room:
        shown -= 1
    name = max(8, min(widths[0], room - sum(widths[1:shown]) - (shown - 1) * len(GAP)))
    lines: list[Line] = []
    for run, row in zip(runs, rows, strict=True):
        figures = GAP.join(cell(row[at], widths[at], right=True) for at in range(2, shown))
        lines.append(
            (
                Span(f"{marked.get(run.id, ' ')} ", "label"),
                Span(cell(middle_cut(row[0], name), name) + GAP, "strong" if run.running else ""),
                Span(cell(row[1], widths[1]) + GAP, _PHASE_STYLES.get(run.phase, "accent")),
                Span(figures, "" if run.running else "dim"),
            )
        )
    return lines


def _when(updated: float) -> str:
    if not updated:
        return ""
    then = datetime.datetime.fromtimestamp(updated)
    today = datetime.datetime.now().date() == then.date()
    return then.strftime("%H:%M" if today else "%m-%d")


# What it is


def head_lines(run: Run, history: History, width: int) -> list[Line]:
    """Name and phase; base, data, preset, device, rows in a step; what went wrong, with its remedy."""
    data, base = run.recipe.data, run.recipe.base.model
    parts = [_last_part(base), _last_part(data.hub or data.path), run.recipe.preset]
    if (planned := history.planned) is not None:
        parts += [planned.device, planned.backend]
        parts += [t("training_screen.sharded")] if planned.sharded else []
        parts.append(t("training_screen.rows_per_step", rows=f"{planned.rows_per_step:.0f}"))
    if (prepared := history.prepared) is not None:
        parts.append(t("training_screen.rows", rows=f"{prepared.rows:,}"))
    phase = t(f"runs.phase_{run.phase}")
    name = Span(middle_cut(one_line(run.name, 80), max(12, width - cell_len(phase) - 4)), "strong")
    lines: list[Line] = [(name, Span(GAP + phase, _PHASE_STYLES.get(run.phase, "accent")))]
    said = "   ".join(one_line(part, 40) for part in parts if part)
    lines.append((Span(one_line_of(said, width), "dim"),))
    if run.error is not None:
        told = f"x {clean(run.error.message)}  {clean(run.error.hint)}".rstrip()
        lines += wrap([Span(" ".join(told.split()), "danger")], width, hanging=2)
    for warned in history.warnings[-2:]:
        told = clean(error_of(warned.kind, warned.values).message)
        lines += wrap([Span("! " + " ".join(told.split()), "warning")], width, hanging=2)
    return lines


def one_line_of(text: str, width: int) -> str:
    """A line that is fit already, in at most so many cells."""
    return text if cell_len(text) <= width else cell(text, width)


def _last_part(path: str) -> str:
    """Of a path the end, of a name all of it."""
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if path.startswith(("/", "~")) else path


# Numbers


def numbers(history: History, gpu_percent: int | None = None) -> list[tuple[str, str]]:
    """Labels and values, in the order of reading; "" is not known.

    Args:
        gpu_percent: of its time in which the GPU works; None is not known.
    """
    last = history.steps[-1] if history.steps else None
    held_out = [f"{look.loss:.3f}" for look in history.held_out]
    average = smoothed(step.loss for step in history.steps[-200:])
    values = {
        "step": f"{history.step:,} / {history.total_steps:,}" if history.planned else "",
        "loss": f"{last.loss:.4f}" if last else "",
        "tok_s": f"{last.tok_s:,.0f}" if last and last.tok_s else "",
        "epoch": f"{last.epoch:.2f}" if last else "",
        "smoothed": f"{average[-1]:.4f}" if average else "",
        "eta": duration(last.eta_s) if last and not history.end else "",
        "rate": f"{last.learning_rate:.2e}" if last else "",
        "held_out": " > ".join([held_out[0], held_out[-1]][: len(held_out)]) if held_out else "",
        "memory": f"{last.memory_bytes / GIB:.2f} GiB" if last and last.memory_bytes else "",
        "tokens": f"{last.tokens:,}" if last else "",
        "grad_norm": f"{last.grad_norm:.3f}" if last else "",
        "saved": f"{history.saved:,}" if history.saved else "",
    }
    if gpu_percent is not None:
        values = {("gpu" if name == "memory" else name): value for name, value in values.items()}
        values["gpu"] = f"{gpu_percent}%  {values['gpu']}".rstrip()
    return [(t(f"training_screen.number_{name}"), value or "-") for name, value in values.items()]


def number_lines(history: History, width: int, gpu_percent: int | None = None) -> list[Line]:
    """The numbers in as many columns as have room, each of them right-aligned."""
    shown = numbers(history, gpu_percent)
    labels = max(cell_len(label) for label, _ in shown)
    values = max(15, *(cell_len(value) for _, value in shown))
    columns = max(1, min(3, (width + 4) // (labels + values + 6)))
    while len(shown) % columns:
        columns -= 1
    lines: list[Line] = []
    for begin in range(0, len(shown), columns):
        spans: list[Span] = []
        for label, value in shown[begin : begin + columns]:
            spans += [Span(cell(label, labels) + GAP, "dim"), Span(cell(value, values, right=True) + "    ")]
        lines.append(tuple(spans))
    return lines


# Curves


def loss_curves(history: History) -> tuple[Line, list[Curve]]:
    """The title and the curves of the loss: each step faint, smoothed, and held out."""
    xs = [step.step for step in history.steps]
    losses = [step.loss for step in history.steps]
    looks = history.held_out
    looked, found = [float(look.step) for look in looks], [look.loss for look in looks]
    curves = [
        Curve(xs, losses, "faint"),
        Curve(xs, smoothed(losses), "accent"),
        Curve(looked, found, "warning", HELD_OUT_SIGN, joined=False),
    ]
    title = [Span(t("training_screen.loss"), "strong")]
    if losses:
        least, most = min(losses), max(losses)
        title += [
            Span("   ⠤⠤ ", "accent"),
            Span(t("training_screen.smoothed"), "dim"),
            Span("   ⢆⡠ ", "faint"),
            Span(t("training_screen.each_step"), "dim"),
        ]
        if looks:
            title += [Span(f"   {HELD_OUT_SIGN} ", "warning"), Span(t("training_screen.held_out"), "dim")]
        title.append(Span(t("training_screen.range", least=f"{least:.3f}", most=f"{most:.3f}"), "dim"))
    return tuple(title), curves


def compared_curves(named: Sequence[tuple[str, str, History]]) -> tuple[Line, list[Curve]]:
    """The smoothed losses of several runs, told apart by letters.

    Args:
        named: letter, name and history of each.
    """
    title = [Span(t("training_screen.loss"), "strong")]
    curves = []
    for number, (sign, name, history) in enumerate(named):
        style = COMPARED_STYLES[number % len(COMPARED_STYLES)]
        losses = smoothed(step.loss for step in history.steps)
        curves.append(Curve([step.step for step in history.steps], losses, style, sign))
        last = f" {losses[-1]:.3f}" if losses else ""
        title += [Span(f"   {sign} ", style), Span(middle_cut(one_line(name, 60), 18) + last, "dim")]
    return tuple(title), curves


def rate_curves(history: History) -> tuple[Line, list[Curve]]:
    """The title and the curve of the learning rate."""
    rates = [step.learning_rate for step in history.steps]
    title = [Span(t("training_screen.rate"), "strong")]
    if rates:
        title.append(Span(f"   {rates[-1]:.2e}", "dim"))
    return tuple(title), [Curve([step.step for step in history.steps], rates, "quote")]


# The last answer


def sample_lines(sample: Sample | None, width: int) -> list[Line]:
    """What the model answers to a held-out question; it may say anything."""
    if sample is None:
        return []
    lines: list[Line] = [
        (
            Span(t("training_screen.sample", step=f"{sample.step:,}"), "strong"),
            Span(GAP + t("training_screen.by_model"), "warning"),
        )
    ]
    for name, text, style in (
        ("question", sample.question, ""),
        ("thinking", sample.thinking, "dim"),
        ("answer", sample.answer, ""),
    ):
        if shown := clean(text).strip():
            label = t(f"training_screen.{name}") + GAP
            margin = cell_len(label)
            wrapped = wrap([Span(shown, style)], max(8, width - margin))
            lines += [
                (Span(label if number == 0 else " " * margin, "label"), *line)
                for number, line in enumerate(wrapped)
            ]
    return lines
