"""Which models are on disk: what each is, by its content, and whether it is whole.

A folder's name means nothing here. ``adapter_config.json`` makes a LoRA, ``config.json`` with weight
shards a base model, a GGUF header a GGUF model or adapter. A broken file never stops a scan: it is
listed with its problem. Nothing is written, and nothing of a model is executed: pickle weights are
listed and refused.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from drkun_tui import paths
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library import gguf
from drkun_tui.library.fit import Fit, Shape, cache_bytes, fit, shape_of
from drkun_tui.library.gguf import GgufHeader, Skipped, printable
from drkun_tui.profiles import Profile

DEPTH = 5
"""Levels of folders below a model folder that are searched."""

FOLDERS = 20_000
"""Most folders of one scan; a whole disk given by mistake ends there."""

DEMONSTRATION = "Dr. Kun Starter 26M"
"""``general.name`` of the bundled model."""

_MAX_JSON = 32 * 1024 * 1024
"""Bytes of the largest JSON that is read; headers and indexes of the largest models have some 10 MB."""

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<total>\d{5})\.(?:gguf|safetensors)", re.IGNORECASE)
_SKIPPED_FOLDER = re.compile(r"\..*|checkpoints|checkpoint-\d+", re.IGNORECASE)
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "consolidated*.pth", "model*.bin", "model*.pt")


class Kind(StrEnum):
    """What a model is."""

    BASE = "base"
    LORA = "lora"
    GGUF = "gguf"
    GGUF_LORA = "gguf-lora"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model on disk. Texts from files are fit for a screen; None is unknown."""

    name: str
    """Unique among the models of one scan."""
    kind: Kind
    path: Path
    """The GGUF file (of a split one its first part), else the folder."""
    size_bytes: int = 0
    """Of its weight files."""
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_length: int | None = None
    base_model: str | None = None
    """For an adapter: what it was trained on, as it says."""
    rank: int | None = None
    complete: bool = True
    problems: tuple[str, ...] = ()
    """Short sentences."""
    demonstration: bool = False
    """Is it the bundled starter, wherever its copy lies?"""
    shape: Shape | None = field(default=None, repr=False)
    """What its memory depends on; None where too little could be read."""
    error: DrkunError | None = field(default=None, repr=False, compare=False)
    """Why its file cannot be read."""

    def as_dict(self, hardware: Hardware) -> dict[str, Any]:
        """The object of ``drkun models --json``."""
        fields = (
            "name", "kind", "path", "size_bytes", "architecture", "parameters", "quantization",
            "context_length", "base_model", "complete", "problems", "demonstration",
        )  # fmt: skip
        told = {name: getattr(self, name) for name in fields}
        told |= {
            "kind": self.kind.value,
            "path": os.fsencode(self.path).decode("utf8", "replace"),
            "problems": list(self.problems),
        }
        return told | {"fits": {name: asdict(fits) for name, fits in self.fits(hardware).items()}}

    def fits(self, hardware: Hardware) -> dict[str, Fit]:
        """Does it fit, for each of the profiles ``cpu``, ``gpu8`` and ``gpu16``?"""
        if self.shape is None:
            return {p.value: Fit(False, 0, t("library.unknown_size")) for p in _FIT_PROFILES}
        return {p.value: fit(self.shape, p, hardware) for p in _FIT_PROFILES}


_FIT_PROFILES = (Profile.CPU, Profile.GPU8, Profile.GPU16)


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that the disk says of one model."""

    model: Model
    metadata: dict[str, Any]
    """Of a GGUF its header's entries, long arrays as ``{"type", "length"}``; else its configuration."""
    chat_template: str | None

    @property
    def complete(self) -> bool:
        """Is the model whole?"""
        return self.model.complete

    def as_dict(self, hardware: Hardware) -> dict[str, Any]:
        """The object of ``drkun inspect --json``."""
        return self.model.as_dict(hardware) | {
            "metadata": self.metadata,
            "chat_template": self.chat_template,
        }


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


