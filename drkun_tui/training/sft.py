"""Supervised fine-tuning of a LoRA: TRL's trainer, told about in the run's events.

unsloth trains where it is installed and the GPU is supported; everywhere else PEFT does, with bitsandbytes on
an NVIDIA GPU. Recipe, events and adapter are the same.
"""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from drkun_tui.settings import Settings
from drkun_tui.training import adapter, base_model, preflight, ranks
from drkun_tui.training.checkpoints import newest
from drkun_tui.training.examples import Examples
from drkun_tui.training.faults import StopRequested, TrainingError
from drkun_tui.training.history import History
from drkun_tui.training.protocol import (
    Backend,
    Began,
    Finished,
    Planned,
    Stopped,
    Warned,
    decode,
)
from drkun_tui.training.recipe import Recipe
from drkun_tui.training.rendering import Renderer
from drkun_tui.training.runs import CHECKPOINTS, DATA

if TYPE_CHECKING:
    from drkun_tui.training.job import Teller


def train(recipe: Recipe, settings: Settings, folder: Path, teller: Teller) -> None:
    """From the recipe to the adapter, or to a checkpoint when somebody asks to stop.

    Args:
        recipe: with the adapter's name.
        settings: where models are looked for.
        folder: the run's.
        teller: is told everything.

    Raises:
        TrainingError: it cannot go on.
        StopRequested: somebody asked to stop before there was anything to save.
        DrkunError: the base or the data cannot be used.
    """
    backend, why_not = _backend(recipe)
    if backend == "unsloth":
        try:
            # It changes the other libraries, and wants to be there before they are.
            import unsloth  # noqa: F401
        except Exception as error:
            # Built for other versions of the libraries, or of CUDA, it fails in many ways.
            backend, why_not = "peft", _told(error)
    if why_not:
        teller.event(Warned(kind="no_unsloth", values={"reason": why_not}))
    teller.phase("preparing")
    base = preflight.find_base(recipe, settings)
    target = preflight.adapter_folder(recipe.adapter.name)
    if target.exists():
        if not adapter.is_of(target, folder.name):
            raise TrainingError("adapter_exists", name=recipe.adapter.name)
        # It was killed between its last act and telling of it.
        _finish(_so_far(folder), target, teller)
        return
    place, base_name, said = base_model.on_disk(base)
    if said is not None:
        teller.event(said)
    tokenizer = base_model.tokenizer_of(place)
    renderer = Renderer(tokenizer, recipe.data.template)
    # One process prepares them, the others find them.
    with filelock.FileLock(folder / "data.lock"):
        data = Examples(recipe, folder / DATA, renderer, teller)
    teller.event(data.prepared)
    teller.phase("loading")
    _stop_here(teller)
    done = _trained(recipe, place, tokenizer, renderer, data, backend, folder, teller)
    if done is None:
        return
    if ranks.rank():
        return
    trainer, history = done
    teller.phase("finishing")
    adapter.write(
        trainer.model,
        tokenizer,
        target,
        run=folder.name,
        recipe=recipe,
        base=base,
        base_name=base_name,
        reasons=data.reasons,
        fingerprint=data.prepared.fingerprint,
        history=history,
    )
    _finish(history, target, teller)


def _finish(history: History, target: Path, teller: Teller) -> None:
    last = history.held_out[-1].loss if history.held_out else None
    teller.event(Finished(step=history.step, folder=str(target), held_out_loss=last))
    teller.phase("done")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _stop_here(teller: Teller) -> None:
    if teller.stop_requested:
        raise StopRequested


def _backend(recipe: Recipe) -> tuple[Backend, str]:
    """What trains, and why it is not unsloth where that was asked for."""
    import torch

    if recipe.training.backend == "peft" or recipe.training.sharding == "full":
        return "peft", ""
    why = ""
    if importlib.util.find_spec("unsloth") is None:
        why = "not installed"
    elif not torch.cuda.is_available():
        why = "no GPU"
    if not why:
        return "unsloth", ""
    return "peft", why if recipe.training.backend == "unsloth" else ""


