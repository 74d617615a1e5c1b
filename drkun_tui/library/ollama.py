"""Ollama's store: manifests that name models, and blobs that are their parts.

``manifests/HOST/NAMESPACE/NAME/TAG`` is a JSON object whose layers name blobs by their hashes. A layer
of a model is a GGUF file, and so is one of an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from drkun_tui.i18n import t
from drkun_tui.library import gguf_model
from drkun_tui.library.files import is_file, is_folder, read_bytes
from drkun_tui.library.model import Kind, Model, Problem, Source
from drkun_tui.library.printable import printable

MAX_MANIFESTS = 10_000
"""Most manifests of one store."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYERS = {
    "application/vnd.ollama.image.model": "",
    "application/vnd.ollama.image.adapter": "/adapter",
}
"""Media types that are GGUF files, and what their names end with."""


class _Layer(msgspec.Struct):
    media_type: str = msgspec.field(name="mediaType", default="")
    digest: str = ""


class _Manifest(msgspec.Struct):
    layers: list[_Layer] = []


def is_store(root: Path) -> bool:
    """Is this the folder of Ollama's models?"""
    return is_folder(root / "manifests") and is_folder(root / "blobs")


def models(root: Path) -> Iterator[Model]:
    """Every model in the store, named as Ollama names it."""
    for number, manifest in enumerate(sorted((root / "manifests").glob("*/*/*/*"))):
        if number >= MAX_MANIFESTS:
            break
        if is_file(manifest):
            yield from (replace(model, source=Source.OLLAMA) for model in _models(root, manifest))


def _models(root: Path, manifest: Path) -> Iterator[Model]:
    name = _name(manifest.relative_to(root / "manifests").parts)
    again = t("inventory.remedy_ollama", name=name)
    try:
        layers = msgspec.json.decode(read_bytes(manifest), type=_Manifest).layers
    except (OSError, ValueError, RecursionError):
        yield _broken(name, manifest, Problem(t("inventory.bad_manifest"), again))
        return
    seen: dict[str, int] = {}
    for layer in layers:
        ending = _LAYERS.get(layer.media_type)
        if ending is None:
            continue
        count = seen[ending] = seen.get(ending, 0) + 1
        shown = f"{name}{ending}{count if count > 1 else ''}"
        digest = _DIGEST.fullmatch(layer.digest)
        if digest is None:  # anything else could lead out of the store
            yield _broken(shown, manifest, Problem(t("inventory.bad_manifest"), again))
            continue
        blob = root / "blobs" / f"sha256-{digest[1]}"
        if is_file(blob):
            yield gguf_model.describe([blob], shown)
        else:
            problem = Problem(t("inventory.blob_missing", blob=blob.name[:19]), again)
            yield _broken(shown, blob, problem)


def _name(parts: tuple[str, ...]) -> str:
    """As Ollama writes it: its own host and namespace go without saying."""
    host, namespace, name, tag = parts
    words = [name] if namespace == "library" and host == "registry.ollama.ai" else [namespace, name]
    if host != "registry.ollama.ai":
        words.insert(0, host)
    return printable(f"{'/'.join(words)}:{tag}")


def _broken(name: str, path: Path, problem: Problem) -> Model:
    return Model(name=name, kind=Kind.GGUF, path=path, complete=False, problems=(problem,))
