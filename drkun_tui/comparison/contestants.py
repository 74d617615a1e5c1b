"""Who takes part in a comparison: a model, a model with an adapter, a checkpoint, or a server's model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drkun_tui import remote
from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library import adapters, inventory
from drkun_tui.library.model import Model
from drkun_tui.library.plan import Plan, folders, loadable, plan_load
from drkun_tui.library.provenance import Prompt, Provenance
from drkun_tui.settings import Settings
from drkun_tui.training import checkpoints
from drkun_tui.training import recipe as recipes
from drkun_tui.training.runs import CHECKPOINTS, RECIPE

PLUS = "+"
"""Between a base and its adapter."""

REMOTE = "remote"

MOST = 6
"""Contestants at once: more columns nobody can read."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One that answers.

    Attributes:
        spec: what it was called by whoever chose it; see `enter`.
        plan: how it is loaded.
    """

    spec: str
    plan: Plan

    @property
    def name(self) -> str:
        """What it is called on a screen and in the votes."""
        return self.plan.name


def enter(
    spec: str, settings: Settings, scale: float | None = None, machine: Hardware | None = None
) -> Contestant:
    """The contestant that a text names.

    Args:
        spec: a model's name or path; ``BASE+ADAPTER``; an adapter's name or path alone where its base is
            here; ``remote`` or ``remote:MODEL`` for the configured server. Names with a plus of their own
            are looked for first.
        settings: profile, context and threads are taken from them.
        scale: what every adapter's change is multiplied with; None for what the settings have for theirs,
            and 1 for any other.
        machine: where; by default this machine as it is now.

    Raises:
        DrkunError: there is no such model, or it cannot be loaded here.
    """
    place, _, model = spec.partition(":")
    if place == REMOTE:
        there = {"profile": REMOTE, "remote_model": model or settings.remote_model}
        return Contestant(spec, plan_load(msgspec.structs.replace(settings, **there)))
    if settings.profile == REMOTE:
        # Chosen for the consultation; what lies here is loaded here.
        settings = msgspec.structs.replace(settings, profile="auto")
    try:
        return Contestant(spec, _as_trained(_plan(spec, None, settings, scale, machine)))
    except DrkunError as error:
        if error.kind != "model_not_found":
            raise
        missing = error
    # Either name may have a plus of its own.
    parts = spec.split(PLUS)
    for at in range(1, len(parts)):
        base, adapter = PLUS.join(parts[:at]).strip(), PLUS.join(parts[at:]).strip()
        try:
            if base and adapter:
                return Contestant(spec, _as_trained(_plan(base, adapter, settings, scale, machine)))
        except DrkunError as error:
            if error.kind != "model_not_found":
                raise
            missing = error
    raise missing


def enter_all(
    specs: Sequence[str], settings: Settings, scale: float | None = None, machine: Hardware | None = None
) -> list[Contestant]:
    """All contestants, in the order given, as `enter` takes them.

    Raises:
        DrkunError: as `enter`; ``too_few`` or ``too_many``, or one takes part twice (``twice``).
    """
    if not 2 <= len(specs) <= MOST:
        kind = "too_few" if len(specs) < 2 else "too_many"
        raise DrkunError(
            kind, t(f"compare.{kind}", most=MOST), t("compare.number_hint", most=MOST), EXIT_BAD_INPUT
        )
    entered = [enter(spec, settings, scale, machine) for spec in specs]
    names = [contestant.name for contestant in entered]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DrkunError("twice", t("compare.twice", name=twice), t("compare.twice_hint"), EXIT_BAD_INPUT)
    return entered


def _plan(
    model: str, adapter: str | None, settings: Settings, scale: float | None, machine: Hardware | None
) -> Plan:
    if scale is None:
        # A scale belongs to the adapter that it was chosen for.
        scale = settings.adapter_scale if adapter == settings.adapter else 1.0
    chosen = msgspec.structs.replace(settings, model=model, adapter=adapter, adapter_scale=scale)
    try:
        return plan_load(chosen, machine=machine)
    except DrkunError as error:
        if adapter is not None or error.kind != "model_unusable" or not (base := _base_of(model, settings)):
            raise
    return plan_load(msgspec.structs.replace(chosen, model=base, adapter=model), machine=machine)


def available(settings: Settings, runs: Path) -> dict[str, str]:
    """Everyone that can be entered: what `enter` takes, and what people call it. Models, adapters with their
    bases, the newest checkpoint of each run, the server. Scans the folders: not for the thread that draws.

    Args:
        runs: where the training runs are.
    """
    models = inventory.scan(folders(settings))
    found = {model.name: model.name for model in models if loadable(model)}
    for model, base in zip(models, adapters.bases(models), strict=True):
        if base is not None and _goes_with(model, base):
            found[f"{base.name}{PLUS}{model.name}"] = f"{base.name} + {model.name}"
    found |= _checkpoints(models, runs)
    try:
        server = remote.server(settings)
    except DrkunError:
        server = None
    return found | ({REMOTE: server.name} if server else {})


def usual(settings: Settings, possible: Iterable[str]) -> list[str]:
    """Who is compared where nobody has been chosen: those of last time, else the adapter in use with its
    base, else the model in use."""
    known = set(possible)
    chosen = [settings.model, *([f"{settings.model}{PLUS}{settings.adapter}"] if settings.adapter else ())]
    return [spec for spec in settings.contestants or chosen if spec in known]


def _checkpoints(models: list[Model], runs: Path) -> dict[str, str]:
    found = {}
    for folder in sorted(runs.glob("*/" + CHECKPOINTS), reverse=True):
        newest = checkpoints.newest(folder)
        recipe = _recipe_of(newest.path) if newest else None
        if newest is None or recipe is None:
            continue
        try:
            base = inventory.chosen(recipe.base.model, models)
            if _goes_with(inventory.at(newest.path), base):
                called = f"{base.name} + {_called(newest.path, recipe)}"
                found[f"{base.name}{PLUS}{newest.path}"] = called
        except DrkunError:
            # Neither can be entered by whoever names it.
            continue
    return found


def _goes_with(adapter: Model, base: Model) -> bool:
    return adapter.complete and loadable(base) and adapters.mismatch(adapter, base) is None


def _as_trained(plan: Plan) -> Plan:
    """A checkpoint is asked as its run trains it, and called by its run."""
    adapter = plan.adapter
    if adapter is None or adapter.provenance is not None or (recipe := _recipe_of(adapter.path)) is None:
        return plan
    template = "" if recipe.data.template == "chat" else recipe.data.template
    # Whether its examples have reasoning is known in the end only; until then the reader's wish holds.
    prompt = Prompt(template=template, system=recipe.data.system, thinking_tags=("<think>", "</think>"))
    return dataclasses.replace(
        plan,
        adapter=dataclasses.replace(
            adapter, name=_called(adapter.path, recipe), provenance=Provenance(prompt=prompt)
        ),
        load=msgspec.structs.replace(plan.load, template=template),
    )


def _called(checkpoint: Path, recipe: recipes.Recipe) -> str:
    return f"{recipe.adapter.name}@{checkpoint.name.rpartition('-')[2]}"


def _recipe_of(checkpoint: Path) -> recipes.Recipe | None:
    """The recipe of the run that wrote a checkpoint; None where this folder is none."""
    if checkpoint.parent.name != CHECKPOINTS:
        return None
    try:
        return recipes.load(checkpoint.parent.parent / RECIPE)
    except DrkunError:
        return None


def _base_of(adapter: str, settings: Settings) -> str | None:
    """Path of the base that goes with an adapter; None where it is none, or its base is not here."""
    where = folders(settings)
    found = inventory.find(adapter, where)
    if not found.is_adapter:
        return None
    base = adapters.base_for(found, inventory.scan(where))
    return str(base.path) if base else None
