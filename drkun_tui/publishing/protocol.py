"""What an export is asked for and what it tells: one JSON object a line in its job's ``events.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from drkun_tui.library.kinds import Values

Phase = Literal[
    "starting", "fetching", "merging", "converting", "calibrating", "quantising", "proving",
    "stopped", "done", "failed",
]  # fmt: skip
"""What an export does; the last three are its ends."""

ENDED: tuple[Phase, ...] = ("stopped", "done", "failed")

REQUEST = "request.json"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An export, with everything resolved by `drkun_tui.publishing.preflight`.

    Attributes:
        model: what it is called in the library.
        base: folder of the base in 16 or 32 bits.
        adapter: folder of the LoRA; "" exports the base itself.
        target: see `drkun_tui.publishing.targets`.
        folder: where the result goes.
        file: name of the GGUF in `folder`; "" for safetensors.
        name: what the result is called in the library.
        imatrix: an importance matrix, or "".
        imatrix_from: the text or data set to compute one on, or "".
    """

    model: str
    base: str
    base_name: str
    adapter: str = ""
    target: str
    folder: str
    file: str = ""
    name: str
    imatrix: str = ""
    imatrix_from: str = ""

    @property
    def result(self) -> Path:
        """The file or folder that it makes."""
        return Path(self.folder, self.file)


class Progress(msgspec.Struct, frozen=True, tag="progress", kw_only=True):
    """How far a stage is.

    Attributes:
        done: bytes written, or read while proving; tokens while calibrating.
        total: 0 while unknown.
        speed: of the same a second.
    """

    stage: Phase
    done: int
    total: int
    speed: float = 0.0
    eta_s: float | None = None


class Proved(msgspec.Struct, frozen=True, tag="proved", kw_only=True):
    """The file was loaded and predicts what its source does.

    Attributes:
        positions: of the texts on which both were asked what comes next.
        agreement: share of them with the same first choice.
        divergence: mean Kullback-Leibler divergence from the source, in nats.
        same: tokens that both write alike, greedily, before the first that differs.
        margin: by how many logits the source prefers its own choice where they differ, the most of all.
    """

    positions: int
    agreement: float
    divergence: float
    same: int
    margin: float = 0.0


class Finished(msgspec.Struct, frozen=True, tag="finished", kw_only=True):
    """The result is proved and in its place."""

    name: str
    path: str
    size: int
    seconds: float


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """Somebody asked it to end early; nothing is left of it."""


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """It cannot go on. `kind` is a key of the catalogue's ``publishing`` section."""

    kind: str
    values: Values = {}


Event = Progress | Proved | Finished | Stopped | Failed

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
