"""Which adapter goes with which base: by what the adapter says, and by the shapes of its tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drkun_tui.i18n import t
from drkun_tui.library.model import Kind, Model, Problem
from drkun_tui.library.tensors import Shape, Tensors

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_URL = re.compile(r"https?://[^/]+/(?:models/)?")
_QUANTISED = re.compile(r"(?:-unsloth)?-bnb-[48]bit$", re.IGNORECASE)
"""What unsloth's copies of a model are called that bitsandbytes has quantised."""
_GGUF_ENDING = re.compile(
    r"[-_. ](?:(?:ud-)?(?:i1-)?i?q\d\w*|tq\d\w*|mxfp4\w*|b?f16|fp16|f32|gguf)$", re.IGNORECASE
)
"""What a GGUF's name says besides the model's: the quantisation, or the format."""


def mismatch(adapter: Model, base: Model) -> str | None:
    """Why the adapter cannot be attached to this base, one sentence; None when nothing speaks against it.

    What cannot be read speaks against nothing. A GGUF adapter is held against its base as llama.cpp
    holds it when it loads: for a weight of (inputs, outputs), ``lora_a`` is (inputs, rank) and
    ``lora_b`` (rank, outputs); for the token embedding of (width, vocabulary), (rank, vocabulary) and
    (rank, width). A PEFT adapter has ``lora_A`` (rank, inputs) and ``lora_B`` (outputs, rank) for a
    weight of (outputs, inputs), and whole weights for ``modules_to_save``.
    """
    names = {"adapter": adapter.name, "base": base.name}
    if adapter.kind is Kind.GGUF_LORA and base.kind is not Kind.GGUF:
        return t("inventory.adapter_wants_gguf", **names)
    if adapter.kind is Kind.LORA and base.kind is not Kind.BASE:
        return t("inventory.adapter_wants_folder", **names)
    if adapter.architecture and base.architecture and adapter.architecture != base.architecture:
        return t(
            "inventory.adapter_architecture", theirs=adapter.architecture, ours=base.architecture, **names
        )
    if adapter.tensors is None:
        return None
    changes = list(_changes(adapter.tensors, gguf=adapter.kind is Kind.GGUF_LORA))
    weights = _weights(base.tensors, gguf=base.kind is Kind.GGUF) if base.tensors else {}
    if base.tensors and any(change.module in weights for change in changes):
        if adapter.tensors.layers > base.tensors.layers:
            layers = {"theirs": adapter.tensors.layers, "ours": base.tensors.layers}
            return t("inventory.adapter_layers", **layers, **names)
        # The transformers library may call a module otherwise than its weights are stored.
        gone = [change.module for change in changes if change.module not in weights]
        if gone and base.kind is Kind.GGUF and base.tensors.whole:
            return t("inventory.adapter_no_tensor", tensor=gone[0], **names)
    for change in changes:
        # Where the weight is not known by this name, the configuration's numbers must do.
        known = weights.get(change.module) or _by_configuration(base, change.module)
        if known and not any(change.fits(weight) for weight in known):
            return change.complaint(known, names)
    return None


def base_for(adapter: Model, models: Iterable[Model]) -> Model | None:
    """The base that an adapter belongs to: the one that it names, by path or by name, with its
    organisation or without.

    An adapter that names none, or only a place on another machine, goes with the one whole base that
    fits it in architecture and shapes, if there is exactly one.
    """
    return _Bases(models).of(adapter)


def named_base(adapter: Model, models: Iterable[Model]) -> Model | None:
    """The same, but none that an adapter does not name and that merely fits it."""
    return _Bases(models).named(adapter)


def bases(models: Sequence[Model]) -> list[Model | None]:
    """The base of each of these models, as `base_for` finds it among them; None for what is no adapter."""
    known = _Bases(models)
    return [known.of(model) if model.is_adapter else None for model in models]


def missing_base(adapter: Model, models: Iterable[Model]) -> str | None:
    """What to look for on a hub for an adapter; None when its base is here, fitting or not, or is not named
    so that it can be found.

    That is the repository that it names. One for a GGUF adapter that holds no GGUF, as nearly all that are
    named, has copies that do: then it is the model's name and the format.
    """
    named = _plain(adapter.base_model or "")
    bases = _Bases(models)
    if not _REPOSITORY.fullmatch(named) or bases.of(adapter) is not None or bases.unfit(adapter) is not None:
        return None
    return f"{_last(named)} GGUF" if _wants_copy(adapter, named) else named


def is_here(base: str, models: Iterable[Model]) -> bool:
    """Is a whole base model there that a PEFT adapter may mean by this name?"""
    return any(model.complete for model in _Bases(models).meant(base, Kind.BASE))


def dependents(base: Model, models: Sequence[Model]) -> list[Model]:
    """The adapters that would be left without this base."""
    bases = _Bases(models)
    needing = [model for model in models if model.is_adapter and bases.of(model) is base]
    without = _Bases([model for model in models if model is not base])
    return [adapter for adapter in needing if without.of(adapter) is None]


