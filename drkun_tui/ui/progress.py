"""How long work is shown, the same everywhere: what, how much of how much, how fast, how much longer."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text

from drkun_tui.engine.protocol import Loading
from drkun_tui.i18n import t
from drkun_tui.ui.table import GAP, cell, size

BAR = 12
"""Cells of the bar; it is of ASCII, because terminals disagree on the width of block characters."""


def duration(seconds: float) -> str:
    """Seconds as people read them: ``"4 s"``, ``"3:31"``, ``"1:02:09"``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return t("progress.seconds", seconds=whole)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bar(done: int, total: int, full: Style, empty: Style, width: int = BAR) -> Text:
    """A bar of `width` cells, and the share as a number."""
    share = min(1.0, done / total) if total else 0.0
    filled = int(share * width)
    return Text.assemble(("=" * filled, full), ("-" * (width - filled), empty), f" {share:4.0%}")


def bytes_text(done: int, total: int) -> str:
    """How much of how much, in one unit and in cells that do not jump: ``" 5.1 / 15.2 GB"``."""
    unit = next((u for u in (10**9, 10**6) if total >= u), 1000)
    name = {10**9: "GB", 10**6: "MB", 1000: "kB"}[unit]
    digits = 1 if total < 100 * unit else 0
    return f"{done / unit:4.{digits}f} / {total / unit:4.{digits}f} {name}"


def loading_text(event: Loading) -> str:
    """How far a load is: ``"loading 3.1 / 7.5 GB, shard 2/3"``."""
    stage = t(f"consult.loading_{event.stage}")
    if event.stage != "weights":
        return stage
    if not event.total_bytes:
        return f"{stage} {event.fraction:.0%}"
    read = " ".join(bytes_text(event.done_bytes, event.total_bytes).split())
    shard = t("consult.loading_shard", shard=event.shard, shards=event.shards) if event.shards > 1 else ""
    return f"{stage} {read}{shard}"


def rate_text(speed: float, eta_s: float | None) -> str:
    """Bytes a second, and the time left where it is known."""
    rate = cell(f"{size(int(speed))}/s" if speed else "", 9, right=True)
    left = t("progress.left", time=duration(eta_s)) if eta_s is not None else ""
    return rate + GAP + left
