"""What the interface and its download processes say to each other, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

HubName = Literal["hf", "modelscope"]

Phase = Literal["starting", "listing", "verifying", "downloading", "paused", "done", "failed"]

ENDED = frozenset({"paused", "done", "failed"})
"""Phases after which the process ends."""


class RepoFile(msgspec.Struct, frozen=True):
    """One file of a repository.

    Attributes:
        path: relative, with forward slashes, as the hub names it.
        size: bytes.
        digest: hexadecimal: 64 digits of SHA-256, or 40 of Git's SHA-1 of a blob; "" where the hub
            tells none.
    """

    path: str
    size: int
    digest: str = ""


class Listing(msgspec.Struct, frozen=True, tag_field="type", tag="listing"):
    """The files of a repository at one revision; a commit, where the hub tells it."""

    revision: str
    files: list[RepoFile]


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a search may be narrowed to; "" and 0 stand for anything.

    Attributes:
        task: e.g. ``"text-generation"``.
        language: e.g. ``"zh"``.
        format: how the weights are stored.
        least: millions of parameters.
        most: millions of parameters.
    """

    task: str = ""
    language: str = ""
    format: Literal["", "gguf", "safetensors"] = ""
    least: int = 0
    most: int = 0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One repository that a search has found. Its texts come from a server.

    Attributes:
        parameters: how many, as the hub says or the name tells; None where neither does.
        updated: ISO 8601, "" where unknown.
        gated: must its licence be accepted on the hub's page first?
    """

    hub: HubName
    repo: str
    downloads: int = 0
    likes: int = 0
    updated: str = ""
    tags: list[str] = []
    task: str = ""
    parameters: int | None = None
    gated: bool = False


# Questions, one line to `inquiry`, and their answers


class Search(msgspec.Struct, frozen=True, tag_field="type", tag="search"):
    """Look for models by name."""

    hub: HubName
    query: str
    filters: Filters = Filters()
    limit: int = 30


class ListFiles(msgspec.Struct, frozen=True, tag_field="type", tag="list_files"):
    """Ask for a `Listing`."""

    hub: HubName
    repo: str
    revision: str = ""


class ReadCard(msgspec.Struct, frozen=True, tag_field="type", tag="read_card"):
    """Ask for a model's card."""

    hub: HubName
    repo: str
    revision: str = ""


class Results(msgspec.Struct, frozen=True, tag_field="type", tag="results"):
    """What a search found, the most downloaded first."""

    found: list[Found]


class Card(msgspec.Struct, frozen=True, tag_field="type", tag="card"):
    """A model's card, Markdown without its metadata; "" when there is none."""

    text: str


# Downloads


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a download is, in seconds where nothing else is said.

    Attributes:
        connections: files at a time.
        connect_s: for a connection to come about.
        stall_s: without a byte, after which a connection counts as dead.
        tries: attempts in a row that bring no byte, after which a file has failed.
        backoff_s: before the second attempt; doubled each time, with jitter.
        most_backoff_s: longest such wait, and longest that a server can ask for.
        spare_bytes: what must be left free on the disk.
    """

    connections: int = 4
    connect_s: float = 10.0
    stall_s: float = 30.0
    tries: int = 8
    backoff_s: float = 1.0
    most_backoff_s: float = 120.0
    spare_bytes: int = 256 * 1024 * 1024


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A download, as it was asked for; ``request.json`` in the job's folder.

    Attributes:
        repo: ``org/name``.
        store: absolute path of the model folder's root; files go to ``store/org/name/``.
        revision: branch, tag or commit; "" for the hub's default branch.
        quant: of a GGUF repository, e.g. ``"Q4_K_M"``; "" for the best that fits.
        include: patterns; when there are any, exactly the files that match one are fetched.
    """

    hub: HubName
    repo: str
    store: str
    revision: str = ""
    quant: str = ""
    include: list[str] = []
    limits: Limits = Limits()

    @property
    def options(self) -> list[str]:
        """The options of ``drkun pull`` with which it asks for the same."""
        told = ["--from", self.hub]
        told += ["--revision", self.revision] if self.revision else []
        told += ["--quant", self.quant] if self.quant else []
        return told + [word for pattern in self.include for word in ("--include", pattern)]


class Plan(msgspec.Struct, frozen=True):
    """What a download fetches, as resolved when it began; ``plan.json`` in the job's folder."""

    revision: str
    files: list[RepoFile]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Planned(msgspec.Struct, frozen=True, tag_field="type", tag="planned"):
    """It is known what to fetch.

    Attributes:
        have: bytes that are on the disk already, not verified yet.
    """

    revision: str
    files: int
    total: int
    have: int


class Progress(msgspec.Struct, frozen=True, tag_field="type", tag="progress"):
    """How far it is.

    Attributes:
        done: bytes of all files.
        speed: bytes a second over the last few seconds.
        eta_s: None while the speed is not known.
        files: bytes of each file that is worked at.
    """

    phase: Phase
    done: int
    total: int
    speed: float
    eta_s: float | None
    files: dict[str, int]


class FileDone(msgspec.Struct, frozen=True, tag_field="type", tag="file_done"):
    """A file is verified and in its place.

    Attributes:
        fetched: False when it was there already.
    """

    path: str
    size: int
    fetched: bool


class Retrying(msgspec.Struct, frozen=True, tag_field="type", tag="retrying"):
    """A file will be tried again; `kind` and `values` as in `Failed`."""

    path: str
    attempt: int
    wait_s: float
    kind: str
    values: dict[str, str | int]


class Paused(msgspec.Struct, frozen=True, tag_field="type", tag="paused"):
    """It was asked to stop and keeps what it has."""

    done: int
    total: int


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done"):
    """Every file is verified and in its place, in `folder`."""

    folder: str
    total: int


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="failed"):
    """It could not go on.

    Attributes:
        kind: a key of the catalogue's ``fetch`` section, whose placeholders `values` fills.
    """

    kind: str
    values: dict[str, str | int] = {}


Question = Search | ListFiles | ReadCard
Answer = Results | Listing | Card | Failed
Event = Planned | Progress | FileDone | Retrying | Paused | Done | Failed

encode = msgspec.json.encode
decode_question = msgspec.json.Decoder(Question).decode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_event = msgspec.json.Decoder(Event).decode

# The job's own files

REQUEST, PLAN, OUTDATED = "request.json", "plan.json", "plan-outdated.json"

FileT = TypeVar("FileT", Request, Plan)


def read_request(folder: Path) -> Request | None:
    """What the job in `folder` was asked for; None when that cannot be read."""
    return _read(folder / REQUEST, Request)


def read_plan(folder: Path, name: str = PLAN) -> Plan | None:
    """What it has found that this means; None when it has not yet."""
    return _read(folder / name, Plan)


def _read(path: Path, kind: type[FileT]) -> FileT | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