def checked(models: Sequence[Model]) -> list[Model]:
    """These models, the adapters among them with the problem of a base that is absent or does not fit."""
    bases = _Bases(models)

    def check(model: Model) -> Model:
        if not model.is_adapter or not model.complete or bases.of(model) is not None:
            return model
        found = bases.problem(model)
        return replace(model, problems=(*model.problems, found)) if found else model

    return [check(model) for model in models]


class _Bases:
    """The bases among some models, by every name under which an adapter may know them."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = [model for model in models if not model.is_adapter]
        self._by_key: dict[str, list[Model]] = {}
        for model in self._models:
            for key in dict.fromkeys(_keys_of(model)):
                self._by_key.setdefault(key, []).append(model)

    def of(self, adapter: Model) -> Model | None:
        """The base of this adapter."""
        if (found := self.named(adapter)) is not None:
            return found
        if _REPOSITORY.fullmatch(_plain(adapter.base_model or "")):
            return None  # of the same shape is not the same: fine-tunes share their base's
        alike = [m for m in self._models if m.complete and mismatch(adapter, m) is None]
        return alike[0] if len(alike) == 1 else None

    def named(self, adapter: Model) -> Model | None:
        """The base that it names, where that fits."""
        fitting = [model for model in self._named(adapter) if mismatch(adapter, model) is None]
        return next((model for model in fitting if model.complete), fitting[0] if fitting else None)

    def unfit(self, adapter: Model) -> Model | None:
        """The base that an adapter means, where none of those fits it."""
        wanted = _FORMATS[adapter.kind]
        named = [model for model in self._named(adapter) if model.kind is wanted]
        return named[0] if named and all(mismatch(adapter, model) for model in named) else None

    def problem(self, adapter: Model) -> Problem | None:
        """What to say of an adapter that has no base here."""
        if (named := self.unfit(adapter)) is not None:
            reason = mismatch(adapter, named) or ""
            return Problem(reason, t("inventory.remedy_other_base"))
        base = _plain(adapter.base_model or "")
        if _REPOSITORY.fullmatch(base):
            absent = t("inventory.adapter_absent", base=base)
            if _wants_copy(adapter, base):
                return Problem(absent, t("inventory.remedy_search_base", name=_last(base)))
            return Problem(absent, t("inventory.remedy_pull_base", repo=base))
        if any(m.complete and mismatch(adapter, m) is None for m in self._models):
            return None  # several would do: the user's choice
        text = t("inventory.adapter_absent", base=base) if base else t("inventory.adapter_none_fits")
        return Problem(text, t("inventory.remedy_find_base"))

    def _named(self, adapter: Model) -> list[Model]:
        """The bases that the adapter's words mean."""
        return self.meant(adapter.base_model, _FORMATS[adapter.kind]) if adapter.base_model else []

    def meant(self, said: str, wanted: Kind) -> list[Model]:
        """The bases that some words mean; the closest reading that finds any of the wanted kind."""
        place = _place(said)
        here = [model for model in self._models if place and _is_at(model.path, place)]
        for key in () if here else _keys_for(said):
            if found := [model for model in self._by_key.get(key, ()) if model.kind is wanted]:
                return found
        return here


_FORMATS = {Kind.LORA: Kind.BASE, Kind.GGUF_LORA: Kind.GGUF}


def _wants_copy(adapter: Model, repo: str) -> bool:
    """Is a GGUF wanted, and does this repository not sound as if it had any?"""
    return adapter.kind is Kind.GGUF_LORA and "gguf" not in repo.lower()


def _plain(said: str) -> str:
    """What an adapter says of its base, as a repository's name where it is one."""
    said = _URL.sub("", said.strip()).rstrip("/")
    return _QUANTISED.sub("", said)


def _keys_for(said: str) -> Iterator[str]:
    """Under which keys to look for what an adapter says, the closest first."""
    for name in dict.fromkeys((_URL.sub("", said.strip()).rstrip("/"), _plain(said))):
        yield name.lower()
        yield _last(name).lower()
        yield _folded(_last(name))


def _keys_of(model: Model) -> Iterator[str]:
    for name in (model.name, model.disk_name):
        name = name.partition("@")[0]
        yield name.lower()
        yield _last(name).lower()
        yield _folded(_last(name))
        if model.kind is Kind.GGUF:
            for part in name.split("/"):
                while (shorter := _GGUF_ENDING.sub("", part)) != part:
                    part = shorter
                yield _folded(part)
    if model.title:
        yield _folded(model.title)


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _folded(name: str) -> str:
    """A name without its spelling: ``Qwen3 4B`` and ``qwen3-4b`` are the same."""
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-")


