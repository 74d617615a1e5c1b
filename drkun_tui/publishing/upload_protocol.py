"""What an upload is asked for and what it tells: one JSON object a line in its job's ``events.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from drkun_tui.library.hub.protocol import HubName
from drkun_tui.library.kinds import Values
from drkun_tui.publishing.licences import Licences

Phase = Literal["starting", "creating", "uploading", "stopped", "done", "failed"]
"""What an upload does; the last three are its ends. One that stopped or failed can go on."""

ENDED: tuple[Phase, ...] = ("stopped", "done", "failed")

REQUEST, CARD = "request.json", "card.md"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that somebody has agreed to; the card is beside it, as it was reviewed.

    Attributes:
        model: what it is called in the library.
        files: by their names in the repository.
        update: may the repository be there already?
        licences: what is known of them, which the card must not contradict.
    """

    hub: HubName
    repo: str
    model: str
    files: dict[str, str]
    private: bool = True
    update: bool = False
    licences: Licences = Licences()


class Progress(msgspec.Struct, frozen=True, tag="progress", kw_only=True):
    """How far it is, in bytes; what the hub has already counts."""

    done: int
    total: int
    speed: float = 0.0
    eta_s: float | None = None


class Finished(msgspec.Struct, frozen=True, tag="finished", kw_only=True):
    """Everything is there, at `page`; `private` as the hub has it."""

    repo: str
    page: str
    private: bool


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """Somebody asked it to end early; what the hub has, it keeps."""


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """It cannot go on. `kind` is a key of the catalogue's ``publishing`` section."""

    kind: str
    values: Values = {}


Event = Progress | Finished | Stopped | Failed

encode = msgspec.json.Encoder().encode
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def decode(line: bytes) -> Event:
    """Raises `msgspec.MsgspecError` on anything that is no event."""
    return _DECODER.decode(line)


def read_request(folder: Path) -> Request | None:
    """What the job in `folder` was asked for; None when that cannot be read."""
    try:
        return msgspec.json.decode((folder / REQUEST).read_bytes(), type=Request)
    except (OSError, msgspec.MsgspecError):
        return None
