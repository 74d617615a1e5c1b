"""llama.cpp's own converters, in the version of the installed llama-cpp-python.

They are in its source distribution and not in its wheel, and go with the ``gguf`` package beside them. They
are fetched once, by pip, and kept in the cache folder; a converter of another version than the library that
reads the file would write what it cannot read.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import filelock

from drkun_tui import paths
from drkun_tui.publishing.faults import PublishingError, StopRequested

PACKAGE = "llama-cpp-python"
SOURCE = "DRKUN_LLAMA_CPP_SDIST"
"""A variable that names the source distribution, where there is no network."""

_NEEDED = (
    "convert_lora_to_gguf.py",
    "conversion/base.py",
    "gguf-py/gguf/__init__.py",
)
_WANTED = ("conversion/", "gguf-py/gguf/", "convert_lora_to_gguf.py", "convert_hf_to_gguf.py", "LICENSE")
_LOOK_EVERY_S = 0.1
_MOST_BYTES = 64 * 1024 * 1024
"""Of all files that are taken; they have some 2 MB."""


def version() -> str:
    """Of the installed llama-cpp-python."""
    return importlib.metadata.version(PACKAGE)


def folder() -> Path:
    """Where the converters of this version are, or will be."""
    return paths.cache() / f"llama.cpp-{version()}"


def present() -> bool:
    """Are they there?"""
    return folder().is_dir()


def ensure(stopping: Callable[[], bool]) -> Path:
    """Their folder; they are fetched when they are not there.

    Args:
        stopping: asked often while pip works.

    Raises:
        PublishingError: ``converters_missing``, they cannot be had; ``converters_broken``.
        StopRequested: somebody asked for it.
        OSError: the cache folder cannot be written.
    """
    target = folder()
    if present():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(target.with_name(f".{target.name}.lock")):
        if present():
            return target
        aside = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            unpacked = aside / "llama.cpp"
            _unpack(_archive(aside, stopping), unpacked)
            if not all((unpacked / name).is_file() for name in _NEEDED):
                raise PublishingError("converters_broken", version=version())
            unpacked.replace(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _archive(aside: Path, stopping: Callable[[], bool]) -> Path:
    """The source distribution, given or fetched."""
    name = f"llama_cpp_python-{version()}.tar.gz"
    if given := os.environ.get(SOURCE):
        if Path(given).name != name:
            raise PublishingError("converters_other", file=Path(given).name, wanted=name)
        return Path(given)
    log = aside / "pip.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(*_pip(), "download", "--no-deps", "--no-binary", PACKAGE, "--dest", str(aside)),
                *("--disable-pip-version-check", "--no-input", f"{PACKAGE}=={version()}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        while _still_runs(process):
            if stopping():
                raise StopRequested
    finally:
        process.kill()
        process.wait()
    # pip also prepares the package's metadata, which needs build tools that are none of our business.
    if (aside / name).is_file():
        return aside / name
    raise PublishingError("converters_missing", version=version(), reason=_reason(log))


def _still_runs(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_LOOK_EVERY_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _pip() -> list[str]:
    """How pip is started. Environments may be without one of their own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip", "pip3"):
        if found := shutil.which(name):
            return [found]
    raise PublishingError("no_pip", version=version())


def _reason(log: Path) -> str:
    """pip's last error, without the addresses that it tried."""
    lines = log.read_text("utf8", "replace").splitlines()
    errors = [line.partition("ERROR:")[2].strip() for line in lines if "ERROR:" in line]
    found = next((line for line in reversed(errors) if line), "")
    return " ".join(word for word in found.split() if "://" not in word)[:200] or "pip"


def _unpack(archive: Path, target: Path) -> None:
    """The converters out of the source distribution, and nothing else of it."""
    taken = 0
    try:
        with tarfile.open(archive) as files:
            for member in files:
                inside = PurePosixPath(member.name).parts[3:]
                name = "/".join(inside)
                if not member.isfile() or not name.startswith(_WANTED) or ".." in inside:
                    continue
                taken += member.size
                if taken > _MOST_BYTES:
                    raise PublishingError("converters_broken", version=version())
                path = target.joinpath(*inside)
                path.parent.mkdir(parents=True, exist_ok=True)
                if (content := files.extractfile(member)) is not None:
                    with content, path.open("wb") as out:
                        shutil.copyfileobj(content, out)
    except (tarfile.TarError, EOFError) as error:
        raise PublishingError("converters_broken", version=version()) from error