def _trained(
    recipe: Recipe,
    place: Path,
    tokenizer: Any,
    renderer: Renderer,
    data: Examples,
    backend: Backend,
    folder: Path,
    teller: Teller,
) -> tuple[Any, History] | None:
    """The trainer at its last step with what it has told; None when it was asked to stop before."""
    import torch

    # Imported late, behind unsloth.
    from drkun_tui.training.trainer import OutOfMemory, build

    sizes = (recipe.training.batch_size, recipe.training.gradient_accumulation)
    model, backend = _loaded(place, recipe, backend, teller)
    fresh = [(each, each.detach().to("cpu", copy=True)) for each in model.parameters() if each.requires_grad]
    for attempt in (1, 2):
        checkpoint = newest(folder / CHECKPOINTS)
        history = _so_far(folder)
        trainer = build(
            model, tokenizer, renderer, data, recipe, sizes, folder, teller, history, backend=backend
        )
        teller.event(_planned(trainer, recipe, sizes, data, backend))
        step = checkpoint.step if checkpoint else 0
        history.add(Began(step=step))
        teller.event(Began(step=step))
        if checkpoint and checkpoint.is_last:
            # It was killed between its last step and its adapter; Transformers would make one more.
            trainer.load(checkpoint.path)
            return trainer, history
        teller.phase("training")
        short = False
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        except OutOfMemory as error:
            if attempt == 2:
                raise TrainingError("out_of_memory") from error
            if sizes[0] == 1 or ranks.world() > 1:
                raise TrainingError("out_of_memory_once", batch_size=sizes[0]) from error
            short = True
        if short:
            sizes = (sizes[0] // 2, sizes[1] * 2)
            values: dict[str, str | int] = {"batch_size": sizes[0], "gradient_accumulation": sizes[1]}
            teller.event(Warned(kind="half_batch", values=values))
            # The error held what was computed; trainer and callbacks hold each other.
            del trainer
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            with torch.no_grad():
                for parameter, before in fresh:
                    parameter.copy_(before)
                    parameter.grad = None
            continue
        if trainer.stopped_early:
            saved = newest(folder / CHECKPOINTS)
            teller.event(Stopped(step=saved.step if saved else 0))
            teller.phase("stopped")
            return None
        return trainer, history
    return None


def _so_far(folder: Path) -> History:
    from drkun_tui.jobs import detached

    return History.of(detached.events(folder, decode))


def _loaded(place: Path, recipe: Recipe, backend: Backend, teller: Teller) -> tuple[Any, Backend]:
    """The base with a fresh LoRA on it, and what trains it: PEFT also where unsloth refuses the base."""
    from drkun_tui.training.trainer import OutOfMemory, memory_watched

    try:
        if backend == "unsloth":
            try:
                with memory_watched():
                    return _by_unsloth(place, recipe), backend
            except OutOfMemory:
                raise
            except Exception as error:
                teller.event(Warned(kind="no_unsloth", values={"reason": _told(error)}))
            gc.collect()
        with memory_watched():
            return _by_peft(place, recipe), "peft"
    except OutOfMemory as error:
        raise TrainingError("out_of_memory_base", name=recipe.base.model) from error


def _by_unsloth(place: Path, recipe: Recipe) -> Any:
    from unsloth import FastLanguageModel

    chosen = recipe.adapter
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(place),
        max_seq_length=recipe.training.context_length,
        load_in_4bit=base_model.precision(recipe) == "nf4",
        local_files_only=True,
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=chosen.rank,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules=list(chosen.targets),
        bias="none",
        use_gradient_checkpointing="unsloth" if recipe.training.gradient_checkpointing else False,
        random_state=recipe.training.seed,
    )


def _by_peft(place: Path, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    chosen = recipe.adapter
    # PEFT's `prepare_model_for_kbit_training` would turn embeddings and norms into 32 bits, and with them all
    # that flows between the layers; they are frozen, and good in 16.
    model = base_model.load(place, recipe)
    # The LoRA begins with numbers drawn from the seed.
    set_seed(recipe.training.seed)
    return get_peft_model(
        model,
        LoraConfig(
            r=chosen.rank,
            lora_alpha=chosen.alpha,
            lora_dropout=chosen.dropout,
            target_modules=list(chosen.targets),
            task_type="CAUSAL_LM",
        ),
    )


def _planned(
    trainer: Any, recipe: Recipe, sizes: tuple[int, int], data: Examples, backend: Backend
) -> Planned:
    import torch

    sequences = len(trainer.train_dataset)
    in_step = sizes[0] * sizes[1] * ranks.world()
    parameters = [(p.numel(), p.requires_grad) for p in trainer.model.parameters()]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return Planned(
        backend=backend,
        device=device if ranks.world() == 1 else f"{ranks.world()} x {device}",
        sharded=base_model.is_sharded(recipe),
        total_steps=trainer.steps_to_make(sequences, in_step),
        rows_per_step=in_step * len(data.train) / max(sequences, 1),
        batch_size=sizes[0],
        gradient_accumulation=sizes[1],
        trainable_parameters=sum(count for count, trained in parameters if trained),
        parameters=sum(count for count, _ in parameters),
    )
