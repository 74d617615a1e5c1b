"""The Transformers engine on a real GPU: right answers from its own kernels, and memory that comes back."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from benchmarks.gpu import Engine
from drkun_tui import hardware
from drkun_tui.engine.base import EngineError
from drkun_tui.engine.protocol import ChatMessage, Delta, Generate, Load, Loading, Ready
from drkun_tui.engine.transformers.engine import Transformers
from drkun_tui.engine.transformers.lean import LeanDecoder
from drkun_tui.sampling import Sampling
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
    """To the last token in sixteen bits. With fewer, or a random adapter, two likely tokens may change places
    where rounding differs; then the beginning is the same."""
    adapter = lora(tmp_path / "lora", folder) if adapted else None
    engine = load(folder, weights, adapter)
    assert engine._decoder_in_use.fused
    ours, theirs = answer(engine), generated(folder, weights, adapter)
    if weights == "half" and not adapted:
        assert ours == theirs.rstrip("\ufffd")
        return
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
    assert same >= 12, (ours, theirs)


@pytest.mark.parametrize("weights", ["half", "nf4"])
@pytest.mark.parametrize("adapted", [False, True])
def test_the_kernels_logits_are_those_of_the_plain_forward(
    tmp_path: Path, folder: Path, weights: str, adapted: bool
) -> None:
    """At both ends of the blocks that attention reads. Each layer rounds to eight bits of mantissa, a 256th;
    a term that is left out changes logits by as much as they vary."""
    engine = load(folder, weights, lora(tmp_path / "lora", folder) if adapted else None)
    decoder, picker = engine._decoder, engine._picker
    assert isinstance(decoder, LeanDecoder) and decoder.fused
    engine.prepare(Generate(id=1, messages=[ChatMessage("user", QUESTION * 60)], sampling=PLAIN))
    tokens = engine._prompt
    last = len(tokens) - 1
    assert last > 300
    decoder.evaluate(tokens, 0)
    for position in (0, 1, 15, 16, 63, 64, 65, 255, 256, last):
        picker.position.fill_(position)
        picker.token.fill_(tokens[position])
        decoder.step(position)
        fused = picker.logits.clone()
        assert int(picker.position) == position + 1
        # Without the graph, the same step is the plain forward; it writes the same place of the cache.
        decoder.evaluate([tokens[position]], position)
        plain = picker.logits.clone()
        wrong, spread = (fused - plain).float(), float(plain.std())
        assert float(wrong.square().mean().sqrt()) < 0.03 * spread, position
        assert float(wrong.abs().max()) < 0.15 * spread, position


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


def test_a_captured_step_writes_to_nothing_but_its_own(folder: Path) -> None:
    engine = load(folder, "half")
    # Whatever of its memory had been given back would be handed out here.
    held = [torch.zeros(size, device="cuda") for size in (1, 128, 512, 1024, 4096, 16384) for _ in range(200)]
    assert answer(engine)
    assert not any(bool(tensor.any()) for tensor in held)


def test_a_seed_repeats_an_answer_on_the_gpu(folder: Path) -> None:
    engine = load(folder, "half")
    assert answer(engine) == answer(engine)


def free() -> int:
    """Bytes that NVML says are free on the card."""
    card = hardware.read().nvidia
    assert card is not None
    return card.free_bytes


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A model that takes a while to load: some 3 GB of random weights."""
    made = tmp_path_factory.mktemp("heavy")
    config = AutoConfig.for_model(
        "qwen3", hidden_size=2560, intermediate_size=9728, num_hidden_layers=12, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, vocab_size=8192, max_position_embeddings=8192,
    )  # fmt: skip
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(made, max_shard_size="200MB")
    AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    del model
    torch.cuda.empty_cache()
    return made


@pytest.mark.parametrize("moment", ["in mid-load", "loaded", "in mid-answer"])
def test_killing_the_engine_gives_the_memory_back(tmp_path: Path, heavy: Path, moment: str) -> None:
    before = free()
    engine = Engine(tmp_path / "log")
    with engine:
        engine.send(
            Load(path=str(heavy), context_length=2048, threads=2, engine="transformers", device="cuda")
        )
        if moment == "in mid-load":
            while True:
                (_, event) = engine.until(Loading)[-1]
                assert isinstance(event, Loading) and event.stage != "warmup"
                if event.stage == "weights" and event.fraction > 0:
                    break
        else:
            engine.until(Ready)
        if moment == "in mid-answer":
            sampling = Sampling(temperature=0, repeat_penalty=1, max_tokens=1500)
            engine.send(Generate(id=1, messages=[ChatMessage("user", QUESTION)], sampling=sampling))
            engine.until(Delta)
        assert free() < before - 300_000_000
        engine._process.kill()
        engine._process.wait(30)
    for _ in range(100):
        if free() > before - 50_000_000:
            return
        time.sleep(0.1)
    raise AssertionError(f"{before - free():,} bytes are still taken")


def test_a_full_card_ends_the_answer_and_not_the_engine(folder: Path) -> None:
    """Every byte it may still have is taken while it answers; given back, it answers as before."""
    engine = load(folder, "half")
    said = answer(engine)
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 2**21
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    held = []
    try:
        for size in (2**20, 2**16, 2**9):
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        request = Generate(id=2, messages=[ChatMessage("user", QUESTION * 60)], sampling=PLAIN)
        with pytest.raises(EngineError) as raised:
            "".join(engine.generate(request, engine.prepare(request), lambda: False))
    finally:
        held.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert raised.value.kind == "gpu_out_of_memory"
    assert int(raised.value.values["smaller"]) < 2048
    assert answer(engine) == said