def _place(said: str) -> os.stat_result | None:
    """The file or folder that an adapter names by its path, from the root or from a home."""
    try:
        return Path(said).expanduser().stat() if said.startswith(("/", "~")) else None
    except (OSError, ValueError, RuntimeError):
        return None


def _is_at(path: Path, place: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), place)
    except OSError:
        return False


# Shapes


@dataclass(frozen=True, slots=True)
class _Change:
    """What an adapter changes of one module's weight; None stands for unknown."""

    module: str
    inputs: int | None = None
    outputs: int | None = None

    def fits(self, weight: Shape) -> bool:
        """Does it fit a weight of (inputs, outputs)? Zero stands for unknown there."""
        pairs = ((self.inputs, weight[0]), (self.outputs, weight[1]))
        return all(own is None or not theirs or own == theirs for own, theirs in pairs)

    def complaint(self, known: Sequence[Shape], names: dict[str, str]) -> str:
        """The sentence for one that does not."""
        inputs, outputs = known[0]
        if _is_vocabulary(self.module):
            ours, theirs = (inputs, self.inputs) if _is_embedding(self.module) else (outputs, self.outputs)
            if theirs is not None and ours and ours != theirs:
                return t("inventory.adapter_vocabulary", theirs=theirs, ours=ours, **names)
        shapes = {
            "theirs": f"{self.inputs or '?'} → {self.outputs or '?'}",
            "ours": f"{inputs or '?'} → {outputs or '?'}",
        }
        return t("inventory.adapter_shape", tensor=self.module, **shapes, **names)


_EMBEDDINGS = ("embed_tokens", "token_embd")
_HEADS = ("lm_head", "output")


def _is_embedding(module: str) -> bool:
    return _last_part(module) in _EMBEDDINGS


def _is_vocabulary(module: str) -> bool:
    return _last_part(module) in _EMBEDDINGS + _HEADS


def _last_part(module: str) -> str:
    return module.rpartition(".")[2]


_PEFT = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+?)\."
    r"(?:(?P<part>lora_(?:embedding_)?[AB])(?:\.default)?(?:\.weight)?"
    r"|(?:modules_to_save\.default\.)?weight)"
)
_GGUF = re.compile(r"(?P<module>.+)\.weight\.(?P<part>lora_[ab])")


def _changes(tensors: Tensors, *, gguf: bool) -> Iterator[_Change]:
    """What an adapter's tensors change, as (inputs, outputs)."""
    changes: dict[str, _Change] = {}
    for name, shapes in tensors.shapes.items():
        found = (_GGUF if gguf else _PEFT).fullmatch(name)
        if found is None or len(shapes) != 1 or len(shapes[0]) != 2:
            continue  # where layers differ, one cannot say which is which
        module, part, shape = found["module"], found["part"], shapes[0]
        change = changes.get(module, _Change(module))
        if part is None:  # the weight itself: of an embedding (inputs, outputs), else the other way round
            inputs, outputs = shape if _is_embedding(module) else shape[::-1]
            change = _Change(module, inputs, outputs)
        elif part == "lora_a":
            change = replace(change, inputs=shape[1] if _is_embedding(module) else shape[0])
        elif part == "lora_b":
            change = replace(change, outputs=shape[1])
        elif part.endswith("A"):  # (rank, inputs)
            change = replace(change, inputs=shape[1])
        else:  # (outputs, rank)
            change = replace(change, outputs=shape[0])
        changes[module] = change
    return iter(changes.values())


def _weights(tensors: Tensors, *, gguf: bool) -> dict[str, tuple[Shape, ...]]:
    """A base's weights as (inputs, outputs), by their modules."""
    weights: dict[str, tuple[Shape, ...]] = {}
    for name, shapes in tensors.shapes.items():
        module, dot, kind = name.rpartition(".")
        if dot and kind == "weight" and all(len(shape) == 2 for shape in shapes):
            stored_forwards = gguf != _is_embedding(module)
            weights[module] = tuple(shape if stored_forwards else shape[::-1] for shape in shapes)
    if not gguf and "lm_head" not in weights and (embedding := weights.get("model.embed_tokens")):
        weights["lm_head"] = tuple(shape[::-1] for shape in embedding)  # the two are one
    return weights


def _by_configuration(base: Model, module: str) -> tuple[Shape, ...]:
    """What the base's configuration says of a module's (inputs, outputs), 0 where it says nothing."""
    if base.kind is not Kind.BASE or base.shape is None or "vision" in module or "visual" in module:
        return ()
    width, inner, vocabulary = base.shape.embedding, base.shape.feed_forward, base.shape.vocabulary
    if "expert" in module:
        inner = 0
    known = {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj"), (width, 0)),
        **dict.fromkeys(("gate_proj", "up_proj"), (width, inner)),
        "o_proj": (0, width),
        "down_proj": (inner, width),
        "embed_tokens": (vocabulary, width),
        "lm_head": (width, vocabulary),
    }
    found = known.get(_last_part(module))
    return (found,) if found else ()
