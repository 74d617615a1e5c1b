"""Imports models into the store and removes them from it.

Nothing is ever overwritten, and nothing outside the store is written or removed, but for the source of
a model that is moved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from drkun_tui import paths
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import adapters, aliases, hub_cache, inventory, stores, unfinished
from drkun_tui.library.files import SPLIT, files_below, is_file, size_of
from drkun_tui.library.fit import size_text
from drkun_tui.library.model import Kind, Model, Source
from drkun_tui.library.printable import printable
from drkun_tui.library.walk import SKIPPED_FOLDER

MAX_PART = 150
"""Bytes of the longest part of a name: file systems take 255, and endings are added."""

MAX_PARTS = 3
"""Most folders of a name; a scan goes deeper than that."""

_LEFTOVERS = {
    *("readme.md", "license", "license.txt", "license.md", ".gitattributes", ".gitignore"),
    *("config.json", "configuration.json", ".cache", ".msc", ".mv", ".mdl"),
}
"""What a download leaves beside a model and nobody misses when the model is gone."""


class Mode(StrEnum):
    """How a model comes into the store."""

    LINK = "link"
    COPY = "copy"
    MOVE = "move"


@dataclass(frozen=True, slots=True)
class Removal:
    """What the removal of a model takes away."""

    paths: tuple[Path, ...]
    """Files, folders with all that is in them, or a link."""
    frees_bytes: int
    note: str
    """What else should be known, or ""."""


def import_model(path: Path, mode: Mode, name: str | None = None) -> Model:
    """Bring a model into the store: a link to it, a copy of it, or itself.

    Args:
        path: a GGUF file, of a split one any part; or the folder of a base model or a LoRA.
        mode: a link costs no space and breaks when the model is moved away.
        name: what to call it, ``name`` or ``org/name``; by default what it is called where it lies.

    Returns:
        The model as it lies in the store.

    Raises:
        DrkunError: there is no usable model at `path`, the name is not possible or is taken, the disk is
            full or cannot be written. The store is as it was then.
    """
    model = inventory.at(path)
    _ensure_usable(model)
    store = paths.model_store()
    if _lies_in(model.path, store):
        raise _refusal("import_here", name=model.name)
    if mode is Mode.MOVE:
        _ensure_movable(model)
    name = checked_name(name) if name is not None else safe_name(_default_name(model))
    steps = _steps(model, store, name)
    for _, target in steps:
        if os.path.lexists(target):
            raise _refusal("import_exists", name=name, path=str(target))
    folder = steps[0][1].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _bring(model, mode, steps, store)
    except DrkunError:
        _remove_empty(folder, store)
        raise
    except OSError as error:
        _remove_empty(folder, store)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = t("export.full") if full else error.strerror or str(error)
        message = t("inventory.import_failed", name=model.name, reason=printable(reason))
        raise DrkunError("import_failed", message, t("inventory.no_space_hint"), EXIT_FAILED) from error
    return replace(inventory.at(steps[0][1]), name=name, disk_name=name, source=Source.DRKUN)


def removal(model: Model, models: Iterable[Model] = ()) -> Removal:
    """What removing a model would take away. Nothing is changed.

    Args:
        model: the model.
        models: the others there are; adapters among them that need this one are told in the note.

    Raises:
        DrkunError: ``remove_refused``: it is bundled, or another program's or the user's own to remove;
            ``remove_outside`` or ``remove_behind_link``; ``remove_failed``, it cannot be looked at.
    """
    try:
        return _removal(model, list(models))
    except OSError as error:
        raise _remove_failed(model, error) from error


def _removal(model: Model, models: list[Model]) -> Removal:
    if not model.removable:
        hint = t(f"inventory.remove_hint_{model.source.value}", name=model.disk_name or model.name)
        message = t(f"inventory.remove_refused_{model.source.value}", name=model.name)
        raise DrkunError("remove_refused", message, hint, EXIT_BAD_INPUT)
    store = paths.model_store().absolute()
    path = model.path.absolute()
    if not path.is_relative_to(store):
        raise _refusal("remove_outside", name=model.name, path=str(path))
    notes = []
    if needing := adapters.dependents(model, models):
        notes.append(t("inventory.remove_needed", names=", ".join(other.name for other in needing[:5])))
    if (link := _link_above(path, store)) and len(behind := inventory.scan([link])) > 1:
        names = ", ".join(other.name for other in behind[:5])
        raise _refusal("remove_behind_link", name=model.name, path=str(link), names=names)
    own = [link] if link else _own_paths(model, path, store)
    if links := [own_path for own_path in own if own_path.is_symlink()]:
        notes.append(t("inventory.remove_link", path=printable(str(links[0].readlink()), 400)))
    gone = _with_emptied_folders(own, store)
    return Removal(gone, sum(map(_frees, gone)), " ".join(notes))


def remove(model: Model) -> Removal:
    """Remove a model; returns what was taken away.

    Raises:
        DrkunError: as `removal`, or ``remove_failed``.
    """
    done = removal(model)
    store = paths.model_store().resolve()
    try:
        for path in done.paths:
            if not path.parent.resolve().is_relative_to(store):
                raise _refusal("remove_outside", name=model.name, path=str(path))
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if not model.complete:
            unfinished.forget(model.path)
    except OSError as error:
        raise _remove_failed(model, error) from error
    aliases.forget(model.path)
    return done


def _remove_failed(model: Model, error: OSError) -> DrkunError:
    reason = printable(error.strerror or str(error))
    message = t("inventory.remove_failed", name=model.name, reason=reason)
    return DrkunError("remove_failed", message, t("inventory.remove_failed_hint"), EXIT_FAILED)


def _refusal(kind: str, **values: str) -> DrkunError:
    shown = {key: printable(value, 400) for key, value in values.items()}
    return DrkunError(kind, t(f"inventory.{kind}", **shown), t(f"inventory.{kind}_hint"), EXIT_BAD_INPUT)


# Importing


def _ensure_usable(model: Model) -> None:
    if model.error:
        raise model.error
    if not model.complete:
        problem = model.problems[0]
        message = t("inventory.import_refused", name=model.name, reason=problem.text)
        raise DrkunError("import_refused", message, problem.remedy, EXIT_NO_MODEL)


def _ensure_movable(model: Model) -> None:
    """What another program counts on, and what is only a link, stays where it is."""
    source = stores.source_of(model.path)
    links = any(path.is_symlink() for path in (model.path, *model.files))
    if links or source is not Source.FOLDER:
        raise _refusal("import_not_movable", name=model.name)


def _lies_in(path: Path, store: Path) -> bool:
    return (path.parent.resolve() / path.name).is_relative_to(store.resolve())


def _default_name(model: Model) -> str:
    if model.kind in (Kind.BASE, Kind.LORA):
        folder = model.path.resolve()
        repository = folder.parent.parent
        cached = folder.parent.name == "snapshots" and hub_cache.source_of(repository) is not None
        return hub_cache.name_of(repository) if cached else folder.name
    split = SPLIT.fullmatch(model.path.name)
    if split is None and model.path.suffix.lower() != ".gguf":  # a blob, named after a hash
        return model.title or model.path.name
    return split["stem"] if split else model.path.stem


def safe_name(name: str) -> str:
    """A name that can be a path in the store, as near to `name` as may be."""
    parts = []
    for part in name.split("/")[:MAX_PARTS]:
        shown = printable(part, MAX_PART).replace("\N{REPLACEMENT CHARACTER}", "_").replace("\\", "_")
        cut = shown.encode("utf8")[:MAX_PART].decode("utf8", "ignore").strip(" .")
        parts.append(f"_{cut}" if SKIPPED_FOLDER.fullmatch(cut) or not cut else cut)
    return "/".join(parts)


def checked_name(name: str) -> str:
    """A name that somebody chose.

    Raises:
        DrkunError: ``import_name``, it would lead out of the store, or to where no scan looks.
    """
    name = name.strip()
    if name.lower().endswith(".gguf"):
        name = name[: -len(".gguf")]
    if len(name.split("/")) > MAX_PARTS or safe_name(name) != name:
        raise _refusal("import_name", name=name)
    return name


def _steps(model: Model, store: Path, name: str) -> list[tuple[Path, Path]]:
    """From where to where: a folder, or each file."""
    if model.kind in (Kind.BASE, Kind.LORA):
        return [(model.path, store / name)]
    steps = []
    for file in model.files:
        split = SPLIT.fullmatch(file.name)
        ending = f"-{split['part']}-of-{split['total']}.gguf" if split else ".gguf"
        steps.append((file, store / f"{name}{ending}"))
    return steps


def _bring(model: Model, mode: Mode, steps: list[tuple[Path, Path]], store: Path) -> None:
    """Do it, all of it or nothing."""
    with contextlib.ExitStack() as undo:
        if mode is Mode.LINK:
            for source, target in steps:
                target.symlink_to(source.absolute())
                undo.callback(target.unlink)
        elif mode is Mode.MOVE and _same_device(steps[0][0], store):
            for source, target in steps:
                _place(source, target)
                undo.callback(target.rename, source)
        else:
            _copy(model, steps, store, undo)
            if mode is Mode.MOVE:
                undo.pop_all()  # from here on the copies are the model
                for source, _ in steps:
                    _remove_copied(source)
        undo.pop_all()


def _copy(model: Model, steps: list[tuple[Path, Path]], store: Path, undo: contextlib.ExitStack) -> None:
    """Copy aside, look whether the copy is whole, and only then put it in its place."""
    files = [(file, source, target) for source, target in steps for file in _files_of(source)]
    need, free = sum(size_of(file) for file, _, _ in files), shutil.disk_usage(store).free
    if need > free:
        values = {"need": size_text(need), "free": size_text(free)}
        message = t("inventory.import_no_space", name=model.name, **values)
        raise DrkunError("import_no_space", message, t("inventory.no_space_hint"), EXIT_FAILED)
    aside = store / f".import-{os.getpid()}-{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        for file, source, target in files:
            copy = aside / target.name / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            # A link is followed: a cache's files are links into its blobs.
            shutil.copyfile(file, copy)
        _ensure_usable(inventory.at(aside / steps[0][1].name))
        for _, target in steps:
            _place(aside / target.name, target)
            undo.callback(shutil.rmtree if target.is_dir() else Path.unlink, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _place(source: Path, target: Path) -> None:
    """Rename a file or folder, but never over another, whoever may have put that there meanwhile."""
    if source.is_dir():
        source.rename(target)  # fails where something is
        return
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        source.rename(target)
    else:
        source.unlink()


def _files_of(source: Path) -> Iterator[Path]:
    """The files that make a model: the one, or those of its folder but for hidden ones, checkpoints,
    pipes and whatever lies behind links to folders."""
    if not source.is_dir():
        yield source
        return
    for parent, below, names in os.walk(source):
        below[:] = [name for name in below if not SKIPPED_FOLDER.fullmatch(name)]
        yield from (Path(parent, name) for name in names if name[0] != "." and is_file(Path(parent, name)))


def _remove_copied(source: Path) -> None:
    """Remove what was copied, and no more: checkpoints and hidden files stay where they are."""
    for file in list(_files_of(source)):
        file.unlink()
    for parent, _, _ in os.walk(source, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            Path(parent).rmdir()


def _same_device(path: Path, store: Path) -> bool:
    return path.stat().st_dev == store.stat().st_dev


# Removing


def _link_above(path: Path, store: Path) -> Path | None:
    """The link in the store that leads to the folder that `path` is in, or that is that folder."""
    folder = path if path.is_dir() else path.parent
    below = [folder, *folder.parents]
    inside = [part for part in below if part != store and part.is_relative_to(store)]
    return next((part for part in reversed(inside) if part.is_symlink()), None)


def _own_paths(model: Model, path: Path, store: Path) -> list[Path]:
    """A model's own files and what has come of them; its folder where nothing else lies in it.

    Raises:
        DrkunError: ``remove_busy``, it is being downloaded.
    """
    begun = None if model.complete else unfinished.marked(path)
    if begun and begun.running:
        raise _refusal("remove_busy", name=model.name)
    folder = begun.folder if begun else path if model.kind in (Kind.BASE, Kind.LORA) else None
    if folder and folder != store and all(m.path == model.path for m in inventory.scan([folder])):
        return [folder] if os.path.lexists(folder) else []
    partial = begun.files_here(begun.of_model(path)) if begun else []
    if model.kind in (Kind.GGUF, Kind.GGUF_LORA):
        return [*model.files, *partial]
    entries = (entry for entry in path.iterdir() if not entry.name.startswith(".") and not entry.is_dir())
    return [*(entry for entry in entries if entry.suffix.lower() != ".gguf"), *partial]


def _with_emptied_folders(own: list[Path], store: Path) -> tuple[Path, ...]:
    """These paths; where nothing would be left in their folder but leftovers, the folder instead."""
    gone = own
    parent = own[0].parent if own else store
    while parent != store and all(
        entry in gone or entry.name.lower() in _LEFTOVERS for entry in parent.iterdir()
    ):
        gone, parent = [parent], parent.parent
    return tuple(gone)


def _frees(path: Path) -> int:
    """Bytes that the disk gets back: not those of a link, nor of a file that has another name."""
    files = files_below(path) if path.is_dir() and not path.is_symlink() else (path,)
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            status = file.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0
    return total


def _remove_empty(folder: Path, store: Path) -> None:
    """Remove the folders that were made for what then did not come."""
    with contextlib.suppress(OSError):
        while folder != store and folder.is_relative_to(store):
            folder.rmdir()
            folder = folder.parent
