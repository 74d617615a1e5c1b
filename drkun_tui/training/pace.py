"""How long a run will take: measured where the base has been trained on before, else estimated."""

from __future__ import annotations

import importlib.metadata
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drkun_tui import hardware, learned, paths
from drkun_tui.library.fit import Shape
from drkun_tui.training import ranks
from drkun_tui.training.checking.protocol import Tokens
from drkun_tui.training.protocol import Step
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import Runs

PROBE = "drkun_tui.training.probe"

PROBE_S = 60.0
"""Seconds after which the probe is given up."""

BYTES_PER_TOKEN = 4
"""Of a file of dialogues, for who has not had them counted: 3.5 in a CSV in GB18030, 4.2 in JSONL."""

SHARES = {"gpu": 0.15, "padded": 0.7, "packed": 0.45}
"""Of the rate of bare matrix products, what training reaches. On a GPU 3,400 tokens a second of a model of 4
billion parameters in nf4 on an H200; on a CPU 510 padded and 320 packed ones of the bundled model for each
second of a core: there is no kernel for packs, so attention is computed over all of them and masked."""

_SECTION = "training_rates"


class _Rate(msgspec.Struct, frozen=True):
    flops_s: float


@dataclass(frozen=True, slots=True)
class Duration:
    """Of a run, without its preparations. `measured` is by an earlier run on the same base."""

    seconds: float
    measured: bool


def expected(recipe: Recipe, shape: Shape, tokens: Tokens | None = None) -> Duration | None:
    """How long the run will take; None where that cannot be told. The first time this machine is probed, some
    seconds long.

    Args:
        recipe: of the run.
        shape: of the base.
        tokens: of the data, where they have been counted.
    """
    count = tokens_seen(recipe, tokens)
    if not count:
        return None
    if (told := _measured(recipe)) is not None:
        return Duration(count / told.tok_s * (1 + told.aside), measured=True)
    if not shape.parameters or not (rate := _rate()):
        return None
    on_gpu = hardware.read().nvidia is not None
    share = SHARES["gpu" if on_gpu else "packed" if recipe.training.packing else "padded"]
    # Processes on a CPU share its cores.
    cards = ranks.wanted(recipe) if on_gpu else 1
    trained = count / cards + looked_at(recipe, count, tokens) * FORWARD / _passes(recipe)
    return Duration(trained * flops(recipe, shape) / (rate * share), measured=False)


def tokens_seen(recipe: Recipe, tokens: Tokens | None) -> float:
    """Tokens of a whole run, prompts included; 0 where that cannot be told."""
    training = recipe.training
    in_step = _sequences(recipe)
    if training.epochs:
        whole = tokens.total if tokens else source_bytes(recipe) / BYTES_PER_TOKEN
        return whole * (1 - recipe.data.held_out) * training.epochs
    if training.packing:
        return training.max_steps * in_step * training.context_length
    each = tokens.total / max(tokens.examples, 1) if tokens else _row_tokens(recipe)
    return training.max_steps * in_step * each


def looked_at(recipe: Recipe, seen: float, tokens: Tokens | None) -> float:
    """Tokens of all looks at the held-out loss, before the first step and behind the last one, too; every
    process looks at all of them.

    Args:
        seen: tokens of the whole run, as by `tokens_seen`.
    """
    training, data = recipe.training, recipe.data
    if not training.evaluate_every:
        return 0
    whole = tokens.total if tokens else source_bytes(recipe) / BYTES_PER_TOKEN
    share = min(data.held_out, data.held_out_most / max(tokens.examples, 1)) if tokens else data.held_out
    length = training.context_length if training.packing else 0
    if not length and tokens:
        length = round(tokens.total / max(tokens.examples, 1))
    steps = training.max_steps or (seen / (_sequences(recipe) * length) if length else 0)
    return (1 + max(1, math.ceil(steps / training.evaluate_every))) * whole * share


def _sequences(recipe: Recipe) -> int:
    """In one optimizer step."""
    training = recipe.training
    return training.batch_size * training.gradient_accumulation * ranks.wanted(recipe)


FORWARD = 2
"""Operations for each weight that a token is multiplied with, forward alone."""


def _passes(recipe: Recipe) -> int:
    """The same, for a token that is trained on."""
    return 6 if recipe.training.gradient_checkpointing else 4


def flops(recipe: Recipe, shape: Shape) -> float:
    """Floating-point operations for a token: two for each weight that it is multiplied with, forward, and as
    many for the gradient that is passed on; frozen weights have none of their own. With gradient
    checkpointing the forward ones twice (Kaplan and others 2020, arXiv:2001.08361, section 2.1; Chen and
    others 2016, arXiv:1604.06174). Attention itself is little at these lengths."""
    head = shape.vocabulary * shape.embedding
    weights = shape.parameters - shape.embedding_parameters + head
    return _passes(recipe) * weights


def _measured(recipe: Recipe) -> Step | None:
    """The last step of the newest run on the same base and as many devices, packed as this one."""
    for run in Runs()._all():
        told = run.history.steps[-1] if run.history.steps else None
        one, other = run.recipe.training, recipe.training
        alike = (run.recipe.base, one.packing, one.devices) == (recipe.base, other.packing, other.devices)
        if told is not None and told.tok_s and alike:
            return told
    return None


def source_bytes(recipe: Recipe) -> int:
    """Of the files with the dialogues; 0 where nobody can tell, as of a hub's data set."""
    return sum(file.stat().st_size for file in _files(recipe))


def _files(recipe: Recipe) -> list[Path]:
    path = Path(recipe.data.path).expanduser()
    if recipe.data.path == "demo":
        path = Path(__file__).with_name("demo.jsonl")
    if not recipe.data.path or not path.exists():
        return []
    return [file for file in sorted(path.rglob("*") if path.is_dir() else [path]) if file.is_file()]


_HEAD = 1 << 16
"""Bytes of a file by which its rows are taken to be alike."""


def _row_tokens(recipe: Recipe) -> float:
    """Tokens of an example that nobody has counted, by the lines at the beginning of a file; 0 where a row is
    no line."""
    for file in _files(recipe):
        if file.suffix.lower() in (".csv", ".tsv", ".jsonl"):
            with file.open("rb") as lines:
                head = lines.read(_HEAD)
            if rows := head.count(b"\n"):
                return min(len(head) / rows / BYTES_PER_TOKEN, recipe.training.context_length)
    return 0


def _rate() -> float:
    """Floating-point operations a second of matrix products here; 0 where they cannot be measured."""
    memory = paths.machine_file()
    known = learned.get(memory, _SECTION, dict[str, _Rate], {})
    key = f"{hardware.machine_key()}/{_device()}/torch-{importlib.metadata.version('torch')}"
    if key not in known:
        try:
            told = subprocess.run(
                [sys.executable, "-m", PROBE], capture_output=True, check=True, timeout=PROBE_S
            ).stdout
            known = {**known, key: msgspec.json.decode(told, type=_Rate)}
        except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
            return 0.0
        learned.put(memory, _SECTION, known)
    return known[key].flops_s


def _device() -> str:
    card = hardware.read().nvidia
    return card.name if card else "cpu"
