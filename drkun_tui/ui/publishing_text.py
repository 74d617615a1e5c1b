"""Exports and uploads as lines of text, the same on the screen and in the shell."""

from __future__ import annotations

from drkun_tui.i18n import t
from drkun_tui.publishing.protocol import Progress, Proved
from drkun_tui.publishing.upload_protocol import Progress as Sent
from drkun_tui.ui.progress import duration
from drkun_tui.ui.table import size


def progress_text(event: Progress | Sent) -> str:
    """How far a stage is, in one line."""
    stage = event.stage if isinstance(event, Progress) else "uploading"
    left = "" if event.eta_s is None else t("progress.left", time=duration(event.eta_s))
    if stage == "calibrating":
        told = {"done": event.done, "total": event.total, "speed": f"{event.speed:.0f}"}
        return t("publishing.progress_tokens", stage=t("publishing.phase_calibrating"), **told, left=left)
    return t(
        "publishing.progress",
        stage=t(f"publishing.phase_{stage}"),
        done=size(event.done),
        total=size(event.total),
        speed=size(int(event.speed)),
        left=left,
    )


def proved_text(event: Proved) -> str:
    """How near a result is to its source, in one line."""
    return t(
        "publishing.proved",
        positions=event.positions,
        agreement=f"{event.agreement:.1%}",
        divergence=f"{event.divergence:.2g}",
        same=event.same,
    )
