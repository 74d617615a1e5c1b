"""Whether a model answers as fast as was said before: estimated against measured, through the real engine.

Every model is measured in rounds. The estimate is made from the kernels' rates alone, as for a model that
was never used; then the first round's answers are recorded, as if someone had asked, and the later rounds
are held against what is told then, of the model itself and of one that only others were used before.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import random_models
from benchmarks.machine import Bench
from benchmarks.random_models import LLAMA_1B, QWEN3_06B, SMALL
from benchmarks.report import Row, Target
from drkun_tui import hardware, paths
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.protocol import ChatMessage, Finished, Generate
from drkun_tui.library import speed
from drkun_tui.library.plan import Plan, plan_load
from drkun_tui.library.speed import Known
from drkun_tui.profiles import Profile
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings

THREADS = 2
CONTEXT = 2048
TOKENS = 72
"""Of the answers whose decoding is timed."""

LEAST_ROUNDS = 3

BEFORE, AFTER = 25, 10
"""Per cent of the measured figure that an estimate may be off, before calibration and after."""

MOST = Target("at least", 80, of="ours")

QUESTION = "最近总是头晕，有时恶心，应该怎么办？需要做哪些检查？"
QUESTION_TOKENS, TEMPLATE_TOKENS = 11.2, 8


def prompt_of(tokens: int) -> str:
    """A question of about so many tokens of the bundled model's tokenizer, its template included."""
    return QUESTION * max(1, round((tokens - TEMPLATE_TOKENS) / QUESTION_TOKENS))


