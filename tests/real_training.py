"""Small runs of the real trainer, and the fixtures that they share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drkun_tui import i18n
from drkun_tui.jobs import detached
from drkun_tui.settings import Settings
from drkun_tui.training import base_model, preflight, recipe
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Finished
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.runs import Runs
from tests.conftest import wait_until

SMALL = """
preset = "starter-cpu"
[data]
path = "demo"
held_out_most = 3
[adapter]
rank = 4
[training]
max_steps = 6
packing = true
batch_size = 2
gradient_accumulation = 1
context_length = 256
warmup_steps = 0
save_every = 2
evaluate_every = 3
sample_every = 6
"""


def unheard(_done: int, _whole: int) -> None:
    """How far it is."""


def small(**training: Any) -> Recipe:
    made = recipe.parse(SMALL)
    changed = msgspec.structs.replace(made.training, **training)
    return msgspec.structs.replace(made, training=changed)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder for the whole module, in which the bundled model is unpacked once."""
    folder = tmp_path_factory.mktemp("training")
    before = os.environ.get("DRKUN_HOME")
    os.environ["DRKUN_HOME"] = str(folder)
    # What two runs are compared by must not depend on how many cores are free.
    os.environ["OMP_NUM_THREADS"] = "2"
    i18n.set_language("zh")
    yield folder
    del os.environ["OMP_NUM_THREADS"]
    if before is None:
        del os.environ["DRKUN_HOME"]
    else:
        os.environ["DRKUN_HOME"] = before


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test looks at the module's folder."""
    monkeypatch.setenv("DRKUN_HOME", str(place))
    i18n.set_language("zh")


@pytest.fixture(scope="module")
def base(place: Path) -> Path:
    """The bundled model as a base."""
    model = preflight.find_base(small(), Settings())
    folder, name, said = base_model.on_disk(model)
    assert name == preflight.UNPACKED
    assert said is not None
    return folder


def begin(made: Recipe) -> str:
    ready = preflight.check(made, Settings())

    async def start() -> str:
        return (await Runs().start(ready.recipe)).id

    return asyncio.run(start())


def resume(id: str) -> None:
    async def again() -> None:
        await Runs().resume(id)

    asyncio.run(again())


def history(id: str) -> History:
    return asyncio.run(Runs().history(id))[0]


def patiently(true: Callable[[], bool]) -> None:
    """As `wait_until`, for what takes a trainer its time."""
    for attempt in range(5):
        try:
            wait_until(true)
        except TimeoutError:
            if attempt == 4:
                raise
        else:
            return


def ended(id: str) -> History:
    """The run when it has ended."""
    folder = Runs().root / id

    def has_ended() -> bool:
        now = detached.state(folder)
        return now is not None and not now.alive

    patiently(has_ended)
    return history(id)


@pytest.fixture(scope="module")
def whole(base: Path) -> tuple[str, History]:
    """A run that nobody has disturbed."""
    id = begin(small())
    told = ended(id)
    assert isinstance(told.end, Finished), (told.end, (Runs().root / id / "log.txt").read_text())
    return id, told


def losses(told: History) -> list[tuple[int, float, float, float]]:
    return [(step.step, step.loss, step.grad_norm, step.learning_rate) for step in told.steps]


def looked(told: History) -> list[tuple[int, float]]:
    """Each held-out loss, with its step."""
    return [(look.step, look.loss) for look in told.held_out]
