"""The Transformers engine on a real GPU: right answers from its own kernels, and memory that comes back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from benchmarks.gpu import Engine
from drkun_tui import hardware
from drkun_tui.engine.protocol import ChatMessage, Generate, Load, Ready
from drkun_tui.engine.transformers.engine import Transformers
from tests.transformers_models import PLAIN, lora, starter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

QUESTION = "最近总是头晕，应该怎么办？"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return starter(tmp_path_factory.mktemp("starter"))


def load(path: Path, weights: str, adapter: Path | None = None) -> Transformers:
    engine = Transformers()
    request = Load(
        path=str(path),
        context_length=2048,
        threads=2,
        engine="transformers",
        device="cuda",
        weights=weights,  # type: ignore[arg-type]
        adapter=str(adapter) if adapter else None,
    )
    engine.load(request, lambda _: None)
    return engine


def answer(engine: Transformers) -> str:
    request = Generate(id=1, messages=[ChatMessage("user", QUESTION)], sampling=PLAIN)
    prompt = engine.prepare(request)
    return "".join(engine.generate(request, prompt, lambda: False))


def generated(path: Path, weights: str, adapter: Path | None = None) -> str:
    """What Transformers' own ``generate`` makes of the same prompt."""
    settings: dict[str, Any] = {"dtype": torch.bfloat16}
    if weights == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model: Any = AutoModelForCausalLM.from_pretrained(path, device_map={"": 0}, **settings)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    asked = [{"role": "user", "content": QUESTION}]
    text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids.cuda()
    out = model.generate(ids, do_sample=False, max_new_tokens=PLAIN.max_tokens)[0, ids.shape[1] :]
    return str(tokenizer.decode(out, skip_special_tokens=True))


@pytest.mark.parametrize("weights", ["half", "nf4"])
@pytest.mark.parametrize("adapted", [False, True])
def test_the_kernels_answer_as_generate_does(
    tmp_path: Path, folder: Path, weights: str, adapted: bool
) -> None:
    """Rounding differs, so that two likely tokens may change places; most of the answer is the same."""
    adapter = lora(tmp_path / "lora", folder) if adapted else None
    engine = load(folder, weights, adapter)
    assert engine._decoder_in_use.fused
    ours, theirs = answer(engine), generated(folder, weights, adapter)
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
    assert same >= 12, (ours, theirs)


@pytest.mark.parametrize("weights", ["half", "nf4"])
def test_a_second_turn_evaluates_only_its_own_tokens(folder: Path, weights: str) -> None:
    engine = load(folder, weights)
    sampling = msgspec.structs.replace(PLAIN, max_tokens=0)
    first = [ChatMessage("user", QUESTION)]
    request = Generate(id=1, messages=first, sampling=sampling)
    text = "".join(engine.generate(request, engine.prepare(request), lambda: False))
    said = text.rpartition("</think>")[2].strip()
    engine.settle(request, said, lambda: False)
    own = engine.prepare(Generate(id=2, messages=[ChatMessage("user", "需要做哪些检查？")])).tokens
    engine.settle(request, said, lambda: False)
    past = [*first, ChatMessage("assistant", said), ChatMessage("user", "需要做哪些检查？")]
    prompt = engine.prepare(Generate(id=3, messages=past))
    assert prompt.tokens - prompt.reused_tokens <= own


def test_a_seed_repeats_an_answer_on_the_gpu(folder: Path) -> None:
    engine = load(folder, "half")
    assert answer(engine) == answer(engine)


def test_killing_the_engine_gives_the_memory_back(tmp_path: Path, folder: Path) -> None:
    def free() -> int:
        card = hardware.read().nvidia
        assert card is not None
        return card.free_bytes

    before = free()
    engine = Engine(tmp_path / "log")
    with engine:
        engine.send(
            Load(path=str(folder), context_length=2048, threads=2, engine="transformers", device="cuda")
        )
        engine.until(Ready)
        assert free() < before - 100_000_000
        engine._process.kill()
        engine._process.wait(30)
    for _ in range(50):
        if free() > before - 50_000_000:
            return
        time.sleep(0.1)
    raise AssertionError(f"{before - free():,} bytes are still taken")
