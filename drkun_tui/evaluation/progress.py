"""How far an evaluation is, folded from its events."""

from __future__ import annotations

from dataclasses import dataclass

from drkun_tui.evaluation.protocol import Answered, Event, Loaded, Prepared


@dataclass(slots=True)
class Progress:
    """How many of how many, how fast, how much longer.

    Attributes:
        prepared: None until the questions are known.
        done: questions that are answered, by all processes of the evaluation.
        rate: questions a second since the model was loaded last; 0 where that is not known yet.
    """

    prepared: Prepared | None = None
    done: int = 0
    rate: float = 0.0
    _before: int = 0
    _began: float = 0.0

    def add(self, event: Event) -> None:
        """Take what has happened."""
        if isinstance(event, Prepared):
            self.prepared = event
        elif isinstance(event, Loaded):
            self._began, self._before, self.rate = event.at, self.done, 0.0
        elif isinstance(event, Answered):
            self.done += 1
            if event.at > self._began:
                self.rate = (self.done - self._before) / (event.at - self._began)

    @property
    def total(self) -> int:
        """Questions that are asked; 0 until they are known."""
        return self.prepared.questions if self.prepared else 0

    @property
    def left_s(self) -> float | None:
        """Seconds until all are answered, where that is known."""
        return (self.total - self.done) / self.rate if self.rate else None
