"""A recipe: everything that decides what a fine-tune makes, as one small TOML file.

A preset is a recipe that comes with the program. A file names one and writes what it wants otherwise, or
writes everything itself.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tomli_w

from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import has, t

PRESETS = Path(__file__).parent / "presets"

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder block, as Llama and Qwen name them."""

Count = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Precision = Literal["auto", "nf4", "bf16", "fp16", "fp32"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
Optimizer = Literal["adamw_8bit", "paged_adamw_8bit", "adamw"]
Template = Literal["chat", "sikao"]
Report = Literal["tensorboard", "wandb", "trackio"]
Sharding = Literal["auto", "none", "full"]


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is trained on."""

    model: str = ""
    """A name in the library, or a path."""
    precision: Precision = "auto"
    """Of the frozen weights; ``auto`` is nf4 on an NVIDIA GPU, bf16 on several that share the base out, and
    elsewhere 32 bits."""


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The dialogues, and how they become examples."""

    path: str = ""
    """A file or a folder; ``demo`` is what comes with the program."""
    hub: str = ""
    """Or the name of a data set on Hugging Face's hub."""
    config: str = ""
    """Which of the hub data set's configurations."""
    split: str = "train"
    columns: dict[str, str] = {}
    """Which column is ``question``, ``answer``, ``reasoning``, ``system``, ``department`` or ``title``,
    where the program cannot tell."""
    template: Template = "chat"
    """``chat`` is the model's own; ``sikao`` the text with ``<思考>`` of the first Dr. Kun adapters."""
    system: str = ""
    """The system text of every example that brings none."""
    held_out: Share = 0.02
    """Share of the questions that are not trained on."""
    held_out_most: NotNegative = 200
    """At most so many of them."""
    rows: NotNegative = 0
    """Use only so many, drawn from everywhere by the seed; 0 is all."""
    shortest_answer: NotNegative = 4
    """Characters."""
    longest_answer: NotNegative = 0
    """Characters; 0 leaves it to the context length."""
    near_duplicates: bool = True
    """Leave out questions that say the same in almost the same words."""


class Adapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The LoRA (Hu and others 2021, arXiv:2106.09685)."""

    name: str = ""
    """Its folder in the model store; "" is made from the base's name and the preset's."""
    rank: Count = 16
    alpha: Count = 16
    """The update is scaled by alpha / rank."""
    dropout: Share = 0.0
    targets: tuple[str, ...] = PROJECTIONS


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How it learns."""

    max_steps: NotNegative = 0
    """Optimizer steps. Either this or `epochs`."""
    epochs: Amount = 0.0
    batch_size: Count = 2
    """Sequences at once; with `packing` each is filled with several examples."""
    gradient_accumulation: Count = 4
    """Batches in one optimizer step."""
    devices: NotNegative = 1
    """GPUs, each with its own batches of every optimizer step; 0 is all there are."""
    sharding: Sharding = "auto"
    """``full``: each GPU holds its part of the base (FSDP), ``none``: each holds all of it. ``auto`` is full
    where one GPU cannot hold the base and all of them together can."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)] = 2e-4
    warmup_steps: NotNegative = 5
    scheduler: Scheduler = "linear"
    optimizer: Optimizer = "adamw_8bit"
    weight_decay: Amount = 0.01
    max_grad_norm: Amount = 1.0
    context_length: Annotated[int, msgspec.Meta(ge=64)] = 2048
    """Tokens of a sequence; longer examples are cut."""
    packing: bool = True
    """Fill each sequence with whole examples that do not see each other."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass instead of keeping them."""
    seed: NotNegative = 3407
    backend: Literal["auto", "unsloth", "peft"] = "auto"
    save_every: NotNegative = 50
    """Steps between two checkpoints; 0 saves at the end only."""
    keep_checkpoints: Count = 2
    evaluate_every: NotNegative = 25
    """Steps between two looks at the held-out loss; 0 never looks."""
    sample_every: NotNegative = 25
    """Steps between two sample answers; 0 makes none."""
    report_to: tuple[Report, ...] = ()


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """See the module."""

    preset: str = ""
    """Where the values came from that the file does not write."""
    note: str = ""
    """What it is for, one sentence."""
    base: Base = Base()
    data: Data = Data()
    adapter: Adapter = Adapter()
    training: Training = Training()


def presets() -> dict[str, Recipe]:
    """The recipes that come with the program, by name."""
    found = {path.stem: load(path) for path in sorted(PRESETS.glob("*.toml"))}
    return {name: msgspec.structs.replace(recipe, preset=name) for name, recipe in found.items()}


def note(recipe: Recipe) -> str:
    """What a recipe is for: its own words, else those of its preset, in the reader's language."""
    key = f"recipe.note_{recipe.preset}"
    return recipe.note or (t(key) if has(key) else "")


def load(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        DrkunError: ``no_recipe`` or ``bad_recipe``, with the line and what is allowed there.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DrkunError(
            "no_recipe", t("recipe.unreadable", path=str(path), reason=reason), "", EXIT_BAD_INPUT
        ) from error
    return parse(text, str(path))


def parse(text: str, source: str = "") -> Recipe:
    """Read a recipe from its text.

    Args:
        text: TOML.
        source: what to call it in an error.

    Raises:
        DrkunError: ``bad_recipe``.
    """
    try:
        written = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        reason = t("recipe.no_toml", reason=str(error).partition(" (at ")[0])
        raise _bad(source, int(place[1]) if place else text.count("\n") + 1, reason) from error
    preset = written.get("preset", "")
    merged = written
    if preset and not (source and Path(source).parent == PRESETS):
        path = PRESETS / f"{preset}.toml"
        if not isinstance(preset, str) or not path.is_file():
            known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
            raise _bad(
                source, _line_of(text, ("preset",)), t("recipe.no_preset", name=str(preset), known=known)
            )
        merged = _laid_over(tomllib.loads(path.read_text("utf8")), written)
    try:
        recipe = msgspec.convert(merged, Recipe, strict=True)
    except msgspec.ValidationError as error:
        raise _invalid(source, text, error) from error
    _check(recipe, source, text)
    return recipe


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if not isinstance(old, dict) or not isinstance(value, dict):
            merged[name] = value
            continue
        merged[name] = {**old, **value}
        # Who writes one of two that exclude each other wants it instead of the preset's other one.
        for one, others in _INSTEAD.get(name, {}).items():
            if one in value:
                for other in others - value.keys():
                    merged[name].pop(other, None)
    return merged


_INSTEAD = {
    "training": {"max_steps": {"epochs"}, "epochs": {"max_steps"}},
    "data": {"path": {"hub", "config", "split"}, "hub": {"path", "config", "split"}},
}
"""By section and field, the fields that do not go with it."""


def _check(recipe: Recipe, source: str, text: str) -> None:
    """What no single field can tell."""
    training, data = recipe.training, recipe.data
    if training.max_steps and training.epochs:
        raise _bad(source, _line_of(text, ("training", "epochs")), t("recipe.steps_and_epochs"))
    if not training.max_steps and not training.epochs:
        raise _bad(source, _line_of(text, ("training",)), t("recipe.neither_steps_nor_epochs"))
    if data.path and data.hub:
        raise _bad(source, _line_of(text, ("data", "hub")), t("recipe.path_and_hub"))
    if not recipe.adapter.targets:
        raise _bad(source, _line_of(text, ("adapter", "targets")), t("recipe.no_targets"))


def dump(recipe: Recipe) -> str:
    """The recipe with every value written, as TOML that `parse` reads back."""
    values = {
        "preset": recipe.preset,
        "note": recipe.note,
        **{
            name: {
                field: list(value) if isinstance(value, tuple) else value
                for field in part.__struct_fields__
                for value in (getattr(part, field),)
            }
            for name in ("base", "data", "adapter", "training")
            for part in (getattr(recipe, name),)
        },
    }
    return tomli_w.dumps({name: value for name, value in values.items() if value != ""})


# Errors, with their line


def _invalid(source: str, text: str, error: msgspec.ValidationError) -> BadRecipeError:
    """From msgspec's ``… - at `$.training.batch_size` `` to a line of the file and what is allowed there."""
    reason, _, place = str(error).partition(" - at `$.")
    keys = tuple(place.rstrip("`").split(".")) if place else ()
    unknown = re.search(r"unknown field `(.*)`", reason)
    if unknown:
        section = re.search(r"at `\$\.?(.*)`", str(error))
        keys = (*(section[1].split(".") if section and section[1] else ()), unknown[1])
        struct: Any = Recipe if len(keys) == 1 else _PARTS.get(keys[0])
        known = ", ".join(struct.__struct_fields__) if struct is not None else ""
        return _bad(source, _line_of(text, keys), t("recipe.unknown", name=".".join(keys), known=known))
    name = ".".join(keys) or "?"
    allowed = _allowed(keys)
    return _bad(source, _line_of(text, keys), t("recipe.value", name=name, allowed=allowed or reason))


_PARTS: dict[str, type[msgspec.Struct]] = {
    "base": Base,
    "data": Data,
    "adapter": Adapter,
    "training": Training,
}


def _allowed(keys: tuple[str, ...]) -> str:
    """What a field takes, in words; "" where its type alone does not say."""
    part = _PARTS.get(keys[0]) if keys else None
    if part is None:
        return ""
    if len(keys) == 1:
        return t("recipe.section", name=keys[0])
    field, _, inside = keys[1].partition("[")
    for info in msgspec.structs.fields(part):
        if info.name != field:
            continue
        schema = msgspec.json.schema(info.type)
        if inside:
            schema = schema.get("items") or schema.get("additionalProperties") or schema
        if choices := schema.get("enum"):
            return t("recipe.one_of", choices=", ".join(map(str, choices)))
        kind = schema.get("type", "")
        least, most = schema.get("minimum"), schema.get("exclusiveMaximum")
        above = schema.get("exclusiveMinimum")
        if kind in ("integer", "number"):
            parts = [t(f"recipe.{kind}")]
            parts += [f"≥ {least}"] if least is not None else []
            parts += [f"> {above}"] if above is not None else []
            parts += [f"< {most}"] if most is not None else []
            return " ".join(parts)
        return t(f"recipe.{kind}") if has(f"recipe.{kind}") else ""
    return ""


def _line_of(text: str, keys: tuple[str, ...]) -> int:
    """The line on which a key stands, from 1; 0 where it stands nowhere."""
    section, wanted = (keys[0], keys[1].partition("[")[0]) if len(keys) > 1 else ("", keys[0] if keys else "")
    current, section_line = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            current = header[1]
            if current == (section or wanted):
                section_line = number
        elif current == section and re.match(rf"""\s*["']?{re.escape(wanted)}["']?\s*=""", line):
            return number
    return section_line


class BadRecipeError(DrkunError):
    """A recipe that is none.

    Args:
        where: file and line, in words.
        line: from 1; 0 where the fault stands on none.
        reason: what is wrong, without where.
    """

    def __init__(self, where: str, line: int, reason: str) -> None:
        super().__init__("bad_recipe", t("recipe.bad", where=where, reason=reason), "", EXIT_BAD_INPUT)
        self.line, self.reason = line, reason


def _bad(source: str, line: int, reason: str) -> BadRecipeError:
    where = source or t("recipe.recipe")
    if line:
        where = t("recipe.line", source=where, line=line)
    return BadRecipeError(where, line, reason)
