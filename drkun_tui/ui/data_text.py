"""What a data check has found, as rows and lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from drkun_tui.i18n import t
from drkun_tui.training.checking.protocol import Row, Shown, Tokens
from drkun_tui.training.data.summary import EDGES, Summary
from drkun_tui.ui.table import GAP, cell
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, wrap

BAR = 24
"""Cells of the longest bar of a histogram."""

TRAINED, PROMPT = "> ", "  "
"""What stands before each line of an example that is trained on, and of its prompt."""


def counts(summary: Summary) -> list[list[str]]:
    """Rows: what they are, how many, and the name by which they are listed."""
    found = [
        [t(f"data.{name}"), f"{getattr(summary, name):,}", ""]
        for name in ("rows", "usable", "train", "held_out", "unused")
        if name != "unused" or summary.unused
    ]
    for reason, count in summary.dropped.items():
        found.append([f"{t('data.dropped')}: {t(f'data.reason_{reason}')}", f"{count:,}", reason])
    for flag, count in summary.flagged.items():
        found.append([f"{t('data.flagged')}: {t(f'data.flag_{flag}')}", f"{count:,}", flag])
    return found


def reason(name: str) -> str:
    """Why a row was left out or is flagged, in words."""
    return t(f"data.flag_{name}" if name == "personal" else f"data.reason_{name}")


def token_facts(tokens: Tokens) -> list[tuple[str, str]]:
    """Labels and numbers."""
    facts = [(name, getattr(tokens, name)) for name in ("total", "trained", "median", "p95", "max", "longer")]
    if tokens.masked:
        facts.append(("masked", tokens.masked))
    return [(t(f"data.tokens_{name}", length=tokens.context_length), f"{value:,}") for name, value in facts]


def token_warning(tokens: Tokens) -> str:
    """Why a run on these examples would be refused; "" when nothing speaks against it."""
    if tokens.lost_row:
        return t("training.reasoning_lost", row=tokens.lost_row)
    if tokens.examples and tokens.longer == tokens.examples:
        return t("training.all_masked", rows=tokens.examples, context_length=tokens.context_length)
    return ""


def histogram(bars: Sequence[int]) -> list[list[str]]:
    """For each bar of `EDGES` up to the last that has anything: its edge, its count, itself."""
    last = max((place for place, count in enumerate(bars) if count), default=-1)
    edges = [f"≤ {edge:,}" for edge in EDGES] + [f"> {EDGES[-1]:,}"]
    most = max(bars, default=0)
    return [
        [edge, f"{count:,}", "=" * -(-count * BAR // most)]
        for edge, count in list(zip(edges, bars, strict=True))[: last + 1]
    ]


def example_lines(shown: Shown, width: int) -> list[Line]:
    """An example as the model is trained on it; the trained part is bold and has a sign before each line."""
    numbers = {"row": shown.row + 1, "tokens": f"{shown.tokens:,}", "trained": f"{shown.trained:,}"}
    source = GAP + one_line(shown.source, 40) if shown.source else ""
    lines: list[Line] = [(Span(t("data.example", **numbers), "label"), Span(source, "dim"))]
    for segment in shown.segments:
        sign, style = (TRAINED, "strong") if segment.trained else (PROMPT, "dim")
        # What follows begins a line of its own, so the break that ends this stretch would make an empty one.
        text = clean(segment.text).removesuffix("\n")
        wrapped = wrap([Span(text, style)], max(8, width - cell_len(sign)))
        lines += [(Span(sign, "accent"), *line) for line in wrapped]
    if shown.cut:
        lines.append((Span(t("data.cut", tokens=f"{shown.cut:,}"), "warning"),))
    return lines


def detail(row: Row) -> str:
    """What gave a row away, in words."""
    if row.reason in ("duplicate", "near_duplicate"):
        return t("data.same_as", row=int(row.detail) + 1)
    return row.detail


def row_lines(row: Row, width: int) -> list[Line]:
    """A row that was left out or is flagged: where it stands, what gave it away, and all of its text."""
    head = t("data.row", row=row.row + 1)
    parts = GAP.join(one_line(part, 60) for part in (row.source, detail(row)) if part)
    lines: list[Line] = [(Span(head, "label"), Span(GAP + parts, "dim"))]
    for name in ("question", "reasoning", "answer"):
        if text := clean(getattr(row, name)).strip():
            label = t(f"data.{name}") + GAP
            lines += wrap([Span(label, "dim"), Span(text)], width, hanging=cell_len(label))
    return lines


def summary_lines(summary: Summary, width: int) -> list[Line]:
    """What a form has room for: rows, what is left out and why, what ought to be looked at."""
    parts = [
        t("data.count", name=t(f"data.{name}"), count=f"{getattr(summary, name):,}")
        for name in ("rows", "usable", "train", "held_out", "unused")
        if name != "unused" or summary.unused
    ]
    lines = wrap([Span((GAP + " ").join(parts))], width)
    for label, found, style in (("dropped", summary.dropped, ""), ("flagged", summary.flagged, "warning")):
        if found:
            told = (t("data.count", name=reason(name), count=f"{count:,}") for name, count in found.items())
            head = t(f"data.{label}") + GAP
            lines += wrap(
                [Span(head, "dim"), Span((GAP + " ").join(told), style)], width, hanging=cell_len(head)
            )
    return lines


def token_lines(tokens: Tokens, width: int) -> list[Line]:
    """Tokens of the examples: the numbers, the histogram, and why they could not be trained on."""
    told = (t("data.count", name=label, count=count) for label, count in token_facts(tokens))
    head = t("data.tokens_of", model=one_line(tokens.model, 40)) + GAP
    lines = wrap([Span(head, "dim"), Span((GAP + " ").join(told))], width, hanging=cell_len(head))
    rows = histogram(tokens.histogram)
    first = next((place for place, row in enumerate(rows) if row[2]), 0)
    for edge, count, bar in rows[first:]:
        lines.append(
            (
                Span(cell(edge, 8, right=True) + GAP, "dim"),
                Span(cell(count, 9, right=True) + GAP),
                Span(bar, "accent"),
            )
        )
    if warning := token_warning(tokens):
        lines += wrap([Span(f"! {clean(warning)}", "danger")], width, hanging=2)
    return lines
