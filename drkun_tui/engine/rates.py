"""What llama.cpp's kernels reach on this machine, measured once and kept in ``machine.json``."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

from drkun_tui import learned
from drkun_tui.jobs import Job

PROBE = "drkun_tui.engine.probe"

LONGEST_S = 60.0
"""Seconds after which a measurement is given up: something hangs, or somebody else has the machine."""

_SECTION = "rates"


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of one machine, build and number of threads."""

    threads: int
    decode: dict[str, float]
    """Tensor type to bytes a second of weights larger than the caches, multiplied with one token."""
    prefill: dict[str, float]
    """Tensor type to multiply-adds a second of weights multiplied with a batch of tokens."""
    attention_s: float
    """Seconds of one query head over one position of the context, heads of 128 elements."""
    cache_s: float
    """Seconds for each byte of the KV cache, in addition where it comes from memory."""
    prefill_attention: float
    """Multiply-adds a second of attention over a batch of tokens."""
    operation_s: float
    """Seconds of an operation that has next to nothing to do: its start, and the threads' waiting."""
    last_cache: int
    """Bytes of the CPU's last cache; 0 is unknown."""
    quiet: bool
    """False when other programs wanted the cores all the time; then it is worth measuring again."""
    measured_at: float = 0.0
    """Seconds since the epoch."""


def known(machine_memory: Path, threads: int) -> Rates | None:
    """The rates that were measured here, if they were."""
    return learned.get(machine_memory, _SECTION, dict[str, Rates], {}).get(_key(machine_memory, threads))


async def measure(machine_memory: Path, threads: int, log: Path) -> Rates | None:
    """Measure in a child process, some four seconds on all `threads`, and keep it.

    Args:
        machine_memory: ``machine.json``.
        threads: as many as decode will use.
        log: file for what the child writes to its standard error.

    Returns:
        What was measured; None where it cannot be, e.g. with another build of llama.cpp.
    """
    from drkun_tui.engine import safe_mode

    for _ in range(2):
        safe = safe_mode.is_needed(machine_memory)
        arguments = (str(threads), "safe" if safe else "fast")
        job = Job(PROBE, msgspec.json.Decoder(Rates).decode, log, arguments)
        try:
            async with asyncio.timeout(LONGEST_S):
                await job.start()
                rates = await job.next_event()
        except (OSError, msgspec.MsgspecError):  # a TimeoutError is an OSError
            return None
        finally:
            await job.close()
        if rates is not None:
            rates = msgspec.structs.replace(rates, measured_at=time.time())
            _keep(machine_memory, rates)
            return rates
        if safe or not job.crashed:
            return None
        # The same fault that a model would meet here.
        safe_mode.remember(machine_memory)
    return None


def _keep(machine_memory: Path, rates: Rates) -> None:
    every = learned.get(machine_memory, _SECTION, dict[str, Rates], {})
    learned.put(machine_memory, _SECTION, {**every, _key(machine_memory, rates.threads): rates})


def _key(machine_memory: Path, threads: int) -> str:
    from drkun_tui.engine import safe_mode

    mode = "safe" if safe_mode.is_needed(machine_memory) else "fast"
    return f"{safe_mode.build_key()}/{mode}/{threads}"
