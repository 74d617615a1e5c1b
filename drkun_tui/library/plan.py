"""From what the user wishes to what an engine is told: which file, how much context, how many threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from drkun_tui import hardware, paths, profiles, remote
from drkun_tui.engine.protocol import Load, Ready
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_NO_MODEL, DrkunError
from drkun_tui.hardware import Hardware
from drkun_tui.i18n import t
from drkun_tui.library import adapters, fit, inventory, stores
from drkun_tui.library.held import Held, held_by
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.printable import printable
from drkun_tui.library.provenance import Prompt
from drkun_tui.profiles import Profile
from drkun_tui.remote import Server
from drkun_tui.settings import Settings

STARTER = "starter"

_WISHES = ("model", "profile", "context_length", "threads", "kv_cache", "flash_attention")
"""Settings that decide how a model is loaded, beside its adapter."""


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
    server: Server | None = None
    """Who answers in this machine's place."""
    wished: Settings | None = None
    """For what it was made; None for a server."""

    @property
    def name(self) -> str:
        """The model's name, with its adapter's."""
        return self.model.name + (f" + {self.adapter.name}" if self.adapter else "")

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

    def held(self, ready: Ready, pid: int | None) -> Held:
        """What the model holds that was loaded by this plan.

        Args:
            pid: of its engine process.
        """
        shape = _shape(self.model, self.load.kv_cache)
        added = self.adapter.size_bytes if self.adapter else 0
        need = fit.need(shape, self.profile, self.load.context_length, added)
        return held_by(self.load, ready, need, pid)


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


def plan_load(
    settings: Settings,
    *,
    fall_back: bool = False,
    machine: Hardware | None = None,
    loaded: Plan | None = None,
) -> Plan:
    """Decide how to load what `settings` name.

    Args:
        settings: the user's, with the command line's laid over them.
        fall_back: use the bundled model, and say so, when the chosen one cannot be used.
        machine: where; by default this machine as it is now. Where a loaded model leaves for this one, with
            what it gives back (`drkun_tui.library.held.freed`).
        loaded: by which that model was loaded. Where only the adapter is another one, and finds room, the
            model stays as it is.

    Raises:
        DrkunError: there is no such model or adapter, or it cannot be loaded here.
    """
    try:
        return _plan(settings, machine, loaded)
    except DrkunError as error:
        simplest = msgspec.structs.replace(settings, model=STARTER, adapter=None, profile="auto")
        if not fall_back or simplest == settings:
            raise
        plan = _plan(simplest, machine, None)
        return replace(plan, notice=t("plan.fell_back", reason=error.message))


def _plan(settings: Settings, machine: Hardware | None, loaded: Plan | None) -> Plan:
    wanted = Profile(settings.profile)
    if wanted is Profile.REMOTE:
        return _remote(settings)
    machine = machine or hardware.read()
    profiles.ensure_available(wanted, machine)  # one that does not work here needs no look at the models
    model = inventory.find(settings.model, folders(settings))
    inventory.ensure_loadable(model)
    adapter = _adapter(settings, model)
    if loaded is not None and (kept := _kept(loaded, settings, model, adapter, machine)) is not None:
        return kept
    gguf = model.kind is Kind.GGUF
    shape = _shape(model, settings.kv_cache)
    added = adapter.size_bytes if adapter else 0
    length = settings.context_length or None

    def fitting(profile: Profile) -> int:
        whole = fit.fit(shape, profile, machine, length, added)
        if whole.fits:
            return whole.context
        some = gguf and _layers(shape, profile, machine, fit.SMALLEST_CONTEXT, added)
        return fit.SMALLEST_CONTEXT if some else 0

    prompt = _trained_prompt(model, adapter)
    choice = profiles.choose(wanted, machine, fitting, gguf=gguf)
    room = profiles.budget(choice.profile, machine) - added
    context = fit.context_for(shape, room, length, choice.profile)
    memory = fit.fit(shape, choice.profile, machine, context.tokens, added)
    layers = 0
    if gguf and choice.profile in profiles.CLASS_BYTES:
        layers = shape.layers + 1
        if not memory.fits:
            # A long consultation with fewer layers on the GPU is worth more than a short one with more.
            context = fit.context_for(shape, machine.ram_available, length)
            layers = _layers(shape, choice.profile, machine, context.tokens, added)
            if not layers:
                context = fit.context_for(shape, 0, length)
                layers = _layers(shape, choice.profile, machine, context.tokens, added)
    if choice.profile in profiles.CLASS_BYTES and not memory.fits and not layers:
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
            gpu_layers=layers,
            gpu=_card(choice.profile, machine, alone=memory.fits),
            kv_cache=settings.kv_cache if gguf else "f16",
            flash_attention=settings.flash_attention if gguf else "auto",
            template=prompt.template if prompt else "",
        ),
        reason=f"{choice.reason} {context.reason}".strip(),
        notice="" if memory.fits or layers else memory.reason,
        wished=settings,
    )


