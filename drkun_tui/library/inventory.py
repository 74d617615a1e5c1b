"""Which models are on disk, what they are called, and which one a name or a path means.

A folder's name means nothing here. ``adapter_config.json`` makes a LoRA, ``config.json`` with weight
shards a base model, a GGUF header a GGUF model or adapter. A broken file never stops a scan: it is
listed with its problem. Nothing is written but what was read of the headers (`header_cache`), and
nothing of a model is executed: pickle weights are listed and refused.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from drkun_tui import paths
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import (
    adapters,
    aliases,
    gguf_model,
    header_cache,
    hub_cache,
    hugging_face,
    ollama,
    stores,
)
from drkun_tui.library.files import SPLIT, read_json, size_of
from drkun_tui.library.hub_cache import Snapshot
from drkun_tui.library.inspection import Inspection, details
from drkun_tui.library.model import Kind, Model, Source
from drkun_tui.library.printable import printable
from drkun_tui.library.unfinished import MARKER, Unfinished, marked, read_marker
from drkun_tui.library.walk import Unreadable, first_sight, walk
from drkun_tui.profiles import Profile, missing_packages

_PICKLE = re.compile(r"(pytorch_model.*|adapter_model|model.*)\.bin|consolidated.*\.pth|model.*\.pt")


@dataclass(frozen=True, slots=True)
class Survey:
    """What one scan found."""

    models: list[Model]
    unreadable: list[Unreadable]
    """Folders that could not be looked into."""


def scan(folders: Iterable[Path]) -> list[Model]:
    """Every model in these folders, each once, the folders' order kept. Missing folders are skipped.

    Names are paths relative to their folder, or what a hub or Ollama calls them; when two collide, the
    later one gets its folder's name in front. The bundled model is called ``starter``. An alias that the
    user gave replaces a name.
    """
    return survey(folders).models


def survey(folders: Iterable[Path]) -> Survey:
    """As `scan`, with what could not be looked into."""
    header_cache.load()
    seen: set[tuple[int, int]] = set()
    unreadable: list[Unreadable] = []
    found = [(model, root) for root in folders for model in _scan_folder(root, seen, unreadable)]
    header_cache.save()
    given = aliases.read()
    starters = [model for model, _ in found if model.demonstration]
    starter = next(
        (model for model in starters if model.source is Source.BUNDLED), starters[0] if starters else None
    )
    taken = {"starter"} if starter else set()
    taken |= {alias for model, _ in found if (alias := given.get(aliases.key_of(model)))}
    models = []
    for model, root in found:
        name = "starter" if model is starter else _unique(model, root, taken)
        taken.add(name)
        named = replace(model, name=name, disk_name=name)
        models.append(replace(named, name=given.get(aliases.key_of(named), name)))
    return Survey(adapters.checked(models), unreadable)


def find(name_or_path: str, folders: Iterable[Path]) -> Model:
    """The model of this name, of the only name that ends so, or at this path.

    Raises:
        DrkunError: ``model_not_found``, with close names in its hint, or ``model_ambiguous``.
    """
    models = scan(folders)
    try:
        return chosen(name_or_path, models)
    except DrkunError as error:
        if error.kind != "model_not_found" or not name_or_path.strip():
            raise
        path = Path(name_or_path)
        with contextlib.suppress(RuntimeError):  # ~somebody without a home
            path = path.expanduser()
        if not _exists(path):
            raise
    return at(path)


def chosen(name: str, models: Sequence[Model]) -> Model:
    """The model of this name, or of the only name that ends so, among `models`.

    Raises:
        DrkunError: ``model_not_found``, with close names in its hint, or ``model_ambiguous``.
    """
    wanted = name.strip().lower()
    tests: tuple[Callable[[str], bool], ...] = (
        lambda known: known == name,
        lambda known: known.lower() == wanted,
        lambda known: known.lower().endswith(f"/{wanted}"),
    )
    for test in tests:
        fitting = [m for m in models if test(m.name)] or [m for m in models if test(m.disk_name)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting and wanted:
            names = ", ".join(model.name for model in fitting[:5])
            raise _refusal("model_ambiguous", t("library.ambiguous_hint", names=names), name=name)
    known = {model.name.lower(): model.name for model in models}
    close = difflib.get_close_matches(wanted[:200], known, n=3, cutoff=0.4)
    hint = t("library.close_names", names=", ".join(known[name] for name in close)) if close else ""
    raise _refusal("model_not_found", hint or t("library.model_not_found_hint"), name=name)


def inspect(path: Path) -> Inspection:
    """What the disk says of the model at `path`.

    Raises:
        DrkunError: ``model_not_found``, no model is there.
    """
    return details(at(path))


def ensure_loadable(model: Model) -> None:
    """Refuse a model that no engine can load here.

    Raises:
        DrkunError: what is wrong with its file (a ``gguf_…`` kind), or ``model_unusable``.
    """
    if model.error:
        raise model.error
    if model.is_adapter:
        hint = t("library.adapter_hint", name=printable(model.name))
        raise _refusal("model_unusable", hint, name=model.name, reason=t("library.is_adapter"))
    if model.kind is Kind.BASE and (missing := missing_packages(Profile.CPU)):
        reason = t("library.needs_packages", packages=", ".join(missing))
        raise _refusal("model_unusable", t("library.needs_packages_hint"), name=model.name, reason=reason)
    if model.problems:
        problem = model.problems[0]
        raise _refusal("model_unusable", problem.remedy, name=model.name, reason=problem.text)


def _refusal(kind: str, hint: str, **values: str) -> DrkunError:
    shown = {key: printable(value) for key, value in values.items()}
    return DrkunError(kind, t(f"library.{kind}", **shown), hint, EXIT_NO_MODEL)


def _scan_folder(root: Path, seen: set[tuple[int, int]], unreadable: list[Unreadable]) -> Iterator[Model]:
    """The models in one folder; `seen` holds device and inode of what was already listed."""
    root = root.absolute()
    if ollama.is_store(root):
        yield from ollama.models(root)
        return
    source = stores.source_of(root)
    if source not in (Source.DRKUN, Source.FOLDER):
        unreadable = []  # nobody asked for these folders
    begun = {u.folder: u for u in stores.modelscope_unfinished(root)} if source is Source.MODELSCOPE else {}
    if above := marked(root):
        begun[above.folder] = above
    listed: set[Path] = set()
    store = paths.model_store() if source is Source.DRKUN else None
    for folder, files in walk(root, seen, whole=_is_repository, store=store, unreadable=unreadable):
        if _is_repository(folder):
            yield from _in_repository(folder, seen, unreadable)
            continue
        if MARKER in files:
            begun[folder] = read_marker(folder)
        elif source is Source.MODELSCOPE:
            repo = "/".join(stores.modelscope_name(_relative(folder, root)).split("/")[:2])
            if (pending := stores.modelscope_pending(folder, files, repo)) is not None:
                begun[folder] = pending
        unfinished = _nearest(folder, begun) if begun else None
        for model in _in_folder(folder, files, root, unfinished):
            listed.add(model.path)
            if model.path == folder or first_sight(model.path, seen):
                yield _belonging(model, source)
    for unfinished in begun.values():
        for model in _to_come(unfinished, root, listed):
            yield _belonging(model, source)


def _nearest(folder: Path, begun: Mapping[Path, Unfinished]) -> Unfinished | None:
    """The download that was begun in this folder, or in the closest one that it is in."""
    return next((begun[above] for above in (folder, *folder.parents) if above in begun), None)


def _belonging(model: Model, source: Source) -> Model:
    """The model with its source, and under the name that its source gives it."""
    if model.demonstration and _is_bundled(model.path):
        source = Source.BUNDLED
    name = stores.modelscope_name(model.name) if source is Source.MODELSCOPE else model.name
    return replace(model, source=source, name=name)


def _is_repository(folder: Path) -> bool:
    return hub_cache.source_of(folder) is not None


def _in_repository(
    repository: Path, seen: set[tuple[int, int]], unreadable: list[Unreadable]
) -> Iterator[Model]:
    """The models in a repository that a hub's client has cached: the revision that counts, and what else is
    whole."""
    source = hub_cache.source_of(repository) or Source.FOLDER
    unfinished = hub_cache.unfinished(repository)
    found = False
    for snapshot in hub_cache.snapshots(repository):
        for model in _in_snapshot(snapshot, unfinished, seen, unreadable):
            if snapshot.main or model.complete:
                found = True
                inner = "" if model.path == snapshot.folder else f"/{model.name}"
                yield replace(model, source=source, name=snapshot.name + inner)
    if unfinished is not None and not found:
        yield replace(hub_cache.to_come(repository, unfinished), source=source)


def _in_snapshot(
    snapshot: Snapshot,
    unfinished: Unfinished | None,
    seen: set[tuple[int, int]],
    unreadable: list[Unreadable],
) -> Iterator[Model]:
    listed: set[Path] = set()
    begun: list[Unfinished] = []
    for folder, files in walk(snapshot.folder, seen, unreadable=unreadable):
        pending = unfinished or stores.modelscope_pending(folder, files, snapshot.name.partition("@")[0])
        begun += [pending] if pending and pending.pending else []
        for model in _in_folder(folder, files, snapshot.folder, pending):
            listed.add(model.path)
            if model.path == folder or first_sight(model.path, seen):
                yield model
    for pending in begun:
        yield from _to_come(pending, snapshot.folder, listed)


def _in_folder(
    folder: Path, files: list[str], root: Path, unfinished: Unfinished | None = None
) -> Iterator[Model]:
    """The models whose files lie in this folder itself."""
    shown = _relative(folder, root) or printable(folder.resolve().name)
    ggufs: dict[str, list[str]] = {}
    for file in files:
        if file.lower().endswith(".gguf"):
            split = SPLIT.fullmatch(file)
            ggufs.setdefault(f"{split['stem']}/{split['total']}" if split else file, []).append(file)
    has = set(files)
    pickles = [file for file in files if _PICKLE.fullmatch(file)]
    shards = [file for file in files if file.endswith(".safetensors") and file != "adapter_model.safetensors"]
    of_gguf = ggufs or (unfinished and unfinished.ggufs_in(folder))
    model = None
    if has & {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}:
        model = hugging_face.describe_lora(folder, has, shown)
    elif (
        shards
        or pickles
        or ("config.json" in has and not of_gguf and read_json(folder / "config.json").get("model_type"))
    ):
        model = hugging_face.describe_base(folder, shards, pickles, shown)
    if model is not None:
        if unfinished and unfinished.touches_folder(folder):
            model = _incomplete(model, unfinished, unfinished.of_folder(folder))
        yield model
    for parts in ggufs.values():
        paths = [folder / part for part in parts]
        model = gguf_model.describe(paths, _relative(folder / _gguf_stem(parts[0]), root))
        yield _perhaps_incomplete(model, unfinished)


def _perhaps_incomplete(model: Model, unfinished: Unfinished | None) -> Model:
    """A GGUF model, held against the download that was begun where it lies."""
    pending = unfinished.of_gguf(model.path) if unfinished else None
    return model if pending is None or unfinished is None else _incomplete(model, unfinished, pending)


def _incomplete(model: Model, unfinished: Unfinished, pending: list[PurePosixPath]) -> Model:
    """A model of which these files are still to come."""
    to_come = [unfinished.pending[file] for file in pending]
    # A pending file that lies in its place already is counted once.
    placed = sum(size_of(unfinished.folder / file) for file in pending)
    return replace(
        model,
        complete=False,
        problems=(unfinished.problem,),
        size_bytes=model.size_bytes + sum(map(size_of, unfinished.files_here(pending))),
        expected_bytes=model.size_bytes - placed + sum(to_come) if to_come and all(to_come) else None,
    )


def _to_come(unfinished: Unfinished, root: Path, listed: set[Path]) -> Iterator[Model]:
    """The models below `root` of which there is no file yet, only a download that was begun."""
    for kind, path, files in unfinished.to_come():
        here = {path, *gguf_parts(path)} if kind is Kind.GGUF else {path}
        if path.is_relative_to(root) and not here & listed:
            named = path.with_name(_gguf_stem(path.name)) if kind is Kind.GGUF else path
            model = Model(name=_relative(named, root) or printable(root.name), kind=kind, path=path)
            yield _incomplete(model, unfinished, files)


def gguf_parts(path: Path) -> list[Path]:
    """The file itself, or the parts that are there of the split model that it is a part of."""
    split = SPLIT.fullmatch(path.name)
    if split is None:
        return [path]
    pattern = re.compile(re.escape(split["stem"]) + rf"-\d{{5}}-of-{split['total']}\.gguf", re.IGNORECASE)
    parts = {path} if _exists(path) else set()
    with contextlib.suppress(OSError):
        parts |= {file for file in path.parent.iterdir() if pattern.fullmatch(file.name)}
    return sorted(parts)


def _gguf_stem(file: str) -> str:
    split = SPLIT.fullmatch(file)
    return split["stem"] if split else file[: -len(".gguf")] if file.lower().endswith(".gguf") else file


def _relative(path: Path, root: Path) -> str:
    return "" if path == root else printable(path.relative_to(root).as_posix())


def _unique(model: Model, root: Path, taken: set[str]) -> str:
    name = model.name
    if name not in taken:
        return name
    own = () if model.source in (Source.DRKUN, Source.FOLDER, Source.BUNDLED) else (model.source.value,)
    for part in (*own, *reversed(root.resolve().parts[1:])):
        name = f"{printable(part)}/{name}"
        if name not in taken:
            return name
    numbered = (f"{name}#{number}" for number in range(2, len(taken) + 3))
    return next(name for name in numbered if name not in taken)


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


def at(path: Path) -> Model:
    """The one model at a path: a file, or a folder that holds it.

    Raises:
        DrkunError: ``model_not_found``, or ``model_ambiguous`` for a folder that holds several.
    """
    path = path.absolute()
    if not _exists(path):
        raise _refusal("model_not_found", t("library.model_not_found_hint"), name=str(path))
    if path.is_dir():
        models = list(itertools.islice(_scan_folder(path, set(), []), 5))
        if len(models) > 1:
            names = ", ".join(model.name for model in models)
            raise _refusal("model_ambiguous", t("library.ambiguous_hint", names=names), name=str(path))
        if not models:
            raise _refusal("model_not_found", t("library.model_not_found_hint"), name=str(path))
        return _named(models[0])
    if path.suffix in (".safetensors", ".json", ".bin", ".pt", ".pth"):
        return at(path.parent)
    model = gguf_model.describe(gguf_parts(path), printable(_gguf_stem(path.name)))
    model = _perhaps_incomplete(model, marked(path))
    return _named(_belonging(model, stores.source_of(path)))


def _named(model: Model) -> Model:
    """A model that was found by its path, called ``starter`` if it is that."""
    name = "starter" if model.source is Source.BUNDLED else model.name
    return replace(model, name=name, disk_name=name)
