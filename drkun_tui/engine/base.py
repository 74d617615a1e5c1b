"""What every engine can do. The host calls it; each engine is a mechanism, a profile is a policy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from drkun_tui.engine.protocol import Event, FinishReason, Generate, Load, Loading, Ready, Score

PENALTY_LAST_N = 64
"""Tokens that the repeat penalty looks back on."""


class EngineError(Exception):
    """A failure inside an engine, with the catalogue key of its sentence.

    Args:
        kind: key of the catalogue's ``engine`` section.
        values: what fills the sentence's placeholders.
    """

    def __init__(self, kind: str, **values: str | int) -> None:
        super().__init__(kind)
        self.kind = kind
        self.values = values


Stopping = Callable[[], bool]
"""Asked often and from any thread: should the work at hand be given up now?"""

Emit = Callable[[Event], None]
"""Sends one event to the interface."""


def weights_read(fraction: float, sizes: Sequence[int]) -> Loading:
    """Progress of reading weights from files of these sizes, one after the other."""
    done, total = int(fraction * sum(sizes)), sum(sizes)
    shard = sum(end <= done for end in itertools.accumulate(sizes[:-1])) + 1
    return Loading("weights", fraction, done, total, shard, len(sizes))


@dataclass(slots=True)
class Prompt:
    """How a generation begins.

    A server tells its tokens only with the answer; they are filled in then.

    Attributes:
        opening: the rendered prompt, whose end tells whether a reasoning block is already open.
        carried: raw text of the partial answer put after it, or "".
    """

    opening: str
    carried: str
    tokens: int
    reused_tokens: int
    dropped_messages: int
    seed: int


Tokens = Generator[str, None, FinishReason]
"""The text of each token, "" for one whose bytes only complete with a later one."""

Stream = Generator[str | None, None, FinishReason]
"""Tokens, and None while there is none yet: what came before does not wait for it."""


class Engine(Protocol):
    """One loaded model."""

    def load(self, request: Load, emit: Emit) -> Ready:
        """Load and warm up, telling the progress.

        Raises:
            EngineError: the model cannot be used.
        """
        ...

    def set_adapter(self, path: str | None, scale: float) -> None:
        """Answer with this adapter from now on, or with none; what was computed without it is forgotten.

        Args:
            path: the adapter's file, None for the bare model.
            scale: what its change of the weights is multiplied with; 0 is as good as none.

        Raises:
            EngineError: it cannot be attached, and the one before it still is.
        """
        ...

    def prepare(self, request: Generate) -> Prompt:
        """Render and tokenize, shorten to the context, cut the KV cache back to what fits the prompt.

        Raises:
            EngineError: the prompt cannot be rendered or does not fit the context.
        """
        ...

    def generate(self, request: Generate, prompt: Prompt, stopping: Stopping) -> Stream:
        """Evaluate what `prepare` prepared and decode the answer."""
        ...

    def settle(self, request: Generate, answer: str, stopping: Stopping) -> None:
        """Evaluate, while nothing else is asked, what the next turn's prompt will begin with.

        Templates leave earlier reasoning out of the history, so the KV cache of an answer just given
        does not match the next prompt. Doing this work between turns leaves the next turn only its
        own new tokens.
        """
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of one of several answers.

    Attributes:
        id: of the request.
        text: as in `Tokens`.
        reason: why the answer ended; then there is no text.
    """

    id: int
    text: str = ""
    reason: FinishReason | None = None


class BatchEngine(Protocol):
    """One loaded model that answers many independent questions at once."""

    def load(self, request: Load, emit: Emit) -> Ready:
        """See `Engine.load`."""
        ...

    @property
    def free(self) -> int:
        """How many more answers can begin now."""
        ...

    def begin(self, request: Generate) -> Prompt:
        """Take a question; one of `free` is then less.

        Raises:
            EngineError: the prompt cannot be rendered or does not fit the context.
        """
        ...

    def step(self) -> list[Piece]:
        """Go on with all answers that have begun.

        Raises:
            EngineError: the model failed; none of the answers can go on.
        """
        ...

    def score(self, request: Score) -> tuple[float, int]:
        """Loss of a response in nats, summed over its tokens and its end of turn, and how many those are.

        Raises:
            EngineError: the prompt cannot be rendered, or leaves no room for the response.
        """
        ...
