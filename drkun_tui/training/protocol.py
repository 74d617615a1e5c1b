"""What a training process tells: one JSON object a line in its run's ``events.jsonl``."""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal[
    "starting", "preparing", "loading", "training", "saving", "finishing", "stopped", "done", "failed"
]
"""What a run does; the last three are its ends. A stopped or failed one with a checkpoint can go on."""

ENDED: tuple[Phase, ...] = ("stopped", "done", "failed")

Backend = Literal["unsloth", "peft"]
Values = dict[str, str | int]
"""What the sentence of a warning or an error is filled with."""


class Prepared(msgspec.Struct, frozen=True, tag="prepared", kw_only=True):
    """The data are ready: cleaned, split, rendered, tokenized, packed."""

    rows: int
    """Examples that are trained on."""
    held_out: int
    """Examples that are not, and on which the loss is looked at."""
    tokens: int
    """Of all examples that are trained on, once."""
    trained_tokens: int
    """Of these, in responses: the ones that the loss is computed on."""
    dropped: dict[str, int] = {}
    """Rows that were left out, by reason."""
    fingerprint: str = ""


class Planned(msgspec.Struct, frozen=True, tag="planned", kw_only=True):
    """The base is loaded and it is known how training goes."""

    backend: Backend
    device: str
    """In words, e.g. the GPU's name, and how many there are of it."""
    sharded: bool = False
    """Does each of them hold a part of the base only?"""
    total_steps: int
    rows_per_step: float
    """Examples in one optimizer step, on average."""
    batch_size: int
    gradient_accumulation: int
    trainable_parameters: int
    parameters: int

    @property
    def on_gpu(self) -> bool:
        """Does it train on a GPU?"""
        return not self.device.endswith("CPU")


class Began(msgspec.Struct, frozen=True, tag="began", kw_only=True):
    """Training goes on behind this step, in this process or after a shortage of memory. What was told of
    later steps before belongs to work that was lost, and no longer counts."""

    step: int


class Step(msgspec.Struct, frozen=True, tag="step", kw_only=True):
    """One optimizer step."""

    step: int
    loss: float
    """Mean over the trained tokens of the step, in nats."""
    learning_rate: float
    grad_norm: float = 0.0
    """Before it was clipped; 0 where float16 could not hold the gradient and the step was left out."""
    epoch: float
    tokens: int
    """Seen since the very first step, prompts included, padding not."""
    tok_s: float = 0.0
    """Tokens a second since this process began to train."""
    aside: float = 0.0
    """Seconds that looks at the held-out loss and sample answers have taken, for each second of training."""
    eta_s: float = 0.0
    """Seconds to the last step, by what this process has taken so far, looks and samples included."""
    memory_bytes: int = 0
    """Most that was reserved on the GPU; 0 on a CPU."""


class HeldOut(msgspec.Struct, frozen=True, tag="held_out", kw_only=True):
    """The loss on the examples that are not trained on."""

    step: int
    loss: float


class Sample(msgspec.Struct, frozen=True, tag="sample", kw_only=True):
    """What the model answers at this step to a held-out question, greedily."""

    step: int
    question: str
    thinking: str
    answer: str


class Saved(msgspec.Struct, frozen=True, tag="saved", kw_only=True):
    """The checkpoint of this step is whole on the disk."""

    step: int


class Warned(msgspec.Struct, frozen=True, tag="warned", kw_only=True):
    """Something is not as the recipe says, and training goes on. `kind` is a key of the catalogue's
    ``training`` section."""

    kind: str
    values: Values = {}


class Finished(msgspec.Struct, frozen=True, tag="finished", kw_only=True):
    """The adapter is whole."""

    step: int
    folder: str
    held_out_loss: float | None = None


class Stopped(msgspec.Struct, frozen=True, tag="stopped", kw_only=True):
    """Somebody asked it to end early; the checkpoint of this step is whole (0: there is none)."""

    step: int


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """It cannot go on. `kind` is a key of the catalogue's ``training`` section."""

    kind: str
    values: Values = {}


Event = Prepared | Planned | Began | Step | HeldOut | Sample | Saved | Warned | Finished | Stopped | Failed

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """One line, without its end."""
    return _ENCODER.encode(event)


def decode(line: bytes) -> Event:
    """Raises `msgspec.MsgspecError` on anything that is no event."""
    return _DECODER.decode(line)
