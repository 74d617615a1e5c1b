"""How fast a model will answer here: measured, calibrated by other models, or estimated.

An estimate comes from the model's shape and this machine's rates (`speed_model`). Every answer that is
given leaves its times in ``machine.json`` (`record`): the same model is later told by its own times, another
one by how far the estimates were off so far. What is kept are the times themselves, and the shape; how far
an estimate was off is worked out when it is asked for, so that better rates or formulas serve old answers
too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from drkun_tui import hardware, learned
from drkun_tui.engine import rates as engine_rates
from drkun_tui.engine.protocol import Finished
from drkun_tui.engine.rates import Rates
from drkun_tui.hardware import Hardware
from drkun_tui.library import speed_model
from drkun_tui.library.fit import Shape
from drkun_tui.profiles import CLASS_BYTES, Profile

if TYPE_CHECKING:
    from drkun_tui.library.plan import Plan

TYPICAL_CONTEXT = 1024
"""Tokens of context at which decoding is told, when nobody says another: some turns into a consultation."""

PROMPT_TOKENS = 512
"""Tokens of the prompt whose time to first token is told."""

KEPT = 9
"""Answers of one model whose times are kept; their median counts, so that a busy moment does not."""

LEAST_DECODED = 16
LEAST_EVALUATED = 64
"""Fewer tokens than these tell nothing of decoding or of prefill."""

MOST_MODELS = 200

_SECTION = "answers"


Label = Literal["measured", "calibrated", "estimated"]
"""By this model's own answers here, by other models' answers here, or by arithmetic alone."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model answers. A short answer tells of one of the numbers only."""

    decode_tok_s: float
    """Tokens a second."""
    ttft_s: float
    """Seconds to the first token after a prompt of `PROMPT_TOKENS`."""
    label: Label
    """Of `decode_tok_s`."""
    ttft_label: Label
    when: float | None = None
    """When the last answer was given on which it is based, seconds since the epoch."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in ``drkun models --json``."""
        names = ("decode_tok_s", "label", "ttft_s", "ttft_label")
        return {name: getattr(self, name) for name in names}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The times of one answer."""

    decode_tok_s: float
    """0 where too few tokens came."""
    context: float
    """Tokens in the context, on average while it came."""
    ttft_s: float
    """0 where too few tokens were evaluated."""
    evaluated: int
    """Tokens of the prompt that were not in the KV cache."""
    reused: int


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The last answers of one model, loaded in one way."""

    group: str
    """Answers that can be compared: of one machine, profile, engine and number of threads."""
    shape: Shape | None
    adapter: bool
    last: list[Answer]
    count: int
    """Of all that were ever given."""
    at: float
    """When the last one was given, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of this machine's speed; read once for a list of models."""

    rates: Rates | None
    threads: int
    answers: dict[str, Answers]
    off: dict[str, tuple[float | None, float | None, float | None]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Of each group that was asked for: how far estimates were off (`_off`), and when it answered last."""


def known(machine_memory: Path, machine: Hardware, threads: int = 0) -> Known:
    """What ``machine.json`` holds.

    Args:
        threads: as in the settings; 0 is one for each physical core.
    """
    threads = threads or machine.physical_cores
    answers = learned.get(machine_memory, _SECTION, dict[str, Answers], {})
    return Known(engine_rates.known(machine_memory, threads), threads, answers)


async def measure(machine_memory: Path, machine: Hardware, log: Path, threads: int = 0) -> Known:
    """As `known`, after measuring this machine where that was not done yet, or on busy cores: for some four
    seconds, in a child process that keeps all threads busy. Not while a model answers.

    Args:
        log: file for what the child writes to its standard error.
    """
    now = known(machine_memory, machine, threads)
    if now.rates is None or not now.rates.quiet:
        rates = await engine_rates.measure(machine_memory, now.threads, log)
        now = Known(rates or now.rates, now.threads, now.answers)
    return now


def estimate(
    path: Path,
    shape: Shape,
    profile: Profile,
    machine: Hardware,
    known: Known,
    context: int = TYPICAL_CONTEXT,
    *,
    adapter: bool = False,
) -> Speed | None:
    """How fast the model in `path` answers under a profile; None where nothing can be said.

    Args:
        context: tokens in the context while it decodes.
        adapter: with a LoRA attached.
    """
    if shape.is_adapter:
        return None
    group = _group(profile, speed_model.engine_of(shape), known.threads, machine)
    own = known.answers.get(_key(path, group, adapter=adapter))
    times = _times(shape, profile, machine, known.rates)
    if times is None:
        return _as_given(own) if own else None
    decode_off, prefill_off, when = _of_group(group, profile, machine, known)
    own_decode, own_prefill = _off(own.last, times) if own else (None, None)
    if own and own_decode:
        when = own.at
    return Speed(
        decode_tok_s=1 / (times.decode_s(context) * (own_decode or decode_off or 1)),
        ttft_s=times.prefill_s(PROMPT_TOKENS, 0) * (own_prefill or prefill_off or 1),
        label=_label(own_decode, decode_off),
        ttft_label=_label(own_prefill, prefill_off),
        when=when if own_decode or decode_off else None,
    )


def _label(own: float | None, others: float | None) -> Label:
    return "measured" if own else "calibrated" if others else "estimated"


def record(machine_memory: Path, plan: Plan, finished: Finished) -> None:
    """Learn from an answer that has ended. Some milliseconds, and never a failure. What answers elsewhere
    says nothing of this machine."""
    if plan.load.device == "elsewhere":
        return
    usage, timings = finished.usage, finished.timings
    decoded = usage.thinking_tokens + usage.answer_tokens
    evaluated = usage.prompt_tokens - usage.reused_tokens
    answer = Answer(
        decode_tok_s=timings.decode_tok_s if decoded >= LEAST_DECODED else 0.0,
        context=usage.prompt_tokens + decoded / 2,
        ttft_s=timings.ttft_s if decoded and evaluated >= LEAST_EVALUATED else 0.0,
        evaluated=evaluated,
        reused=usage.reused_tokens,
    )
    if not answer.decode_tok_s and not answer.ttft_s:
        return
    adapter = plan.load.adapter is not None
    group = _group(plan.profile, plan.load.engine, plan.load.threads, hardware.read())
    key = _key(plan.model.path, group, adapter=adapter)
    every = learned.get(machine_memory, _SECTION, dict[str, Answers], {})
    before = every.pop(key, None)
    same = before is not None and before.shape == plan.model.shape
    every[key] = Answers(
        group=group,
        shape=plan.model.shape,
        adapter=adapter,
        last=[*(before.last if before and same else []), answer][-KEPT:],
        count=1 + (before.count if before and same else 0),
        at=time.time(),
    )
    # The model that was used the longest ago is forgotten.
    for old in list(every)[:-MOST_MODELS]:
        del every[old]
    learned.put(machine_memory, _SECTION, every)


@dataclass(frozen=True, slots=True)
class _Times:
    """The arithmetic for one model under one profile, in seconds."""

    decode_s: Callable[[float], float]
    """Of a token, by the tokens before it."""
    prefill_s: Callable[[int, int], float]
    """To the first token, by the tokens to evaluate and those that are in the KV cache."""


def _times(shape: Shape, profile: Profile, machine: Hardware, rates: Rates | None) -> _Times | None:
    if not shape.parts or not shape.layers:
        return None
    if profile in CLASS_BYTES:
        bandwidth = machine.nvidia.bandwidth if machine.nvidia else 0
        if not bandwidth:
            return None
        return _Times(
            lambda context: speed_model.gpu_decode_s(shape, profile, bandwidth, context),
            lambda tokens, _: speed_model.gpu_prefill_s(shape, bandwidth, tokens),
        )
    if rates is None or not shape.is_gguf:
        return None
    return _Times(
        lambda context: speed_model.decode_s(shape, rates, context),
        lambda tokens, start: speed_model.prefill_s(shape, rates, tokens, start),
    )


def _off(answers: list[Answer], times: _Times) -> tuple[float | None, float | None]:
    """How many times longer than by arithmetic a token took, and a prompt."""
    decode = [1 / a.decode_tok_s / times.decode_s(a.context) for a in answers if a.decode_tok_s]
    prefill = [a.ttft_s / times.prefill_s(a.evaluated, a.reused) for a in answers if a.ttft_s]
    return _median(decode), _median(prefill)


def _as_given(own: Answers) -> Speed | None:
    """Where arithmetic knows nothing: the answers' own times."""
    decode = _median([answer.decode_tok_s for answer in own.last if answer.decode_tok_s])
    each = [answer.ttft_s / answer.evaluated for answer in own.last if answer.ttft_s]
    prefill = _median(each)
    if decode is None or prefill is None:
        return None
    return Speed(decode, prefill * PROMPT_TOKENS, "measured", "measured", own.at)


def _of_group(
    group: str, profile: Profile, machine: Hardware, known: Known
) -> tuple[float | None, float | None, float | None]:
    """What the bare models of a group teach of any other: see `Known.off`."""
    if group not in known.off:
        members = [a for a in known.answers.values() if a.group == group and a.shape and not a.adapter]
        off = [
            _off(answers.last, times)
            for answers in members
            if answers.shape and (times := _times(answers.shape, profile, machine, known.rates))
        ]
        known.off[group] = (
            _median([decode for decode, _ in off if decode]),
            _median([prefill for _, prefill in off if prefill]),
            max((answers.at for answers in members), default=None),
        )
    return known.off[group]


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _group(profile: Profile, engine: str, threads: int, machine: Hardware) -> str:
    """Names what answers must have in common to be compared."""
    gpu = machine.nvidia if profile in CLASS_BYTES else None
    place = gpu.name if gpu else f"{threads} threads"
    return "/".join((hardware.machine_key(), place, profile.value, engine))


def _key(path: Path, group: str, *, adapter: bool) -> str:
    return "|".join((str(path), "lora" if adapter else "", group))
