"""``drkun pull --list`` and ``drkun pull --card``: look at a repository, and fetch nothing."""

from __future__ import annotations

import json
import sys

from drkun_tui import hardware
from drkun_tui.i18n import t
from drkun_tui.library.hub import downloads
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.offers import offers
from drkun_tui.library.hub.protocol import Request
from drkun_tui.ui.hub_rows import offer_cells, table
from drkun_tui.ui.typeset.sanitise import clean

MOST = (1, 48, 10, 24, 24)
RIGHT = (2,)


async def show_files(request: Request, *, as_json: bool) -> None:
    """Print what of a repository can be fetched.

    Raises:
        DrkunError: as `downloads.files`, or there is nothing to fetch.
    """
    listing = await downloads.files(request.hub, request.repo, request.revision)
    try:
        offered = offers(listing, hardware.read())
    except HubError as error:
        raise downloads.error_of(error.kind, error.values) from error
    if as_json:
        told = {"hub": request.hub, "repo": request.repo, "revision": listing.revision}
        print(json.dumps({**told, "offers": [offer.as_dict() for offer in offered]}, ensure_ascii=False))
        return
    rows = [
        (
            "*" if offer.default else "",
            *offer_cells(offer, whole=len(offered) == 1),
            t("pull.default") if offer.default else "",
        )
        for offer in offered
    ]
    for line in table(rows, MOST, RIGHT):
        print(line)


async def show_card(request: Request, *, as_json: bool) -> None:
    """Print a repository's card.

    Raises:
        DrkunError: as `downloads.card`.
    """
    text = clean(await downloads.card(request.hub, request.repo, request.revision)).strip()
    if not text:
        # A hub may say the same of a repository that is not there; its listing tells them apart.
        await downloads.files(request.hub, request.repo, request.revision)
    if as_json:
        print(json.dumps({"hub": request.hub, "repo": request.repo, "card": text}, ensure_ascii=False))
    elif text:
        print(text)
    else:
        print(t("fetch_screen.no_card"), file=sys.stderr)
