"""What a hub has as rows of text, for the screen and for ``drkun search`` and ``drkun pull --list``."""

from __future__ import annotations

from collections.abc import Sequence

from drkun_tui.i18n import t
from drkun_tui.library.hub.fitting import Verdict
from drkun_tui.library.hub.offers import Offer
from drkun_tui.library.hub.protocol import Found
from drkun_tui.library.hub.recommended import Recommendation
from drkun_tui.ui.table import GAP, cell, fit_columns, size
from drkun_tui.ui.typeset.sanitise import one_line


def fit_text(verdict: Verdict) -> str:
    """Does it fit, and how, in a few words."""
    if not verdict.fits:
        return t("fetch_screen.too_big")
    return t(f"fetch_screen.fits_{verdict.profile}" if verdict.profile else "fetch_screen.fits")


def offer_cells(offer: Offer, whole: bool) -> tuple[str, str, str]:
    """Name, size and fit of what can be fetched of a repository.

    Args:
        whole: is it all that there is?
    """
    if not offer.quantization:
        name = t("fetch_screen.whole" if whole else "fetch_screen.safetensors", files=len(offer.files))
    else:
        name = one_line(offer.quantization if offer.alone else offer.name, 48)
    return name, size(offer.size), fit_text(offer.verdict)


def found_cells(found: Found) -> tuple[str, str, str]:
    """Repository, parameters and what else matters of a search's result."""
    parameters = f"{found.parameters / 1e9:.1f} B" if found.parameters else ""
    said = [t("fetch_screen.downloads", count=f"{found.downloads:,}")]
    if found.gated:
        said.insert(0, t("fetch_screen.gated"))
    return one_line(found.repo, 60), parameters, "  ".join(said)


def recommended_cells(model: Recommendation) -> tuple[str, str, str]:
    """Repository, size and what it is good for."""
    return one_line(model.repo, 60), size_of(model), one_line(model.text, 80)


def size_of(model: Recommendation) -> str:
    """The size of a recommended model's download; "" where it is unknown."""
    return size(model.bytes) if model.bytes else ""


def table(rows: Sequence[Sequence[str]], most: Sequence[int], right: Sequence[int]) -> list[str]:
    """Rows as lines whose columns line up.

    Args:
        most: cells of each column.
        right: columns that are right-aligned.
    """
    widths = fit_columns(rows, most)
    return [
        GAP.join(
            cell(text, width, right=column in right)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
