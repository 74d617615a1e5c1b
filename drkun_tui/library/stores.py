"""The folders that hold models on a machine without anybody's configuration, and whose they are.

Caches of the hubs' client libraries, and the stores of LM Studio and Ollama, are only ever read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drkun_tui import paths
from drkun_tui.i18n import t
from drkun_tui.library.files import files_below, is_folder
from drkun_tui.library.model import Source
from drkun_tui.library.printable import printable
from drkun_tui.library.unfinished import Unfinished, problem_of

_MODELSCOPE_TEMPORARY = "._____temp"
"""Where ModelScope's older client keeps what it has not finished, below the root of its cache."""

_MODELSCOPE_ENDING = ".incomplete"
"""Under the name with this ending modelscope_hub keeps a file that it has not finished."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder that holds models."""

    path: Path
    source: Source


def known() -> list[Store]:
    """Every store that is known without configuration, our own first. Some may not exist."""
    own, starter = paths.model_folders()
    return [
        Store(own, Source.DRKUN),
        Store(starter, Source.BUNDLED),
        Store(_huggingface(), Source.HUGGINGFACE),
        Store(_modelscope(), Source.MODELSCOPE),
        Store(_folder("~/.lmstudio/models"), Source.LMSTUDIO),
        Store(_folder("~/.cache/lm-studio/models"), Source.LMSTUDIO),
        *(Store(path, Source.OLLAMA) for path in _ollama()),
    ]


def source_of(path: Path) -> Source:
    """Whose folder this is, or lies in; one that nobody knows is the user's own.

    A link belongs to the folder that it lies in, not to the one that it leads to.
    """
    place = _resolved(path.parent) / path.name
    for store in known():
        if place.is_relative_to(_resolved(store.path)) or _resolved(path) == _resolved(store.path):
            return store.source
    return Source.FOLDER


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a link to itself
        return path.absolute()


def _variable(name: str) -> Path | None:
    """The folder that an environment variable names."""
    value = os.environ.get(name)
    return _folder(value) if value else None


def _folder(name: str) -> Path:
    return Path(os.path.expanduser(name))  # noqa: PTH111 - pathlib's fails for a user without a home


def _huggingface() -> Path:
    """As huggingface_hub looks for it."""
    if cache := _variable("HF_HUB_CACHE") or _variable("HUGGINGFACE_HUB_CACHE"):
        return cache
    caches = _variable("XDG_CACHE_HOME") or _folder("~/.cache")
    return (_variable("HF_HOME") or caches / "huggingface") / "hub"


def _modelscope() -> Path:
    """As modelscope looks for it; its versions differ in what lies between it and ``org/name``."""
    return _variable("MODELSCOPE_CACHE") or _folder("~/.cache/modelscope")


def _ollama() -> list[Path]:
    """Its store; without its variable the user's, and the one of the service that its installer makes."""
    if chosen := _variable("OLLAMA_MODELS"):
        return [chosen]
    return [_folder("~/.ollama/models"), Path("/usr/share/ollama/.ollama/models")]


# ModelScope

_MODELSCOPE_LAYERS = re.compile(r"^(?:hub/)?(?:models/)?(?=[^/]+/)")


def modelscope_name(name: str) -> str:
    """The model that a path in ModelScope's cache means: ``hub/models/Qwen/Qwen2___5-7B`` is
    ``Qwen/Qwen2.5-7B``, because its client puts no dots into folders' names."""
    return _MODELSCOPE_LAYERS.sub("", name).replace("___", ".")


def modelscope_pending(folder: Path, files: Iterable[str], repo: str) -> Unfinished | None:
    """The files in this folder that modelscope_hub has begun and not finished, if there are any."""
    names = [file.removesuffix(_MODELSCOPE_ENDING) for file in files if file.endswith(_MODELSCOPE_ENDING)]
    remedy = t("inventory.remedy_modelscope", repo=repo)
    pending = {PurePosixPath(name): 0 for name in names if name}
    return Unfinished(folder, problem_of(remedy), pending, ending=_MODELSCOPE_ENDING) if pending else None


def modelscope_unfinished(root: Path) -> Iterator[Unfinished]:
    """The downloads that ModelScope's older client has begun and not finished."""
    for layers in ("", "hub", "models", "hub/models"):
        temporary = root / layers / _MODELSCOPE_TEMPORARY
        for organisation in _folders_in(temporary):
            for partial in _folders_in(organisation):
                files = files_below(partial)
                pending = {PurePosixPath(path.relative_to(partial).as_posix()): 0 for path in files}
                if pending:
                    inside = f"{organisation.name}/{partial.name}"
                    remedy = t("inventory.remedy_modelscope", repo=printable(modelscope_name(inside)))
                    yield Unfinished(root / layers / inside, problem_of(remedy), pending, partial)


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if is_folder(path))
    except OSError:
        return []
