"""``drkun search``: models on a hub, by name; without one, what suits this machine."""

from __future__ import annotations

import argparse
import asyncio
import json

import msgspec

from drkun_tui import hardware, paths, settings
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import set_language, t
from drkun_tui.library.hub import downloads
from drkun_tui.library.hub.protocol import Filters, Found, HubName
from drkun_tui.library.hub.recommended import Recommendation, judge, recommended
from drkun_tui.ui.hub_rows import fit_text, size_of, table
from drkun_tui.ui.typeset.sanitise import one_line

COLUMNS = ("repo", "parameters", "downloads", "likes", "updated", "format", "gated")
MOST = (64, 10, 12, 8, 10, 12, 8)
RIGHT = (1, 2, 3)

RECOMMENDED_COLUMNS = ("repo", "quantization", "size", "licence", "hub", "fit", "purpose")
RECOMMENDED_MOST = (64, 12, 10, 14, 10, 24, 160)
RECOMMENDED_RIGHT = (2,)


def run(arguments: argparse.Namespace) -> int:
    """Search, or recommend where nothing is looked for; print a table or an object."""
    saved = settings.load(paths.settings_file())
    set_language(saved.language)
    least, most = arguments.size
    filters = Filters(
        task=arguments.task, language=arguments.language, format=arguments.format, least=least, most=most
    )
    hub = arguments.hub or settings.hub_of(saved)
    if not arguments.query and filters == Filters():
        _recommend(hub, arguments.limit, as_json=arguments.json)
        return EXIT_DONE
    query = " ".join(arguments.query)
    found = asyncio.run(downloads.search(hub, query, filters, max(1, arguments.limit)))
    if arguments.json:
        print(json.dumps({"found": msgspec.to_builtins(found)}, ensure_ascii=False))
        return EXIT_DONE
    rows = [[t(f"search.{name}") for name in COLUMNS], *map(_row, found)]
    for line in table(rows, MOST, RIGHT) if found else [t("search.none")]:
        print(line)
    return EXIT_DONE


def _recommend(hub: HubName, limit: int, *, as_json: bool) -> None:
    machine = hardware.read()
    models = recommended(machine)[: max(1, limit)]
    verdicts = [judge(model, machine) for model in models]
    if as_json:
        told = [
            {
                "hub": model.hub(hub),
                "repo": model.repo,
                "quantization": model.quant or None,
                "size_bytes": model.bytes or None,
                "licence": model.licence or None,
                "purpose": model.text,
                "needs": model.needs or None,
                "fits": verdict.fits,
                "profile": verdict.profile,
            }
            for model, verdict in zip(models, verdicts, strict=True)
        ]
        print(json.dumps({"recommended": told}, ensure_ascii=False))
        return
    rows = [
        [t(f"search.{name}") for name in RECOMMENDED_COLUMNS],
        *(
            [
                model.repo,
                model.quant or "-",
                size_of(model) or "-",
                model.licence or "-",
                model.hub(hub),
                fit_text(verdict),
                _purpose(model),
            ]
            for model, verdict in zip(models, verdicts, strict=True)
        ),
    ]
    for line in table(rows, RECOMMENDED_MOST, RECOMMENDED_RIGHT):
        print(line)


def _purpose(model: Recommendation) -> str:
    return t("search.purpose_needs", purpose=model.text, base=model.needs) if model.needs else model.text


def _row(model: Found) -> list[str]:
    parameters = f"{model.parameters / 1e9:.1f} B" if model.parameters else ""
    formats = " ".join(name for name in ("gguf", "safetensors") if name in model.tags)
    return [
        one_line(model.repo, MOST[0]),
        parameters,
        f"{model.downloads:,}",
        f"{model.likes:,}",
        one_line(model.updated[:10], 10),
        formats,
        t("search.gated") if model.gated else "",
    ]
