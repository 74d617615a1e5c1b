"""TRL's trainer with what a run needs besides: events, whole checkpoints, an early stop, the held-out loss of
responses, and sample answers.

It is imported in the training process only, and behind unsloth where that is used.
"""

from __future__ import annotations

import errno
import importlib.util
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    Trainer,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from drkun_tui.training.adapter import trained_weights
from drkun_tui.training.base_model import computes_bf16
from drkun_tui.training.callback import RunCallback
from drkun_tui.training.checkpoints import aside_of, written
from drkun_tui.training.history import History
from drkun_tui.training.protocol import Backend, Warned
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.rendering import IGNORED, Renderer
from drkun_tui.training.runs import CHECKPOINTS

if TYPE_CHECKING:
    from drkun_tui.training.examples import Examples
    from drkun_tui.training.job import Teller

FUSED = importlib.util.find_spec("triton") is not None
"""Is there what TRL computes the loss through?"""

SAMPLE_TOKENS = 192
"""Most tokens of a sample answer."""


_NO_MEMORY = ("not enough memory", "can't allocate memory", "bad_alloc", "could not create a memory")
"""How PyTorch and the libraries below it say on a CPU that there is no more memory."""

LEAST_BYTES = 1 << 20
"""A disk with less free than this is full."""


class OutOfMemory(Exception):  # noqa: N818  # the trainer may try again
    """The memory was not enough for a step, or for the base."""