@dataclass(frozen=True, slots=True)
class Times:
    """One model in one round."""

    prompt: Finished
    short: Finished
    long: Finished

    def __str__(self) -> str:
        rates = ", ".join(f"{f.timings.decode_tok_s:.1f}" for f in (self.short, self.long))
        return f"first token {self.prompt.timings.ttft_s:.2f} s, {rates} tok/s"

    def figures(self) -> tuple[float, float, float]:
        """Seconds to the first token after 512, tokens a second at the short and at the long context."""
        ttft = self.prompt.timings.ttft_s * speed.PROMPT_TOKENS / _evaluated(self.prompt)
        return ttft, self.short.timings.decode_tok_s, self.long.timings.decode_tok_s


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    memory = bench.home / "machine.json"
    machine = hardware.read()
    models = {"starter Q4_K_M": paths.starter()}
    for architecture in (SMALL, QWEN3_06B, LLAMA_1B):
        for quantization in ("F16", "Q8_0", "Q4_K_M"):
            path = random_models.make(architecture, bench.home, quantization)
            models[f"{architecture.name} {quantization}"] = path
    plans = {
        name: plan_load(Settings(model=str(path), context_length=CONTEXT, threads=THREADS))
        for name, path in models.items()
    }
    known = bench.sample(
        lambda: asyncio.run(speed.measure(memory, machine, bench.home / "probe.log", THREADS))
    )
    if known.rates is None or not known.rates.quiet:
        bench.note("speeds: the machine was never quiet while its kernels were measured")
    taken: dict[str, list[Times]] = {name: [] for name in models}
    for number in range(max(LEAST_ROUNDS, bench.rounds // 2)):
        for name, plan in plans.items():
            times = bench.sample(lambda plan=plan, number=number: asyncio.run(_take(bench, plan, number)))  # type: ignore[misc]
            taken[name].append(times)
            print(f"  speed {number + 1} {name}: {times}", flush=True)
    blank = Known(known.rates, THREADS, {})
    for name, plan in plans.items():
        first = taken[name][0]
        for finished in (first.prompt, first.short, first.long):
            speed.record(memory, plan, finished)
    after = speed.known(memory, machine, THREADS)
    rows, all_before, all_after, all_others = [], [], [], []
    for name, plan in plans.items():
        before = _ratios(plan, machine, blank, taken[name])
        later = _ratios(plan, machine, after, taken[name][1:])
        others = Known(
            known.rates, THREADS, {k: a for k, a in after.answers.items() if a.shape != plan.model.shape}
        )
        by_others = _ratios(plan, machine, others, taken[name][1:])
        all_before += before
        all_after += later
        all_others += by_others
        measured = _medians(taken[name])
        rows.append(
            Row(
                f"{name}: tokens a second, estimated before any answer",
                measured[1] * before[1],
                "tok/s",
                measured[1],
                "measured",
                (before[1], before[1], before[1]),
                text=f"first token {before[0]:.2f}, long context {before[2]:.2f} of measured; "
                f"calibrated {', '.join(f'{ratio:.2f}' for ratio in later)}",
            )
        )
    return [
        *rows,
        _share("estimates of speed within 25 % of the measured", all_before, BEFORE, MOST),
        _share("the same after one answer of each model, within 10 %", all_after, AFTER, MOST),
        _share("the same after answers of the other models only, within 25 %", all_others, BEFORE, None),
    ]


def _share(name: str, ratios: Sequence[float], within: float, target: Target | None) -> Row:
    good = sum(abs(ratio - 1) <= within / 100 for ratio in ratios)
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    text = f"{good} of {len(ratios)} figures, worst {worst:.2f}"
    return Row(name, 100 * good / len(ratios), "%", target=target, text=text)


def _ratios(plan: Plan, machine: hardware.Hardware, known: Known, rounds: Sequence[Times]) -> list[float]:
    """Told over measured: time to first token, tokens a second at the short and at the long context."""
    assert plan.model.shape is not None
    told: list[float] = []
    for finished in (rounds[0].prompt, rounds[0].short, rounds[0].long):
        context = round(finished.usage.prompt_tokens + _decoded(finished) / 2)
        one = speed.estimate(plan.model.path, plan.model.shape, Profile.CPU, machine, known, context)
        if one is None:
            raise RuntimeError(f"nothing can be said of {plan.model.name}")
        told.append(one.decode_tok_s if told else one.ttft_s)
    return [ours / measured for ours, measured in zip(told, _medians(rounds), strict=True)]


def _medians(rounds: Sequence[Times]) -> list[float]:
    return [statistics.median(each) for each in zip(*(times.figures() for times in rounds), strict=True)]


def _evaluated(finished: Finished) -> int:
    return finished.usage.prompt_tokens - finished.usage.reused_tokens


def _decoded(finished: Finished) -> int:
    return finished.usage.thinking_tokens + finished.usage.answer_tokens


async def _take(bench: Bench, plan: Plan, number: int) -> Times:
    engine = EngineClient(bench.home / "engine.log", bench.home / "machine.json")
    try:
        async for _ in engine.load(plan.load):
            pass
        await _ask(engine, "", 64, 1)  # a first answer warms up
        return Times(
            prompt=await _ask(engine, f"{number}.", speed.PROMPT_TOKENS, 1),
            short=await _ask(engine, "甲", 64, TOKENS),
            long=await _ask(engine, "乙", 964, TOKENS),
        )
    finally:
        await engine.close()


async def _ask(engine: EngineClient, opening: str, prompt_tokens: int, tokens: int) -> Finished:
    """An answer of `tokens`; a random model sometimes ends sooner, then with another seed."""
    finished: Finished | None = None
    for seed in range(20):
        request = Generate(
            id=0,
            messages=[ChatMessage("user", f"{opening}{prompt_of(prompt_tokens)}")],
            sampling=Sampling(max_tokens=tokens, seed=seed),
        )
        async for event in engine.generate(request):
            if isinstance(event, Finished):
                # A repetition has its prompt in the cache, so only the first tells of the prompt.
                finished = event
        if finished is not None and _decoded(finished) >= tokens * 2 // 3:
            return finished
    raise RuntimeError("no seed gives an answer that is long enough")
