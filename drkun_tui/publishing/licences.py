"""The licences of a model, of its base and of its data: what is known of them, and what a card says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable

import msgspec

from drkun_tui.library import adapters, gguf
from drkun_tui.library.inspection import FRONT_MATTER, LICENCE, licence_of, raw_card
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.provenance import last_part, public_data
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.preflight import DEMO

UNKNOWN = "unknown"

_STARTER = "apache-2.0"
"""Of the bundled model's weights."""

_DEMO = "mit"
"""Of the data set that comes with the program: that of the program."""

_HEADING = "## Licences"
_LINE = re.compile(r"^- (base model|data(?: \(.*\))?): *(.*?) *$", re.MULTILINE)


class Licences(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before anybody has said anything.

    Attributes:
        base: of the base model, as its own card says, else `UNKNOWN`.
        data: what the model was trained on, "" where nothing says so.
        of_data: the licence of that, else `UNKNOWN`.
    """

    base: str = UNKNOWN
    data: str = ""
    of_data: str = UNKNOWN


def known(model: Model, models: Iterable[Model]) -> Licences:
    """What is known of a model's licences.

    Args:
        models: those that there are; its base is looked for among them.
    """
    try:
        trained = model.provenance.recipe if model.provenance else ""
        told = tomllib.loads(trained).get("data", {})
    except tomllib.TOMLDecodeError:
        told = {}
    hub, path = str(told.get("hub", "")), str(told.get("path", ""))
    of_data = _DEMO if path == DEMO and not hub else UNKNOWN
    return Licences(
        base=_of_base(model, list(models)), data=public_data(hub) or last_part(path), of_data=of_data
    )


def _of_base(model: Model, models: list[Model]) -> str:
    """What the card of the model's base says, or a GGUF's own metadata. The base of what was merged is found
    through its provenance, and may itself have been merged."""
    if model.demonstration:
        return _STARTER
    others = [other for other in models if other.path != model.path]
    named = model.provenance.base_model if model.provenance and not model.is_adapter else ""
    base = (
        adapters.base_for(model, others)
        if model.is_adapter
        else next((other for other in others if named and named in (other.name, other.disk_name)), None)
    )
    if base is not None:
        return _of_base(base, others)
    if model.kind is Kind.GGUF and (said := gguf.read(model.path, partial=True).text("general.license")):
        return said
    # The card of what was trained speaks of that, and not of its base.
    return UNKNOWN if model.is_adapter or named else licence_of(raw_card(model)) or UNKNOWN


def drafted(card: str, licences: Licences) -> str:
    """A card with what is known, and a place for what is not."""
    front = FRONT_MATTER.match(card)
    head, body = (front[1], card[front.end() :]) if front else ("", card)
    if not licence_of(card):
        head += f"license: {licences.base}\n"
    if _HEADING not in body:
        told = f"- base model: {licences.base}\n"
        told += f"- data ({licences.data}): {licences.of_data}\n" if licences.data else ""
        body = f"{body.rstrip()}\n\n{_HEADING}\n\n{told}"
    return f"---\n{head}---\n{body}"


def with_licences(card: str, *, model: str = "", data: str = "") -> str:
    """A card with what somebody knows of its licences; "" leaves them as they are.

    Args:
        model: of the model itself; a base whose licence is unknown has it too.
        data: of what it was trained on, if that is unknown.
    """
    if model and (front := FRONT_MATTER.match(card)):
        head = LICENCE.sub(lambda _: f"license: {model}", front[1], count=1)
        card = f"---\n{head}---\n{card[front.end() :]}"

    def filled(line: re.Match[str]) -> str:
        licence = model if line[1] == "base model" else data
        return f"- {line[1]}: {licence}" if licence and line[2] == UNKNOWN else line[0]

    return _LINE.sub(filled, card)


def check(card: str, licences: Licences) -> None:
    """See that a card names every licence, and none otherwise than it is known to be.

    Raises:
        PublishingError: ``no_licence``, ``licence_missing``, ``licence_unknown``, ``licence_other`` or
            ``licence_wider``.
    """
    licence = licence_of(card)
    if licence in ("", UNKNOWN):
        raise PublishingError("no_licence")
    said = dict(_LINE.findall(card.partition(_HEADING)[2].partition("\n#")[0]))
    wanted = {"base model": licences.base}
    if licences.data:
        wanted[f"data ({licences.data})"] = licences.of_data
    for what, stated in said.items():
        if stated.casefold() in ("", UNKNOWN):
            raise PublishingError("licence_unknown", line=f"{what}: {stated}")
    for what, true in wanted.items():
        stated = next((text for name, text in said.items() if name.split()[0] == what.split()[0]), "")
        if not stated:
            raise PublishingError("licence_missing", line=f"- {what}: ...")
        if true != UNKNOWN and not stated.casefold().startswith(true.casefold()):
            raise PublishingError("licence_other", what=what, said=stated, known=true)
    if "-nc" in said["base model"].casefold() and "-nc" not in licence and licence != "other":
        raise PublishingError("licence_wider", said=licence, known=said["base model"])
