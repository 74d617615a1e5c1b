"""Who takes part in a comparison: a model, a model with an adapter, a checkpoint, or a server's model."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import adapters, inventory
from drkun_tui.library.plan import Plan, folders, plan_load
from drkun_tui.settings import Settings

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


def enter(spec: str, settings: Settings) -> Contestant:
    """The contestant that a text names.

    Args:
        spec: a model's name or path; ``BASE+ADAPTER``; an adapter's name or path alone where its base is
            here; ``remote`` or ``remote:MODEL`` for the configured server. Names with a plus of their own
            are looked for first.
        settings: profile, context, threads and the adapter's scale are taken from them.

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
        return Contestant(spec, _plan(spec, None, settings))
    except DrkunError as error:
        base, plus, adapter = spec.rpartition(PLUS)
        if error.kind != "model_not_found" or not (base.strip() and plus and adapter.strip()):
            raise
    return Contestant(spec, _plan(base.strip(), adapter.strip(), settings))


def enter_all(specs: list[str], settings: Settings) -> list[Contestant]:
    """All contestants, in the order given.

    Raises:
        DrkunError: as `enter`; ``too_few`` or ``too_many``, or one takes part twice (``twice``).
    """
    if not 2 <= len(specs) <= MOST:
        kind = "too_few" if len(specs) < 2 else "too_many"
        raise DrkunError(
            kind, t(f"compare.{kind}", most=MOST), t("compare.number_hint", most=MOST), EXIT_BAD_INPUT
        )
    entered = [enter(spec, settings) for spec in specs]
    names = [contestant.name for contestant in entered]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DrkunError("twice", t("compare.twice", name=twice), t("compare.twice_hint"), EXIT_BAD_INPUT)
    return entered


def _plan(model: str, adapter: str | None, settings: Settings) -> Plan:
    chosen = msgspec.structs.replace(settings, model=model, adapter=adapter)
    try:
        return plan_load(chosen)
    except DrkunError as error:
        if adapter is not None or error.kind != "model_unusable" or not (base := _base_of(model, settings)):
            raise
    return plan_load(msgspec.structs.replace(chosen, model=base, adapter=model))


def _base_of(adapter: str, settings: Settings) -> str | None:
    """Path of the base that goes with an adapter; None where it is none, or its base is not here."""
    where = folders(settings)
    found = inventory.find(adapter, where)
    if not found.is_adapter:
        return None
    base = adapters.base_for(found, inventory.scan(where))
    return str(base.path) if base else None
