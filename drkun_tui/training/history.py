"""What a run has told, put together: its curves, its last sample, what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from drkun_tui.training.protocol import (
    Began,
    Event,
    Failed,
    Finished,
    HeldOut,
    Planned,
    Prepared,
    Sample,
    Saved,
    Step,
    Stopped,
    Warned,
)


@dataclass(slots=True)
class History:
    """A run's events, folded. Every step stands in it once and in order, however often the run was killed
    and went on: what `Began` says was lost is left out.

    Attributes:
        steps: one for each optimizer step so far.
        held_out: the loss on the held-out examples, as often as it was looked at.
        samples: the answers to the held-out question.
        saved: the step of the newest whole checkpoint; 0 when there is none.
        end: how the run ended, when it has ended.
    """

    prepared: Prepared | None = None
    planned: Planned | None = None
    steps: list[Step] = field(default_factory=list)
    held_out: list[HeldOut] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    saved: int = 0
    end: Finished | Stopped | Failed | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> History:
        """All of them at once."""
        history = cls()
        for event in events:
            history.add(event)
        return history

    def add(self, event: Event) -> None:
        """One more."""
        if isinstance(event, Step):
            self.steps.append(event)
        elif isinstance(event, HeldOut):
            self.held_out.append(event)
        elif isinstance(event, Sample):
            self.samples.append(event)
        elif isinstance(event, Saved):
            self.saved = event.step
        elif isinstance(event, Warned):
            if event not in self.warnings:
                self.warnings.append(event)
        elif isinstance(event, Prepared):
            self.prepared, self.end = event, None
        elif isinstance(event, Planned):
            self.planned = event
        elif isinstance(event, Began):
            self._forget_after(event.step)
        else:
            self.end = event

    def _forget_after(self, step: int) -> None:
        # It goes on from its newest checkpoint, which may have been whole before anybody was told.
        self.end, self.saved = None, step
        self.steps = [told for told in self.steps if told.step <= step]
        # A run that begins anew looks at the loss before its first step again.
        self.held_out = [told for told in self.held_out if step and told.step <= step]
        self.samples = [told for told in self.samples if told.step <= step]

    @property
    def step(self) -> int:
        """The last step that was made."""
        return self.steps[-1].step if self.steps else 0

    @property
    def total_steps(self) -> int:
        """How many there will be; 0 while that is unknown."""
        return self.planned.total_steps if self.planned else 0


def smoothed(losses: Iterable[float], weight: float = 0.9) -> list[float]:
    """An exponential moving average, corrected for its start (Kingma and Ba 2015, arXiv:1412.6980,
    section 3).

    Args:
        losses: one for each step.
        weight: of what came before, from 0 to below 1.
    """
    average, made = 0.0, []
    for number, loss in enumerate(losses, 1):
        average = weight * average + (1 - weight) * loss
        made.append(average / (1 - weight**number))
    return made