@contextmanager
def memory_watched() -> Iterator[None]:
    """A shortage of memory in the block is `OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory from error
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_MEMORY):
            raise OutOfMemory from error
        raise


def build(
    model: Any,
    tokenizer: Any,
    renderer: Renderer,
    data: Examples,
    recipe: Recipe,
    sizes: tuple[int, int],
    folder: Path,
    teller: Teller,
    history: History,
    *,
    backend: Backend,
) -> RunTrainer:
    """A trainer that can begin.

    Args:
        model: with a LoRA on it.
        sizes: sequences at once, and batches in one optimizer step.
        folder: the run's.
        history: is told the events, too.
    """
    training = recipe.training
    on_gpu = torch.cuda.is_available()
    adamw = "adamw_torch_fused" if on_gpu else "adamw_torch"
    optimizer = {"adamw": adamw}.get(training.optimizer, training.optimizer)
    if "8bit" in optimizer and not on_gpu:
        values: dict[str, str | int] = {"wanted": training.optimizer, "used": "adamw"}
        teller.event(Warned(kind="optimizer_replaced", values=values))
        optimizer = adamw
    # It plans attention anew for each length that it meets, which takes longer than a step.
    torch.backends.cuda.enable_cudnn_sdp(False)
    half = on_gpu and computes_bf16()
    arguments = SFTConfig(
        output_dir=str(folder / CHECKPOINTS),
        per_device_train_batch_size=sizes[0],
        per_device_eval_batch_size=sizes[0],
        gradient_accumulation_steps=sizes[1],
        max_steps=training.max_steps or -1,
        num_train_epochs=training.epochs or 1.0,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        lr_scheduler_type=training.scheduler,
        optim=optimizer,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        max_length=training.context_length,
        packing=training.packing,
        eval_packing=training.packing,
        # unsloth has its own.
        gradient_checkpointing=training.gradient_checkpointing and backend == "peft",
        seed=training.seed,
        data_seed=training.seed,
        bf16=half,
        fp16=on_gpu and not half,
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to=list(training.report_to) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
        run_name=recipe.adapter.name or None,
    )
    if not on_gpu:
        # Of several processes each is told "cpu:0", which the loader of checkpoints does not know.
        arguments.__dict__["_setup_devices"] = torch.device("cpu")
    trainer = RunTrainer(
        model=model,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )
    callback = RunCallback(trainer, recipe, renderer, data.sample, teller, history)
    trainer.add_callback(callback)
    # It prints what the events tell.
    trainer.remove_callback(PrinterCallback)
    trainer.own_loss = backend == "unsloth" or not on_gpu
    trainer.keep, trainer.teller, trainer.callback = training.keep_checkpoints, teller, callback
    # Others want the figures as Transformers logs them; of several processes they are gathered.
    trainer.tells_itself = not training.report_to and trainer.args.world_size == 1
    return trainer


class RunTrainer(SFTTrainer):
    """See the module."""

    keep = 1
    """Checkpoints that stay."""
    own_loss = False
    """Does the model bring its own way to compute the loss?"""
    stopped_early = False
    """Did somebody ask it to stop?"""
    teller: Teller
    callback: RunCallback
    tells_itself = False
    """Are the figures of a step told without waiting for them?"""

    _aside: Path | None = None

    def steps_to_make(self, sequences: int, in_step: int) -> int:
        """Optimizer steps of the whole run."""
        if self.args.max_steps > 0:
            return int(self.args.max_steps)
        return math.ceil(math.ceil(sequences / in_step) * self.args.num_train_epochs)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._aside) if self._aside else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, folder = self.state.global_step, Path(str(self.args.output_dir))
        self.teller.phase("saving")
        # Of several processes the first one makes the folder, and each writes its share.
        first = self.args.should_save
        with written(folder, step, self.keep) if first else nullcontext(aside_of(folder, step)) as aside:
            self.accelerator.wait_for_everyone()
            self._aside = aside
            try:
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, SafetensorError) as error:
                # Writers in other languages only say in words that the disk is full, and not always.
                full = shutil.disk_usage(aside).free < LEAST_BYTES
                number = errno.ENOSPC if full else errno.EIO
                raise OSError(number, os.strerror(number), str(aside.parent)) from error
            finally:
                self._aside = None
        self.callback.saved(step)
        self.teller.phase("training")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Left to itself, PEFT would gather a sharded base in every process, to leave it out again.
        super()._save(output_dir, trained_weights(self.model) if state_dict is None else state_dict)

    seen = 0
    """Tokens that this process has trained on, padding not counted."""

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """The mean over the response tokens of a batch.

        TRL computes it in chunks, without the whole of the logits, through Triton. Where there is none, as on
        a CPU, the model computes it as it always does; so it does under unsloth, which has its own kernels.
        """
        if FUSED and not self.own_loss:
            return super().compute_loss(model, inputs, *arguments, **options)
        # With a cache, Transformers takes packed examples for one long one.
        inputs = {**inputs, "use_cache": False}
        return Trainer.compute_loss(self, model, inputs, *arguments, **options)

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *arguments: Any, **options: Any) -> None:
        if self.tells_itself and self.control.should_log:
            # Transformers waits here for the GPU, which then waits for the next step to be prepared.
            self.control.should_log = False
            self._globalstep_last_logged = self.state.global_step
            rate = options.get("learning_rate")
            rate = self._get_learning_rate() if rate is None else rate
            self.callback.made(self.state, tr_loss, grad_norm, rate, now=self.control.should_save)
            tr_loss.zero_()
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *arguments, **options)

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """One forward and backward pass, its tokens counted."""
        self.callback.tell_made(wait=False)
        mask = inputs.get("attention_mask")
        self.seen += int(inputs["input_ids"].numel() if mask is None else mask.sum())
        return super().training_step(model, inputs, *arguments, **options)

    def load(self, checkpoint: Path) -> None:
        """Put the adapter of a checkpoint in place."""
        self._load_from_checkpoint(str(checkpoint))

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train to the end; a shortage of memory, in a step or in a look at the held-out loss, is
        `OutOfMemory`."""
        with memory_watched():
            return super().train(*arguments, **options)

    def everywhere(self, number: int) -> int:
        """The sum over all processes of the run, which all ask at the same step."""
        if self.args.world_size == 1:
            return number
        return int(self.accelerator.reduce(torch.tensor(number, device=self.args.device), "sum"))

    @property
    def skips(self) -> bool:
        """May a step whose gradient is no number have been left out? In float16 the scale of the loss begins
        too high and is halved until it fits; one that has fallen below 1 was not the reason."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    def held_out_loss(self) -> float:
        """Mean over the response tokens of all held-out examples, in nats."""
        total = torch.zeros((), dtype=torch.float64)
        count = 0
        model: Any = self.model
        was_training = model.training
        model.eval()
        with torch.no_grad():
            # Each of several processes looks at all of them: with shares of equal size, some count twice.
            examples: Any = self._remove_unused_columns(self.eval_dataset, description="evaluation")
            for batch in DataLoader(
                examples, self.args.per_device_eval_batch_size, collate_fn=self.data_collator
            ):
                inputs = self._prepare_inputs(batch)
                # The first token of a sequence is predicted by nothing.
                trained = int((inputs["labels"][..., 1:] != IGNORED).sum())
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, inputs)
                total += loss.double().cpu() * trained
                count += trained
        model.train(was_training)
        return float(total) / max(count, 1)

    def answer(self, prompt: str) -> str:
        """What the model goes on with, greedily."""
        model: Any = self.model
        tokenizer: Any = self.processing_class
        inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
        was_training = model.training
        model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            made = model.generate(
                **inputs,
                max_new_tokens=SAMPLE_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        model.train(was_training)
        return str(tokenizer.decode(made[0][inputs["input_ids"].shape[1] :]))
