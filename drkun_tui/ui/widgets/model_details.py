"""All about the highlighted model that matters before one uses it."""

from __future__ import annotations

from textual import events

from drkun_tui import paths
from drkun_tui.i18n import t
from drkun_tui.library.overview import Entry
from drkun_tui.library.speed import PROMPT_TOKENS, Speed
from drkun_tui.ui import model_rows
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, wrap
from drkun_tui.ui.widgets.line_view import LineView

MOST_LABEL = 12
"""Cells of the longest label."""

BLANK: Line = ()

Facts = list[tuple[str, str]]


class ModelDetails(LineView):
    """Facts, problems with their remedies, what it needs under each profile, how fast it will be."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._entry: Entry | None = None

    def show(self, entry: Entry | None) -> None:
        """Show this model; None shows nothing. The one that is shown stays where it was read."""
        if entry is self._entry:
            return
        self._entry = entry
        self._typeset()
        self.scroll_home(animate=False)

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        """Break the lines anew."""
        self._typeset()

    def _typeset(self) -> None:
        self.lines = _lines(self._entry, max(20, self.size.width)) if self._entry else []
        self.lines_changed(0, follow=False)


def _lines(entry: Entry, width: int) -> list[Line]:
    model = entry.model
    lines = wrap([Span(one_line(model.name, 200), "strong")], width)
    if model.demonstration:
        lines += wrap([Span(t("consult.demonstration"), "warning")], width)
    for problem in model.problems:
        lines += [BLANK, *wrap([Span(f"! {clean(problem.text)}", "warning")], width, hanging=2)]
        lines += wrap([Span(clean(problem.remedy))], width, 2)
    lines += [BLANK, *_table(_facts(entry), width)]
    if model.shape is not None:
        needs = [(t(f"profile.{name}"), fit.reason) for name, fit in entry.fits.items()]
        lines += [BLANK, *_table(needs, width)]
    if entry.speeds:
        lines += [BLANK, *_table(_speeds(entry), width)]
    return [*lines, BLANK, *wrap([Span(clean(paths.shown(model.path)), "dim")], width)]


def _table(facts: Facts, width: int) -> list[Line]:
    shown = [(label, clean(value)) for label, value in facts if value]
    before = fit_columns([[label] for label, _ in shown], (MOST_LABEL,))[0] + len(GAP)
    lines: list[Line] = []
    for label, value in shown:
        for number, line in enumerate(wrap([Span(value)], width - before)):
            margin = cell(label if number == 0 else "", before)
            lines.append((Span(margin, "dim"), *line))
    return lines


def _facts(entry: Entry) -> Facts:
    model = entry.model
    return [
        (t("models.column_kind"), model_rows.kind(model)),
        (t("models.base"), entry.base.name if entry.base else model.base_model or ""),
        (t("models.alpha"), f"{model.alpha:g}" if model.alpha else ""),
        (t("models.targets"), " ".join(model.target_modules)),
        (t("models.trained"), t("models.trained_here") if model.provenance else ""),
        (t("models.architecture"), model.architecture or ""),
        (t("models.parameters"), f"{model.parameters / 1e6:,.1f} M" if model.parameters else ""),
        (t("models.column_size"), size(model.size_bytes)),
        (t("models.column_context"), f"{model.context_length:,}" if model.context_length else ""),
        (t("models.column_source"), t(f"inventory.source_{model.source.value}")),
    ]


def _speeds(entry: Entry) -> Facts:
    """How fast it answers under each profile that can load it; where that is one, it needs no name."""
    one = len(entry.speeds) == 1
    return [
        (t("models.speed") if one else t("models.speed_under", profile=t(f"profile.{name}")), _speed(speed))
        for name, speed in entry.speeds.items()
    ]


def _speed(speed: Speed | None) -> str:
    if speed is None:
        return t("models.speed_unknown")
    first = t("models.first_token", seconds=f"{speed.ttft_s:.2f}", tokens=PROMPT_TOKENS)
    decode_basis, first_basis = t(f"speed.{speed.label}"), t(f"speed.{speed.ttft_label}")
    return f"{speed.decode_tok_s:,.1f} tok/s {decode_basis}  {first} {first_basis}"
