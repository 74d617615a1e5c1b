"""``drkun bench``: how fast a model answers on this machine, through the engine that the chat uses."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics

import msgspec

from drkun_tui import paths
from drkun_tui.commands.choice import chosen
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.protocol import ChatMessage, Finished, Generate
from drkun_tui.errors import EXIT_DONE
from drkun_tui.i18n import t
from drkun_tui.library import speed
from drkun_tui.library.plan import Plan, plan_load
from drkun_tui.settings import Settings
from drkun_tui.ui.table import cell

QUESTION = "最近总是头晕，有时恶心，应该怎么办？需要做哪些检查？"
PROMPT_TOKENS = 512
"""Length of the prompt whose evaluation is measured, where the context has room for it."""
ANSWER_TOKENS = 256


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print a line or an object."""
    settings = chosen(arguments)
    plan = plan_load(settings)
    result = asyncio.run(_measure(settings, plan, max(1, arguments.runs)))
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        for name, value in result.items():
            shown = f"{value:,.2f}" if isinstance(value, float) else str(value)
            print(f"{cell(t(f'bench.{name}'), 24)}{shown}")
    return EXIT_DONE


async def _measure(settings: Settings, plan: Plan, runs: int) -> dict[str, object]:
    engine = EngineClient(paths.engine_log(), paths.machine_file())
    try:
        async for _ in engine.load(plan.load):
            pass
        ready = engine.ready
        if ready is None:
            return {}
        prefill = [await _prefill(engine, settings, ready.context_length, run) for run in range(runs)]
        answers = [
            await _ask(engine, settings, QUESTION, max_tokens=ANSWER_TOKENS, seed=seed)
            for seed in range(runs)
        ]
        for finished in (*prefill, *answers):
            speed.record(paths.machine_file(), plan, finished)
        return {
            "model": plan.model.name,
            "profile": str(plan.profile),
            "engine": ready.engine,
            "threads": ready.threads,
            "context_length": ready.context_length,
            "safe_mode": ready.safe_mode,
            "load_s": ready.load_s,
            "prompt_tokens": prefill[0].usage.prompt_tokens,
            "prefill_tok_s": statistics.median(_evaluated(f) / f.timings.ttft_s for f in prefill),
            "ttft_s": statistics.median(f.timings.ttft_s for f in prefill),
            "decode_tok_s": statistics.median(f.timings.decode_tok_s for f in answers),
            "runs": runs,
        }
    finally:
        await engine.close()


async def _prefill(engine: EngineClient, settings: Settings, context: int, run: int) -> Finished:
    """Evaluate a long prompt that shares no beginning with the one before it."""
    wanted = min(PROMPT_TOKENS, context // 2)
    text = f"{run}. " + QUESTION * (1 + wanted // 16)
    # Chinese medical text has about one and a half characters a token.
    return await _ask(engine, settings, text[: int(wanted * 1.5)], max_tokens=1, seed=0)


def _evaluated(finished: Finished) -> int:
    return finished.usage.prompt_tokens - finished.usage.reused_tokens


async def _ask(
    engine: EngineClient, settings: Settings, text: str, *, max_tokens: int, seed: int
) -> Finished:
    sampling = msgspec.structs.replace(settings.sampling, max_tokens=max_tokens, seed=seed)
    request = Generate(id=0, messages=[ChatMessage("user", text)], sampling=sampling, think=settings.think)
    finished: Finished | None = None
    async for event in engine.generate(request):
        if isinstance(event, Finished):
            finished = event
    assert finished is not None  # noqa: S101  # a generation ends with it or raises
    return finished
