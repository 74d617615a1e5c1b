"""What a trainer does, as the run's events.

On a GPU a step is told of while the next one is prepared: whoever waits for its loss lets the GPU wait. Where
the trainer waits by itself in each step, as TRL's own loss does, nothing is lost by it and nothing won.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from drkun_tui.engine.thinking import opened_by, split, start_state
from drkun_tui.training.faults import TrainingError
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Event, HeldOut, Sample, Saved, Step
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.rendering import Example, Renderer

if TYPE_CHECKING:
    from drkun_tui.training.job import Teller
    from drkun_tui.training.trainer import RunTrainer


@dataclass(frozen=True, slots=True)
class _Made:
    """An optimizer step whose figures may be on their way.

    Attributes:
        last: the run's last step.
        tokens: that were trained on so far, in this process's run.
        figures: loss and norm of the gradient, in the host's memory once they have `arrived`.
    """

    step: int
    last: int
    epoch: float
    learning_rate: float
    tokens: int
    figures: Tensor
    arrived: torch.cuda.Event | None


class RunCallback(TrainerCallback):
    """Turns what the trainer does into the run's events."""

    def __init__(
        self,
        trainer: RunTrainer,
        recipe: Recipe,
        renderer: Renderer,
        sample: Example,
        teller: Teller,
        history: History,
    ) -> None:
        self._trainer = trainer
        self._training = recipe.training
        self._renderer = renderer
        self._sample = sample
        self._teller = teller
        self._history = history
        self._began, self._first_step, self._earlier_tokens = 0.0, 0, 0
        self._aside_s, self._first_look_s = 0.0, 0.0
        self._begun: torch.cuda.Event | None = None
        """The same moment as `_began`, behind the first look, by the GPU's clock."""
        self._on_its_way: _Made | None = None

    def _tell(self, event: Event) -> None:
        self._history.add(event)
        self._teller.event(event)

    def saved(self, step: int) -> None:
        """A checkpoint is whole."""
        self._tell(Saved(step=step))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock, and look at the loss before anything is learned."""
        self._first_step = state.global_step
        self._earlier_tokens = self._history.steps[-1].tokens if self._history.steps else 0
        self._began = time.monotonic()
        if state.global_step == 0:
            self._look(0)
            self._aside_s = self._first_look_s = time.monotonic() - self._began
        if torch.cuda.is_available():
            self._begun = torch.cuda.Event(enable_timing=True)
            self._begun.record()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """One optimizer step was made, and Transformers has waited for its figures."""
        if logs and "loss" in logs:
            figures = torch.tensor(
                [float(logs["loss"]), float(logs.get("grad_norm", 0.0))], dtype=torch.float64
            )
            self._tell_step(self._made(state, figures, float(logs.get("learning_rate", 0.0))))

    def made(self, state: TrainerState, loss: Tensor, norm: Any, rate: float, *, now: bool) -> None:
        """One optimizer step was made, or a GPU works on it; it is told when its figures are there.

        Args:
            loss: on the device, a sum that the trainer goes on with.
            norm: of the gradient, on the device or not.
            rate: the learning rate.
            now: wait for the figures.
        """
        self.tell_made(wait=True)
        # Whatever asks a tensor on the GPU for its value, or brings it one, waits.
        known = norm.detach() if isinstance(norm, Tensor) else torch.full_like(loss, norm or 0.0)
        figures = torch.stack([loss.detach(), known.to(loss)])
        arrived = None
        if figures.is_cuda:
            host = torch.empty(2, dtype=figures.dtype, pin_memory=True)
            host.copy_(figures, non_blocking=True)
            figures, arrived = host, torch.cuda.Event(enable_timing=True)
            arrived.record()
        self._on_its_way = self._made(state, figures, rate, arrived)
        self.tell_made(wait=now or self._is_looked_at(state.global_step, state.max_steps))

    def tell_made(self, *, wait: bool) -> None:
        """Tell of the step that is on its way, if it has arrived or shall be waited for."""
        made = self._on_its_way
        if made is None or not (wait or made.arrived is None or made.arrived.query()):
            return
        self._on_its_way = None
        if made.arrived is not None:
            made.arrived.synchronize()
        self._tell_step(made)

    def _made(
        self, state: TrainerState, figures: Tensor, rate: float, arrived: torch.cuda.Event | None = None
    ) -> _Made:
        tokens = self._trainer.everywhere(self._trainer.seen)
        return _Made(
            state.global_step, state.max_steps, float(state.epoch or 0.0), rate, tokens, figures, arrived
        )

    def _tell_step(self, made: _Made) -> None:
        loss, norm = made.figures.tolist()
        if math.isfinite(loss) and not math.isfinite(norm) and self._trainer.skips:
            norm = 0.0
        if not (math.isfinite(loss) and math.isfinite(norm)):
            rate = f"{self._training.learning_rate:g}"
            saved = self._history.saved
            kind = "diverged" if saved else "diverged_unsaved"
            raise TrainingError(kind, step=made.step, learning_rate=rate, saved=saved)
        count = made.step - self._first_step
        again = self._aside_s - self._first_look_s
        if made.arrived is not None and self._begun is not None:
            # By the GPU's clock: this process is ahead of it.
            took = self._begun.elapsed_time(made.arrived) / 1000 - again
        else:
            took = time.monotonic() - self._began - self._aside_s
        self._tell(
            Step(
                step=made.step,
                loss=loss,
                learning_rate=made.learning_rate,
                grad_norm=norm,
                epoch=made.epoch,
                tokens=self._earlier_tokens + made.tokens,
                tok_s=made.tokens / max(took, 1e-9),
                aside=self._aside_s / max(took, 1e-9),
                eta_s=(took + again) / max(count, 1) * (made.last - made.step),
                memory_bytes=torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0,
            )
        )
        self._after_step(made.step, last=made.step >= made.last)

    def _is_looked_at(self, step: int, last: int) -> bool:
        training = self._training
        return step >= last or _is_due(step, training.evaluate_every) or _is_due(step, training.sample_every)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Decide what follows this step."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if self._trainer.everywhere(self._teller.stop_requested) and not last:
            self._trainer.stopped_early = True
            control.should_training_stop = control.should_save = True
        elif last or _is_due(step, self._training.save_every):
            control.should_save = True

    def _after_step(self, step: int, *, last: bool) -> None:
        """Look at the held-out loss and at a sample where they are due; their time is not training's."""
        began = time.monotonic()
        training = self._training
        if last or _is_due(step, training.evaluate_every):
            self._look(step)
        if training.sample_every and (last or _is_due(step, training.sample_every)):
            self._show(step)
        self._aside_s += time.monotonic() - began

    def _look(self, step: int) -> None:
        if self._trainer.eval_dataset is not None and self._training.evaluate_every:
            loss = self._trainer.held_out_loss()
            self._tell(HeldOut(step=step, loss=loss))
            if self._training.report_to:
                self._trainer.log({"eval_loss": loss})

    def _show(self, step: int) -> None:
        prompt = self._renderer.render(self._sample).prompt
        text = self._trainer.answer(prompt).partition(self._renderer.end_of_turn)[0]
        told = split(text, start_state(prompt), opened_by(prompt))
        self._tell(
            Sample(
                step=step,
                question=self._sample.question,
                thinking=told.thinking.strip(),
                answer=told.answer.strip(),
            )
        )


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
