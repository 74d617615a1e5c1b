"""Whether a model takes the memory that was said before: estimated against what the engine process holds."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from benchmarks import random_models
from benchmarks.machine import Bench
from benchmarks.random_models import LLAMA_1B, QWEN3_06B, SMALL
from benchmarks.report import Row, Target
from benchmarks.speed_estimates import prompt_of
from drkun_tui import paths
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.protocol import ChatMessage, Generate
from drkun_tui.library import gguf
from drkun_tui.library.fit import MIB, need, shape_of
from drkun_tui.library.plan import plan_load
from drkun_tui.profiles import Profile
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings

ROUNDS = 2
"""Memory does not depend on who else is busy."""

WITHIN = Target("at most", 10, of="ours")

CASES = (
    (SMALL, "Q4_K_M", 2048),
    (QWEN3_06B, "Q8_0", 2048),
    (QWEN3_06B, "Q8_0", 8192),
    (QWEN3_06B, "F16", 4096),
    (QWEN3_06B, "Q4_K_M", 4096),
    (LLAMA_1B, "Q8_0", 4096),
)


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    models = [("starter Q4_K_M", paths.starter(), 2048)]
    for architecture, quantization, context in CASES:
        path = random_models.make(architecture, bench.home, quantization)
        models.append((f"{architecture.name} {quantization}", path, context))
    return [_row(bench, name, path, context) for name, path, context in models]


def _row(bench: Bench, name: str, path: Path, context: int) -> Row:
    taken = [asyncio.run(_taken(bench, path, context)) for _ in range(ROUNDS)]
    measured = statistics.median(taken) / MIB
    estimated = need(shape_of(gguf.read(path)), Profile.CPU, context).total / MIB
    off = 100 * (estimated / measured - 1)
    return Row(
        f"memory of {name}, context {context:,}: estimate off by",
        abs(off),
        "%",
        target=WITHIN,
        text=f"{estimated:,.0f} MiB estimated, {measured:,.0f} measured",
    )


async def _taken(bench: Bench, path: Path, context: int) -> int:
    """Bytes that the engine process holds after an answer to a long prompt."""
    engine = EngineClient(bench.home / "engine.log", bench.home / "machine.json")
    plan = plan_load(Settings(model=str(path), context_length=context, threads=2))
    try:
        async for _ in engine.load(plan.load):
            pass
        assert engine.pid is not None
        _forget_references(engine.pid)
        request = Generate(
            id=0, messages=[ChatMessage("user", prompt_of(600))], sampling=Sampling(max_tokens=8, seed=1)
        )
        async for _ in engine.generate(request):
            pass
        return _resident(engine.pid, path)
    finally:
        await engine.close()


def _forget_references(pid: int) -> None:
    """From now on ``Referenced`` in its ``smaps`` tells what has been looked at."""
    Path(f"/proc/{pid}/clear_refs").write_text("1")


def _resident(pid: int, weights: Path) -> int:
    """Resident bytes, less what is mapped of the model's file and was not looked at for the answer.

    Where llama.cpp re-packs weights it works with a copy, and the file's pages stay mapped until someone
    needs the memory. Shared libraries count whole, since who else has them loaded is no matter of ours.
    """
    resident, wanted = 0, "Rss"
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            resident += int(value.split()[0])
        elif " " in name:  # the line that begins a mapping and ends with its file
            wanted = "Referenced" if line.endswith(weights.name) else "Rss"
    return resident * 1024
