"""The tutorials' way to fine-tune: unsloth, a text column, no packing, 2 x 4 rows in each step.

Run as ``python -m benchmarks.children.tutorial_train FOLDER DATA.csv STEPS`` on a machine with a GPU. Prints
one JSON object: tokens of text (padding not counted) a second behind the first steps, and peak memory.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# First: it changes the others.
# isort: split
import unsloth

# isort: split
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

LENGTH = 2048
LONGEST_ANSWER = 200
"""Characters."""
WARM_UP = 5
"""Steps that are not counted."""
TEXT = "### 问题：\n{}\n\n### 回答：\n{}{}"


class Counted(SFTTrainer):
    """Counts tokens of text."""

    seen = 0

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """One batch; unsloth leaves the padding and its mask away where it can."""
        mask = inputs.get("attention_mask")
        self.seen += int(inputs["input_ids"].numel() if mask is None else mask.sum())
        loss: Any = super().training_step(model, inputs, *arguments, **options)  # type: ignore[no-untyped-call]
        return loss


class Clock(TrainerCallback):
    """Notes time and tokens when the warm-up is over."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.began, self.before = 0.0, 0

    def on_step_end(self, *arguments: Any, **_: Any) -> None:
        """Look at the clock."""
        if arguments[1].global_step == WARM_UP:
            torch.cuda.synchronize()
            self.began, self.before = time.perf_counter(), self.trainer.seen


def main() -> None:
    """Train, print."""
    folder, data, steps = sys.argv[1:]
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        model_name=folder, max_seq_length=LENGTH, load_in_4bit=True, local_files_only=True
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        lora_dropout=0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=3407,
    )
    with Path(data).open(encoding="gb18030", errors="replace", newline="") as file:
        rows = [row for row in csv.DictReader(file) if len(row["answer"]) <= LONGEST_ANSWER]
    texts = [TEXT.format(row["ask"], row["answer"], tokenizer.eos_token) for row in rows]
    with tempfile.TemporaryDirectory() as output:
        clock = Clock()
        trainer = Counted(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"text": texts}),
            callbacks=[clock],
            args=SFTConfig(
                output_dir=output,
                dataset_text_field="text",
                max_length=LENGTH,
                packing=False,
                per_device_train_batch_size=2,
                gradient_accumulation_steps=4,
                warmup_steps=5,
                max_steps=int(steps),
                learning_rate=2e-4,
                logging_steps=1,
                optim="adamw_8bit",
                weight_decay=0.01,
                lr_scheduler_type="linear",
                seed=3407,
                bf16=True,
                report_to="none",
                save_strategy="no",
            ),
        )
        clock.trainer = trainer
        trainer.train()
        torch.cuda.synchronize()
    told = {
        "tok_s": (trainer.seen - clock.before) / (time.perf_counter() - clock.began),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "rows_per_step": 8.0,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
