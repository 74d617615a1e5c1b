"""The page ``docs/benchmarks.md``: the table, how to repeat it, and what each row means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import machine, report
from benchmarks.machine import Bench


def summary(rows: Mapping[str, Sequence[report.Row]], bench: Bench, seconds: float) -> str:
    """What is printed: the machine, the table, how quiet it was, and the notes."""
    lines = [machine.describe(), ""]
    lines.append(report.table([row for group in rows.values() for row in group]))
    lines += ["", f"{bench.rounds} rounds in {seconds / 60:.0f} minutes. {bench.quietness()}"]
    lines += [f"- {note}" for note in bench.notes]
    return "\n".join(lines)


def whole(text: str, groups: Sequence[str]) -> str:
    """The page around a summary."""
    return text