def details(model: Model) -> Inspection:
    """What the disk says of a model beyond its entry in the list; nothing when it cannot be read."""
    if model.kind in (Kind.GGUF, Kind.GGUF_LORA):
        try:
            header = _header(model.path)
        except DrkunError:
            return Inspection(model, {}, None)
        metadata = {printable(key): _plain(value) for key, value in header.metadata.items()}
        return Inspection(model, metadata, header.chat_template or None)
    name = "adapter_config.json" if model.kind is Kind.LORA else "config.json"
    template = _json(model.path / "tokenizer_config.json").get("chat_template")
    with contextlib.suppress(OSError):
        template = _bytes(model.path / "chat_template.jinja").decode("utf8", "replace")
    return Inspection(model, _json(model.path / name), template if isinstance(template, str) else None)


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


# Walking


def _scan_folder(root: Path, seen: set[tuple[int, int]]) -> Iterator[Model]:
    """The models in one folder; `seen` holds device and inode of what was already listed."""
    root = root.absolute()
    for folder, files in _walk(root, seen):
        for model in _in_folder(folder, files, root):
            if model.path == folder or _first_sight(model.path, seen):
                yield model


def _walk(root: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with its files' names, in order. A folder is visited once, so links may form loops."""
    waiting = [(root, 0)]
    visited = 0
    while waiting and visited < FOLDERS:
        folder, depth = waiting.pop()
        if not _first_sight(folder, seen):
            continue
        visited += 1
        files: list[str] = []
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # What is neither, such as a link to nothing, counts as a file that has a problem.
                    (below if _is_folder(entry) else files).append(entry.name)
        except OSError:  # not there, not a folder, or not ours to read
            continue
        yield folder, sorted(files)
        if depth < DEPTH:
            names = (name for name in sorted(below, reverse=True) if not _SKIPPED_FOLDER.fullmatch(name))
            waiting.extend((folder / name, depth + 1) for name in names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _first_sight(path: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = path.stat()
    except OSError:
        return True
    key = (status.st_dev, status.st_ino)
    if not status.st_ino or key not in seen:  # some file systems have no inodes; the depth bounds those
        seen.add(key)
        return True
    return False


def _in_folder(folder: Path, files: list[str], root: Path) -> Iterator[Model]:
    """The models whose files lie in this folder itself."""
    shown = _relative(folder, root) or printable(folder.resolve().name)
    ggufs: dict[str, list[str]] = {}
    for file in files:
        if file.lower().endswith(".gguf"):
            split = _SPLIT.fullmatch(file)
            ggufs.setdefault(f"{split['stem']}/{split['total']}" if split else file, []).append(file)
    has = set(files)
    pickles = [file for file in files if any(fnmatch(file, pattern) for pattern in _PICKLES)]
    shards = [file for file in files if file.endswith(".safetensors") and file != "adapter_model.safetensors"]
    if has & {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}:
        yield _lora(folder, has, shown)
    elif (
        shards
        or pickles
        or ("config.json" in has and not ggufs and _json(folder / "config.json").get("model_type"))
    ):
        yield _base(folder, has, shards, pickles, shown)
    for parts in ggufs.values():
        split = _SPLIT.fullmatch(parts[0])
        stem = split["stem"] if split else parts[0][: -len(".gguf")]
        yield _gguf([folder / part for part in parts], _relative(folder / stem, root))


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
    elif split := _SPLIT.fullmatch(path.name):
        pattern = re.compile(re.escape(split["stem"]) + rf"-\d{{5}}-of-{split['total']}\.gguf", re.IGNORECASE)
        parts = {path}
        with contextlib.suppress(OSError):
            parts |= {file for file in path.parent.iterdir() if pattern.fullmatch(file.name)}
        model = _gguf(sorted(parts), printable(split["stem"]))
    else:
        model = _gguf([path], printable(path.stem))
    return replace(model, name="starter") if model.demonstration and _is_bundled(model.path) else model


# The kinds

Read = TypeVar("Read")
_cache: dict[tuple[str, int, int], Any] = {}


def _cached(path: Path, read: Callable[[Path], Read]) -> Read:
    """What `read` makes of a file, kept as long as its size and time of change stay."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return read(path)  # which says what is wrong
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _cache:
        if len(_cache) >= 4096:
            _cache.clear()
        _cache[key] = read(path)
    return _cache[key]  # type: ignore[no-any-return]


def _header(path: Path) -> GgufHeader:
    return _cached(path, lambda path: gguf.read(path, partial=True))


def _gguf(files: list[Path], name: str) -> Model:
    """A model of one file, or of the parts that are there."""
    headers: list[GgufHeader] = []
    errors: list[DrkunError] = []
    for file in files:
        try:
            headers.append(_header(file))
            if not headers[-1].complete:
                gguf.read(file)  # says how much is missing
        except DrkunError as refused:
            errors.append(refused)
    problems = [refused.message for refused in errors]
    if (split := _SPLIT.fullmatch(files[0].name)) and len(files) != int(split["total"]):
        problems.append(t("library.parts_missing", have=len(files), total=int(split["total"])))
    size = sum(_size(file) for file in files)
    error = errors[0] if errors else None
    if not headers:
        return Model(
            name=name, kind=Kind.GGUF, path=files[0], size_bytes=size, complete=False,
            problems=tuple(problems), error=error,
        )  # fmt: skip
    first = headers[0]
    shape = replace(
        shape_of(first),
        weight_bytes=sum(header.tensor_bytes for header in headers),
        parameters=sum(header.parameters for header in headers),
    )
    complete = not problems
    if complete and not shape.parameters:
        complete = False
        problems.append(t("library.no_weights"))
    if first.general_type not in ("model", "adapter") or first.architecture == "clip":
        problems.append(t("library.not_language", type=printable(first.general_type)))
    adapter = first.general_type == "adapter"
    base = first.text("general.base_model.0.repo_url") or first.text("general.base_model.0.name")
    return Model(
        name=name,
        kind=Kind.GGUF_LORA if adapter else Kind.GGUF,
        path=files[0],
        size_bytes=size,
        architecture=printable(first.architecture) or None,
        parameters=shape.parameters or None,
        quantization=first.quantization or None,
        context_length=first.context_length,
        base_model=(printable(base) or None) if adapter else None,
        complete=complete,
        problems=tuple(problems),
        demonstration=first.name == DEMONSTRATION,
        shape=shape,
        error=error,
    )


def _lora(folder: Path, files: set[str], name: str) -> Model:
    """A PEFT adapter."""
    config = _json(folder / "adapter_config.json")
    problems = [] if config else [t("library.bad_config", file="adapter_config.json")]
    weights = _Weights()
    if "adapter_model.safetensors" in files:
        weights.add(folder / "adapter_model.safetensors")
    elif "adapter_model.bin" in files:
        weights.add_pickle(folder / "adapter_model.bin")
    else:
        weights.problems.append(t("library.weights_missing", file="adapter_model.safetensors"))
    method = config.get("peft_type", "LORA")
    if method != "LORA":
        problems.append(t("library.not_lora", type=printable(str(method))))
    base = config.get("base_model_name_or_path")
    return Model(
        name=name,
        kind=Kind.LORA,
        path=folder,
        size_bytes=weights.size,
        parameters=weights.parameters or None,
        quantization=weights.dtype,
        base_model=printable(base) if isinstance(base, str) and base else None,
        rank=_int(config, "r") or None,
        complete=not problems and not weights.problems,
        problems=(*problems, *weights.problems),
        shape=Shape(weights.size, is_gguf=False, is_adapter=True),
    )


def _base(folder: Path, files: set[str], shards: list[str], pickles: list[str], name: str) -> Model:
    """A model in the layout of the transformers library."""
    config = _json(folder / "config.json")
    problems = [] if config else [t("library.bad_config", file="config.json")]
    weights = _Weights()
    index = _json(folder / "model.safetensors.index.json").get("weight_map")
    wanted = {file for file in index.values() if isinstance(file, str)} if isinstance(index, dict) else set()
    for shard in shards:
        if index and shard not in wanted:  # the same weights again, in another layout
            continue
        weights.add(folder / shard)
        if not wanted and (split := _SPLIT.fullmatch(shard)):
            total = int(split["total"])
            wanted = {f"{split['stem']}-{n:05}-of-{split['total']}.safetensors" for n in range(1, total + 1)}
    if missing := wanted - files:
        problems.append(t("library.shards_missing", have=len(wanted) - len(missing), total=len(wanted)))
    if not shards and not pickles and not missing:
        problems.append(t("library.weights_missing", file="model.safetensors"))
    if not shards:
        for pickle in pickles:
            weights.add_pickle(folder / pickle)
    # Models of several modalities keep the language model's numbers one level down.
    inner = config.get("text_config")
    text = config | inner if isinstance(inner, dict) else config
    architectures = config.get("architectures")
    named = (
        architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    )
    stored = config.get("quantization_config")
    method = stored.get("quant_method") if isinstance(stored, dict) else None
    hidden, heads = _int(text, "hidden_size"), _int(text, "num_attention_heads")
    head = _int(text, "head_dim") or (hidden // heads if heads else 0)
    layers, kv_heads = _int(text, "num_hidden_layers"), _int(text, "num_key_value_heads") or heads
    embeddings = _int(text, "vocab_size") * hidden * (2 if text.get("tie_word_embeddings") is False else 1)
    # Packed weights hide how many there are; they are loaded as they are stored.
    parameters = 0 if method else weights.parameters
    shape = Shape(
        weight_bytes=weights.size,
        is_gguf=False,
        parameters=parameters,
        embedding_parameters=min(embeddings, parameters),
        cache_bytes=cache_bytes(layers * kv_heads, head, head),
        vocabulary=_int(text, "vocab_size"),
        embedding=hidden,
        feed_forward=_int(text, "intermediate_size"),
        context_length=_int(text, "max_position_embeddings"),
    )
    return Model(
        name=name,
        kind=Kind.BASE,
        path=folder,
        size_bytes=weights.size,
        architecture=printable(named) if isinstance(named, str) else None,
        parameters=parameters or None,
        quantization=printable(method) if isinstance(method, str) else weights.dtype,
        context_length=shape.context_length or None,
        complete=not problems and not weights.problems,
        problems=(*problems, *weights.problems),
        shape=shape if weights.size and not missing else None,
    )


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_tensors = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor = msgspec.json.Decoder(_Tensor)


class _Weights:
    """Sums up the weight files of one folder."""

    def __init__(self) -> None:
        self.size = 0
        self.problems: list[str] = []
        self._elements: dict[str, int] = {}

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(self._elements.values())

    @property
    def dtype(self) -> str | None:
        """The type that most elements have, e.g. ``"BF16"``."""
        return max(self._elements, key=lambda dtype: self._elements[dtype], default=None)

    def add_pickle(self, path: Path) -> None:
        """Count a file that is never opened: unpickling runs what its author wrote."""
        self.size += _size(path)
        self.problems.append(t("library.pickle", file=printable(path.name)))

    def add(self, path: Path) -> None:
        """Count a safetensors file."""
        self.size += _size(path)
        try:
            elements, needed = _cached(path, _read_safetensors)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            self.problems.append(t("library.safetensors_broken", file=printable(path.name)))
            return
        for dtype, count in elements.items():
            self._elements[dtype] = self._elements.get(dtype, 0) + count
        if (have := _size(path)) < needed:
            self.problems.append(
                t("library.safetensors_truncated", file=printable(path.name), have=have, need=needed)
            )


def _read_safetensors(path: Path) -> tuple[dict[str, int], int]:
    """Elements of each type, and the bytes that the file must have.

    The format: eight bytes with the length of a JSON object, which gives each tensor's type, shape and
    place in the bytes that follow.
    """
    elements: dict[str, int] = {}
    end = 0
    with _open(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _MAX_JSON:
            raise ValueError("header length")
        for name, raw in _tensors.decode(file.read(length)).items():
            if name != "__metadata__":
                tensor = _tensor.decode(raw)
                dtype = printable(tensor.dtype, 16)
                elements[dtype] = elements.get(dtype, 0) + max(0, math.prod(tensor.shape))
                end = max(end, tensor.data_offsets[1])
    return elements, 8 + length + end


def _open(path: Path) -> BinaryIO:
    """A regular file. Opening a pipe or a device could wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("no regular file")
    return path.open("rb")


def _bytes(path: Path) -> bytes:
    with _open(path) as file:
        return file.read(_MAX_JSON)


def _json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty when there is none to be had."""
    try:
        told = msgspec.json.decode(_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _int(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _plain(value: gguf.Value) -> Any:
    """A metadata value as JSON can hold it."""
    if isinstance(value, Skipped):
        return {"type": value.kind, "length": value.length}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