def _kept(
    loaded: Plan, settings: Settings, model: Model, adapter: Model | None, machine: Hardware
) -> Plan | None:
    """The plan of the loaded model with another adapter; None where something else is wished for too, or the
    adapter finds no room beside it."""
    path = str(adapter.path) if adapter else None
    scale = settings.adapter_scale if adapter else 1.0
    load = loaded.load
    before = loaded.wished
    if before is None or model != loaded.model or (path, scale) == (load.adapter, load.adapter_scale):
        return None
    if any(getattr(settings, name) != getattr(before, name) for name in _WISHES):
        return None
    added = adapter.size_bytes if adapter else 0
    shape, profile, context = _shape(model, load.kv_cache), loaded.profile, load.context_length
    if profile in profiles.CLASS_BYTES:
        need = fit.need(shape, profile, context, added).total
        whole = need <= profiles.budget(profile, machine)
        if not whole and not 0 < load.gpu_layers <= _layers(shape, profile, machine, context, added):
            return None
    prompt = _trained_prompt(model, adapter)
    template = prompt.template if prompt else ""
    load = msgspec.structs.replace(load, adapter=path, adapter_scale=scale, template=template)
    return replace(loaded, adapter=adapter, load=load, wished=settings)


def _shape(model: Model, cache: str) -> fit.Shape:
    """What the model's memory depends on, a GGUF's with its cache kept so."""
    shape = model.shape or fit.Shape(weight_bytes=model.size_bytes)
    return fit.with_cache(shape, cache) if model.kind is Kind.GGUF else shape


def _layers(shape: fit.Shape, profile: Profile, machine: Hardware, context: int, adapter_bytes: int) -> int:
    """How many layers of a GGUF that does not fit as a whole go to the GPU."""
    if profile not in profiles.CLASS_BYTES:
        return 0
    free = profiles.budget(profile, machine) - adapter_bytes
    return fit.gpu_layers(shape, free, machine.ram_available, context)


def _remote(settings: Settings) -> Plan:
    """How a server's model is asked."""
    server = remote.server(settings)
    if server is None:
        reason = t("hardware.profile_remote_none")
        raise DrkunError("profile_unavailable", reason, t("remote.none_hint"), EXIT_BAD_INPUT)
    load = Load(
        path=server.url, context_length=0, threads=0, engine="openai", device="elsewhere", model=server.model
    )
    name = printable(server.name)
    model = Model(name=name, disk_name=name, kind=Kind.REMOTE, path=Path())
    return Plan(model, None, Profile.REMOTE, load, server.notice, server.notice, server)


def _trained_prompt(model: Model, adapter: Model | None) -> Prompt | None:
    trained = (adapter or model).provenance
    return trained.prompt if trained else None


def _engine(model: Model, profile: Profile) -> Load:
    """Which engine loads it, onto which device, in which precision."""
    device: Literal["cpu", "cuda"] = "cuda" if profile in profiles.CLASS_BYTES else "cpu"
    load = Load(path=str(model.path), context_length=0, threads=0, device=device)
    if model.kind is Kind.GGUF:
        return load
    in_four_bits = profile is Profile.GPU8
    return msgspec.structs.replace(
        load,
        engine="transformers",
        weights="nf4" if in_four_bits else "half",
        memory_limit=profiles.CLASS_BYTES[Profile.GPU8] if in_four_bits else 0,
    )


def _card(profile: Profile, machine: Hardware, *, alone: bool) -> str:
    """The card that a model goes to, the one whose room was looked at: libraries would take the first, or
    spread it over several, which is slower. One that no card holds `alone` may have all of them."""
    card = machine.nvidia if profile in profiles.CLASS_BYTES and alone else None
    return card.uuid if card else ""


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
