"""Which models are on disk, what they are called, and which one a name or a path means.

A folder's name means nothing here. ``adapter_config.json`` makes a LoRA, ``config.json`` with weight
shards a base model, a GGUF header a GGUF model or adapter. A broken file never stops a scan: it is
listed with its problem. Nothing is written, and nothing of a model is executed: pickle weights are
listed and refused.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from drkun_tui import paths
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import gguf_model, hugging_face
from drkun_tui.library.files import SPLIT, read_json
from drkun_tui.library.inspection import Inspection, details
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.printable import printable
from drkun_tui.library.walk import first_sight, walk

_PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "consolidated*.pth", "model*.bin", "model*.pt")


def scan(folders: Iterable[Path]) -> list[Model]:
    """Every model in these folders, each once, the folders' order kept. Missing folders are skipped.

    Names are paths relative to their folder; when two collide, the later one gets its folder's name in
    front. The bundled model is called ``starter``.
    """
    seen: set[tuple[int, int]] = set()
    found = [(model, root) for root in folders for model in _scan_folder(root, seen)]
    starters = [model for model, _ in found if model.demonstration]
    starter = next(
        (model for model in starters if _is_bundled(model.path)), starters[0] if starters else None
    )
    taken = {"starter"} if starter else set()
    models = []
    for model, root in found:
        name = "starter" if model is starter else _unique(model.name, root, taken)
        taken.add(name)
        models.append(replace(model, name=name))
    return models


def find(name_or_path: str, folders: Iterable[Path]) -> Model:
    """The model of this name, of the only name that ends so, or at this path.

    Raises:
        DrkunError: ``model_not_found``, with close names in its hint, or ``model_ambiguous``.
    """
    models = scan(folders)
    wanted = name_or_path.strip().lower()
    tests: tuple[Callable[[str], bool], ...] = (
        lambda name: name == name_or_path,
        lambda name: name.lower() == wanted,
        lambda name: name.lower().endswith(f"/{wanted}"),
    )
    for test in tests:
        fitting = [model for model in models if test(model.name)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting and wanted:
            names = ", ".join(model.name for model in fitting[:5])
            raise _refusal("model_ambiguous", t("library.ambiguous_hint", names=names), name=name_or_path)
    if wanted:
        path = Path(name_or_path)
        with contextlib.suppress(RuntimeError):  # ~somebody without a home
            path = path.expanduser()
        if _exists(path):
            return _at(path)
    known = {model.name.lower(): model.name for model in models}
    close = difflib.get_close_matches(wanted[:200], known, n=3, cutoff=0.4)
    hint = t("library.close_names", names=", ".join(known[name] for name in close)) if close else ""
    raise _refusal("model_not_found", hint or t("library.model_not_found_hint"), name=name_or_path)


def inspect(path: Path) -> Inspection:
    """What the disk says of the model at `path`.

    Raises:
        DrkunError: ``model_not_found``, no model is there.
    """
    return details(_at(path))


def ensure_loadable(model: Model) -> None:
    """Refuse a model that this version's engine cannot load.

    Raises:
        DrkunError: what is wrong with its file (a ``gguf_…`` kind), or ``model_unusable``.
    """
    if model.error:
        raise model.error
    if model.kind is not Kind.GGUF:
        hint = t("library.model_unusable_hint")
        raise _refusal("model_unusable", hint, name=model.name, reason=t("library.needs_gguf"))
    if model.problems:
        hint = t("library.model_unusable_hint")
        raise _refusal("model_unusable", hint, name=model.name, reason=model.problems[0])


def _refusal(kind: str, hint: str, **values: str) -> DrkunError:
    shown = {key: printable(value) for key, value in values.items()}
    return DrkunError(kind, t(f"library.{kind}", **shown), hint, EXIT_NO_MODEL)


def _scan_folder(root: Path, seen: set[tuple[int, int]]) -> Iterator[Model]:
    """The models in one folder; `seen` holds device and inode of what was already listed."""
    root = root.absolute()
    for folder, files in walk(root, seen):
        for model in _in_folder(folder, files, root):
            if model.path == folder or first_sight(model.path, seen):
                yield model


def _in_folder(folder: Path, files: list[str], root: Path) -> Iterator[Model]:
    """The models whose files lie in this folder itself."""
    shown = _relative(folder, root) or printable(folder.resolve().name)
    ggufs: dict[str, list[str]] = {}
    for file in files:
        if file.lower().endswith(".gguf"):
            split = SPLIT.fullmatch(file)
            ggufs.setdefault(f"{split['stem']}/{split['total']}" if split else file, []).append(file)
    has = set(files)
    pickles = [file for file in files if any(fnmatch(file, pattern) for pattern in _PICKLES)]
    shards = [file for file in files if file.endswith(".safetensors") and file != "adapter_model.safetensors"]
    if has & {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}:
        yield hugging_face.describe_lora(folder, has, shown)
    elif (
        shards
        or pickles
        or ("config.json" in has and not ggufs and read_json(folder / "config.json").get("model_type"))
    ):
        yield hugging_face.describe_base(folder, has, shards, pickles, shown)
    for parts in ggufs.values():
        split = SPLIT.fullmatch(parts[0])
        stem = split["stem"] if split else parts[0][: -len(".gguf")]
        yield gguf_model.describe([folder / part for part in parts], _relative(folder / stem, root))


def _relative(path: Path, root: Path) -> str:
    return "" if path == root else printable(path.relative_to(root).as_posix())


def _unique(name: str, root: Path, taken: set[str]) -> str:
    for part in reversed(root.resolve().parts[1:]):
        if name not in taken:
            return name
        name = f"{printable(part)}/{name}"
    numbered = (f"{name}#{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def _is_bundled(path: Path) -> bool:
    try:
        return path.samefile(paths.starter())
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for the system
        return False


def _at(path: Path) -> Model:
    """The one model at a path: a file, or a folder that holds it."""
    path = path.absolute()
    if not _exists(path):
        raise _refusal("model_not_found", t("library.model_not_found_hint"), name=str(path))
    if path.is_dir():
        models = list(itertools.islice(_scan_folder(path, set()), 5))
        if len(models) > 1:
            names = ", ".join(model.name for model in models)
            raise _refusal("model_ambiguous", t("library.ambiguous_hint", names=names), name=str(path))
        if not models:
            raise _refusal("model_not_found", t("library.model_not_found_hint"), name=str(path))
        model = models[0]
    elif path.suffix in (".safetensors", ".json", ".bin", ".pt", ".pth"):
        return _at(path.parent)
    elif split := SPLIT.fullmatch(path.name):
        pattern = re.compile(re.escape(split["stem"]) + rf"-\d{{5}}-of-{split['total']}\.gguf", re.IGNORECASE)
        parts = {path}
        with contextlib.suppress(OSError):
            parts |= {file for file in path.parent.iterdir() if pattern.fullmatch(file.name)}
        model = gguf_model.describe(sorted(parts), printable(split["stem"]))
    else:
        model = gguf_model.describe([path], printable(path.stem))
    return replace(model, name="starter") if model.demonstration and _is_bundled(model.path) else model
