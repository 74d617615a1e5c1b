"""From what the user wishes to what an engine is told: which file, how much context, how many threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from drkun_tui import hardware, paths, profiles
from drkun_tui.engine.protocol import Load
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import adapters, fit, inventory, stores
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.provenance import Prompt
from drkun_tui.profiles import Profile
from drkun_tui.settings import Settings

STARTER = "starter"


@dataclass(frozen=True, slots=True)
class Plan:
    """How one model is going to be loaded.

    Attributes:
        reason: one sentence on why this profile, engine and context length.
        notice: what the user should know before it is loaded, or "".
    """

    model: Model
    adapter: Model | None
    profile: Profile
    load: Load
    reason: str
    notice: str = ""

    @property
    def prompt(self) -> Prompt | None:
        """How the adapter, or the model that it was merged into, was trained to be asked; None where nothing
        says so."""
        return _trained_prompt(self.model, self.adapter)

    def thinks(self, wanted: bool) -> bool:
        """Is the model to think? One whose adapter never saw reasoning is asked as it was trained."""
        return wanted and (self.prompt is None or self.prompt.thinking_tags is not None)

    def system(self, wanted: str) -> str:
        """The system text: the user's, else the one that the adapter was trained with."""
        return wanted if wanted.strip() or self.prompt is None else self.prompt.system


def folders(settings: Settings) -> list[Path]:
    """Every folder that is searched for models: ours, the user's own, then other programs'."""
    own = paths.model_folders()
    others = [store.path for store in stores.known() if store.path not in own]
    return [*own, *(Path(name).expanduser() for name in settings.model_folders), *others]


def loadable(model: Model) -> bool:
    """Can an engine of this program load it as it is?"""
    if model.problems or model.is_adapter:
        return False
    return model.kind is Kind.GGUF or not profiles.missing_packages(Profile.CPU)


def plan_load(settings: Settings, *, fall_back: bool = False) -> Plan:
    """Decide how to load what `settings` name.

    Args:
        settings: the user's, with the command line's laid over them.
        fall_back: use the bundled model, and say so, when the chosen one cannot be used.

    Raises:
        DrkunError: there is no such model or adapter, or it cannot be loaded here.
    """
    try:
        return _plan(settings)
    except DrkunError as error:
        simplest = msgspec.structs.replace(settings, model=STARTER, adapter=None, profile="auto")
        if not fall_back or simplest == settings:
            raise
        plan = _plan(simplest)
        notice = t("plan.fell_back", reason=error.message)
        return Plan(plan.model, None, plan.profile, plan.load, plan.reason, notice)


def _plan(settings: Settings) -> Plan:
    machine = hardware.read()
    wanted = Profile(settings.profile)
    profiles.choose(wanted, machine)  # one that does not work here needs no look at the models
    model = inventory.find(settings.model, folders(settings))
    inventory.ensure_loadable(model)
    adapter = _adapter(settings, model)
    shape = model.shape or fit.Shape(weight_bytes=model.size_bytes)
    added = adapter.size_bytes if adapter else 0
    length = settings.context_length or None

    def fits(profile: Profile) -> bool:
        return fit.fit(shape, profile, machine, length, added).fits

    prompt = _trained_prompt(model, adapter)
    choice = profiles.choose(wanted, machine, fits if model.kind is Kind.BASE else None)
    room = profiles.budget(choice.profile, machine) - added
    context = fit.context_for(shape, room, length, choice.profile)
    memory = fit.fit(shape, choice.profile, machine, context.tokens, added)
    if choice.profile in profiles.CLASS_BYTES and not memory.fits:
        # On a CPU the system makes room; a GPU has what it has.
        raise DrkunError("does_not_fit", memory.reason, t("plan.does_not_fit_hint"), EXIT_NO_MODEL)
    return Plan(
        model=model,
        adapter=adapter,
        profile=choice.profile,
        load=msgspec.structs.replace(
            _engine(model, choice.profile),
            context_length=context.tokens,
            threads=settings.threads or machine.physical_cores,
            adapter=str(adapter.path) if adapter else None,
            adapter_scale=settings.adapter_scale if adapter else 1.0,
            template=prompt.template if prompt else "",
        ),
        reason=f"{choice.reason} {context.reason}".strip(),
        notice="" if memory.fits else memory.reason,
    )


def _trained_prompt(model: Model, adapter: Model | None) -> Prompt | None:
    trained = (adapter or model).provenance
    return trained.prompt if trained else None


def _engine(model: Model, profile: Profile) -> Load:
    """Which engine loads it, onto which device, in which precision."""
    load = Load(path=str(model.path), context_length=0, threads=0)
    if model.kind is Kind.GGUF:
        return load
    in_four_bits = profile is Profile.GPU8
    return msgspec.structs.replace(
        load,
        engine="transformers",
        device="cuda" if profile in profiles.CLASS_BYTES else "cpu",
        weights="nf4" if in_four_bits else "half",
        memory_limit=profiles.CLASS_BYTES[Profile.GPU8] if in_four_bits else 0,
    )


def _adapter(settings: Settings, model: Model) -> Model | None:
    if not settings.adapter:
        return None
    adapter = inventory.find(settings.adapter, folders(settings))
    if not adapter.is_adapter or not adapter.complete:
        message = t("plan.no_adapter", name=adapter.name)
        raise DrkunError("adapter_not_usable", message, t("plan.no_adapter_hint"), EXIT_NO_MODEL)
    if reason := adapters.mismatch(adapter, model):
        raise DrkunError("adapter_mismatch", reason, t("plan.mismatch_hint"), EXIT_NO_MODEL)
    return adapter
