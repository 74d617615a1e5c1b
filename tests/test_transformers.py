"""The Transformers engine on the CPU: the same answers as `generate`, adapters, reuse, stopping, faults."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from drkun_tui import hardware, i18n, profiles
from drkun_tui.engine.base import EngineError
from drkun_tui.engine.protocol import Failed, Finished, Generate, Loading, Partial, Ready
from drkun_tui.engine.transformers.engine import Transformers
from drkun_tui.engine.transformers.generic import GenericDecoder
from drkun_tui.engine.transformers.lean import LeanDecoder
from drkun_tui.engine.transformers.sampling import Picker
from drkun_tui.errors import DrkunError
from drkun_tui.library.plan import plan_load
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from tests.conftest import EngineProcess, Reply, user
from tests.transformers_models import (
    answer,
    generated,
    loaded,
    lora,
    plain,
    quiet,
    random_model,
    request,
    starter,
)

DIZZY = "最近总是头晕，应该怎么办？"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return starter(tmp_path_factory.mktemp("starter"))


@pytest.fixture(scope="session")
def engine(folder: Path) -> Transformers:
    """The bundled model in 32 bits."""
    return loaded(folder)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A small random Qwen3."""
    return random_model(tmp_path_factory.mktemp("small"), "qwen3", folder, tie_word_embeddings=True)


def opening(engine: Transformers, text: str = DIZZY) -> str:
    """The rendered prompt of one question."""
    return engine.prepare(Generate(id=0, messages=user(text))).opening


def refused(path: Path, **changes: Any) -> EngineError:
    with pytest.raises(EngineError) as raised:
        loaded(path, **changes)
    sentence = i18n.t(f"engine.{raised.value.kind}", **raised.value.values)
    assert "\n" not in sentence
    assert "{" not in sentence
    return raised.value


# The same answers as generate


def test_the_bundled_model_answers_as_generate_does(engine: Transformers, folder: Path) -> None:
    text, reason, _ = answer(engine, user(DIZZY))
    assert text.startswith("<think>")
    assert text == plain(folder, opening(engine))
    assert reason == "length"


def test_in_sixteen_bits_too(folder: Path) -> None:
    engine = loaded(folder, weights="half")
    assert answer(engine, user(DIZZY))[0] == plain(folder, opening(engine), dtype=torch.bfloat16)


def test_in_four_bits_too(folder: Path) -> None:
    engine = loaded(folder, weights="nf4")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    wanted = plain(folder, opening(engine), dtype=torch.bfloat16, quantization_config=config)
    assert answer(engine, user(DIZZY))[0] == wanted


KINDS: list[tuple[str, dict[str, Any], type]] = [
    ("qwen3", {"tie_word_embeddings": True}, LeanDecoder),
    ("qwen3", {"tie_word_embeddings": False}, LeanDecoder),
    ("qwen2", {"tie_word_embeddings": True}, LeanDecoder),
    ("qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 4}, LeanDecoder),
    ("llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}, LeanDecoder),
    (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        LeanDecoder,
    ),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}, GenericDecoder),
    ("gemma3_text", {"sliding_window": 32, "layer_types": None}, GenericDecoder),
    ("gpt_neox", {}, GenericDecoder),
]


@pytest.mark.parametrize(("kind", "changes", "decoder"), KINDS)
def test_every_kind_of_model_answers_as_generate_does(
    tmp_path: Path, folder: Path, kind: str, changes: dict[str, Any], decoder: type
) -> None:
    """The prompt in several batches; then a second turn over what is cached."""
    path = random_model(tmp_path / "model", kind, folder, **changes)
    engine = loaded(path)
    assert isinstance(engine._decoder, decoder)
    engine._batch = 5
    first = opening(engine)
    text, _, _ = answer(engine, user(DIZZY))
    assert text == plain(path, first)
    later = user(DIZZY, "好的", "还有别的办法吗？")
    second, _, reused = answer(engine, later)
    assert second == plain(path, engine.prepare(Generate(id=0, messages=later)).opening)
    assert reused > 10


def test_logits_are_those_of_transformers(small: Path) -> None:
    engine = loaded(small)
    engine.prepare(Generate(id=0, messages=user(DIZZY)))
    tokens = engine._prompt
    assert engine._evaluate(tokens, lambda: False)
    model = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32)
    with torch.inference_mode():
        wanted = model(torch.tensor([tokens])).logits[0, -1]
    torch.testing.assert_close(engine._picker.logits, wanted, rtol=1e-4, atol=1e-4)


def test_weights_are_not_held_twice(small: Path) -> None:
    engine = loaded(small)
    assert isinstance(engine._decoder, LeanDecoder)
    for layer in engine._decoder.layers:
        for projection in layer.projections:
            storage = projection.weight.untyped_storage().data_ptr()
            assert {linear.weight.untyped_storage().data_ptr() for linear in projection.linears} == {storage}


# Conversations


def test_a_settled_conversation_evaluates_only_what_is_new(engine: Transformers) -> None:
    answer(engine, user("你好"))
    asked = Generate(id=1, messages=user("你好"))
    engine.settle(asked, "您好。", lambda: False)
    messages = user("你好", "您好。", DIZZY)
    prompt = engine.prepare(Generate(id=2, messages=messages))
    assert prompt.tokens - prompt.reused_tokens < len(engine._tokenize(DIZZY)) + 16
    reused, _, _ = answer(engine, messages)
    engine._reuse([])
    fresh, _, count = answer(engine, messages)
    assert count == 0
    assert reused == fresh


def test_settling_gives_way_to_a_request(engine: Transformers) -> None:
    engine._reuse([])
    engine.settle(Generate(id=1, messages=user("你好")), "您好。", lambda: True)
    assert engine._cached == []


def test_a_cancel_within_a_long_prompt(engine: Transformers) -> None:
    engine._reuse([])
    engine._batch = 16
    asked = Generate(id=1, messages=user(DIZZY * 12))
    prompt = engine.prepare(asked)
    assert prompt.tokens > 80
    asks = iter([False, False, True])
    tokens = engine.generate(asked, prompt, lambda: next(asks))
    with pytest.raises(StopIteration) as end:
        next(tokens)
    assert end.value.value == "cancelled"
    assert len(engine._cached) in (32, 48)
    # What was evaluated is kept.
    assert engine.prepare(asked).reused_tokens == len(engine._cached)


def test_a_turn_ends_at_its_stop_token(engine: Transformers) -> None:
    text, reason, _ = answer(engine, user("你好"), Sampling(temperature=0, max_tokens=0))
    assert reason == "stop"
    assert "<|im_end|>" not in text
    assert text.endswith(("。", "？", "！"))


def test_the_template_tells_which_token_ends_a_turn(tmp_path: Path, folder: Path) -> None:
    """A model that declares another one, as fine-tunes do."""
    copy = shutil.copytree(folder, tmp_path / "other")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if (file := copy / name).exists():
            file.write_text(
                file.read_text("utf8").replace("8178", "8177").replace('"<|im_end|>"', '"<|endoftext|>"'),
                "utf8",
            )
    engine = loaded(copy)
    assert engine._tokenize("<|im_end|>")[0] in engine._stops
    assert answer(engine, user("你好"), Sampling(temperature=0, max_tokens=0))[1] == "stop"


def test_the_context_is_the_end(engine: Transformers) -> None:
    sampling = Sampling(temperature=0, repeat_penalty=0.5, max_tokens=0)
    _, reason, _ = answer(engine, user(DIZZY), sampling)
    assert reason == "length"
    assert len(engine._cached) == 255


def test_a_cut_off_answer_is_carried_on(engine: Transformers, folder: Path) -> None:
    """From its last character on, as the same model would from there."""
    whole, _, _ = answer(engine, user(DIZZY), Sampling(temperature=0, repeat_penalty=1, max_tokens=60))
    thinking, _, reply = whole.removeprefix("<think>\n").partition("\n</think>\n\n")
    assert reply
    carried = Partial(thinking, reply)
    rest, _, reused = answer(engine, user(DIZZY), resume=carried)
    asked = Generate(id=0, messages=user(DIZZY), resume=carried)
    prompt = engine.prepare(asked)
    assert prompt.carried == whole
    assert reused > 20
    assert rest == plain(folder, prompt.opening + whole)


def test_chinese_text_arrives_whole(engine: Transformers) -> None:
    """Characters whose bytes are spread over tokens are held back until they are complete."""
    asked = Generate(id=1, messages=user(DIZZY), sampling=Sampling(temperature=0, max_tokens=60))
    pieces = list(engine.generate(asked, engine.prepare(asked), lambda: False))
    assert len(pieces) == 60
    assert not any("\ufffd" in piece for piece in pieces)


# Sampling


def test_a_seed_repeats_an_answer(engine: Transformers) -> None:
    def sampled(seed: int) -> str:
        engine._reuse([])
        return answer(engine, user(DIZZY), Sampling(temperature=1.5, top_k=0, top_p=1, seed=seed))[0]

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_the_narrowest_sampling_is_greedy(engine: Transformers) -> None:
    greedy, _, _ = answer(engine, user(DIZZY))
    for narrow in (
        Sampling(temperature=1, top_k=1, repeat_penalty=1, max_tokens=48),
        Sampling(temperature=1, top_p=1e-6, top_k=0, repeat_penalty=1, max_tokens=48),
    ):
        assert answer(engine, user(DIZZY), narrow)[0] == greedy


def picked(logits: torch.Tensor, sampling: Sampling, recent: list[int], draws: int) -> torch.Tensor:
    """How often each token was drawn."""
    picker = Picker(len(logits), draws, torch.device("cpu"))
    picker.begin(sampling, 7, 0, [])
    counts = torch.zeros(len(logits))
    for position in range(draws):
        picker.begin(sampling, 7 + position, 0, recent)
        picker.logits.copy_(logits)
        picker.pick_sampled()
        counts[picker.chosen[0]] += 1
    return counts / draws


def test_draws_follow_the_distribution() -> None:
    """Against the definition of each stage, in the order that the llama.cpp engine has them."""
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, -1.0, -2.0, 3.0])
    sampling = Sampling(temperature=0.7, top_k=5, top_p=0.9, repeat_penalty=1.5)
    penalised = logits.clone()
    penalised[6] /= 1.5
    penalised[4] *= 1.5
    order = penalised.argsort(descending=True)[:5]
    likely = penalised[order].softmax(0)
    kept = order[: int((likely.cumsum(0) < 0.9).sum()) + 1]
    wanted = torch.zeros(7)
    wanted[kept] = (penalised[kept] / 0.7).softmax(0)
    assert 1 < len(kept) < 5
    counts = picked(logits, sampling, [6, 4, 6], 4000)
    assert (counts[wanted == 0] == 0).all()
    torch.testing.assert_close(counts, wanted, atol=0.03, rtol=0)


def test_the_penalty_forgets_after_64_tokens() -> None:
    picker = Picker(100, 200, torch.device("cpu"))
    picker.begin(Sampling(repeat_penalty=2), 0, 0, [])
    scores = torch.linspace(2, 1, 100)
    chosen = []
    for position in range(130):
        picker.position.fill_(position)
        picker.logits.copy_(scores)
        picker.pick_greedy()
        chosen.append(int(picker.token))
    assert chosen[:64] == list(range(64))
    assert chosen[65] == 0


# Adapters


@pytest.mark.parametrize("weights", ["full", "nf4"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 9}},
        {"use_dora": True},
    ],
)
def test_an_adapter_answers_as_peft_does(
    tmp_path: Path, folder: Path, small: Path, weights: str, more: dict[str, Any]
) -> None:
    adapter = lora(tmp_path / "lora", small, **more)
    engine = loaded(small, weights=weights, adapter=str(adapter))
    options: dict[str, Any] = {"dtype": torch.float32}
    if weights == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        options = {"dtype": torch.bfloat16, "quantization_config": config}
    model = AutoModelForCausalLM.from_pretrained(small, **options)
    with_peft = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
    text, _, _ = answer(engine, user(DIZZY), Sampling(temperature=0, repeat_penalty=1, max_tokens=16))
    # In 16 bits, two likely tokens of a random model may change places, on one processor and not on another.
    same = 4 if weights == "nf4" else len(text)
    assert text[:same] == generated(with_peft, small, opening(engine), 16)[:same]
    bare = loaded(small, weights=weights)
    assert answer(bare, user(DIZZY))[0][:10] != text[:10]


def test_adapters_are_changed_without_a_trace(tmp_path: Path, small: Path) -> None:
    one, other = lora(tmp_path / "one", small, 1), lora(tmp_path / "other", small, 2, ["q_proj", "v_proj"])
    engine = loaded(small)
    bare, _, _ = answer(engine, user(DIZZY))
    before = {name: value.clone() for name, value in engine._model.state_dict().items()}
    engine.set_adapter(str(one), 1.0)
    with_one, _, reused = answer(engine, user(DIZZY))
    assert reused == 0
    engine.set_adapter(str(other), 0.5)
    with_other, _, _ = answer(engine, user(DIZZY))
    assert with_other == answer(loaded(small, adapter=str(other), adapter_scale=0.5), user(DIZZY))[0]
    engine.set_adapter(str(one), 1.0)
    assert answer(engine, user(DIZZY))[0] == with_one
    assert len({bare, with_one, with_other}) == 3
    engine.set_adapter(None, 1.0)
    after = engine._model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert answer(engine, user(DIZZY))[0] == bare


@pytest.mark.parametrize("case", ["other base", "other layers", "pickle", "damaged", "missing"])
def test_an_adapter_that_cannot_be_attached_leaves_the_one_before(
    tmp_path: Path, folder: Path, small: Path, case: str
) -> None:
    good = lora(tmp_path / "good", small)
    bad = tmp_path / "bad"
    if case == "other base":
        lora(bad, folder)
    elif case == "other layers":
        deeper = random_model(tmp_path / "deeper", "qwen3", folder, num_hidden_layers=5)
        lora(bad, deeper)
    elif case != "missing":
        shutil.copytree(good, bad)
        weights = bad / "adapter_model.safetensors"
        if case == "pickle":
            torch.save(load_file(weights), bad / "adapter_model.bin")
            weights.unlink()
        else:
            weights.write_bytes(weights.read_bytes()[:1000])
    engine = loaded(small, adapter=str(good))
    before, _, _ = answer(engine, user(DIZZY))
    with pytest.raises(EngineError) as raised:
        engine.set_adapter(str(bad), 1.0)
    assert raised.value.kind == "adapter_failed"
    assert raised.value.values["file"] == "bad"
    assert answer(engine, user(DIZZY))[0] == before
    assert refused(small, adapter=str(bad)).kind == "adapter_failed"


# Loading, and its faults


def test_a_load_tells_its_progress_and_what_was_loaded(folder: Path) -> None:
    events: list[Any] = []
    ready = Transformers().load(request(folder), events.append)
    assert all(isinstance(event, Loading) for event in events)
    fractions = [event.fraction for event in events if event.stage == "weights"]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(fractions) > 10
    assert (ready.engine, ready.architecture, ready.context_length) == ("transformers", "qwen3", 256)
    assert 26_000_000 < ready.parameters < 27_000_000
    assert 100_000_000 < ready.size_bytes < 110_000_000
    assert (ready.has_template, ready.can_toggle_thinking, ready.cpu_layers) == (True, True, 0)


@pytest.mark.parametrize("case", ["truncated", "pickle", "unknown", "no weights", "no tokenizer", "code"])
def test_a_folder_that_cannot_be_loaded_is_one_line(tmp_path: Path, small: Path, case: str) -> None:
    copy = shutil.copytree(small, tmp_path / "model")
    weights, config = copy / "model.safetensors", copy / "config.json"
    if case == "truncated":
        weights.write_bytes(weights.read_bytes()[:20_000])
    elif case == "pickle":
        torch.save(load_file(weights), copy / "pytorch_model.bin")
        weights.unlink()
    elif case == "unknown":
        config.write_text(config.read_text("utf8").replace('"qwen3"', '"no_such_model"'), "utf8")
    elif case == "no weights":
        weights.unlink()
    elif case == "no tokenizer":
        for file in copy.glob("token*"):
            file.unlink()
    else:
        (copy / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
        config.write_text(
            config.read_text("utf8")
            .replace('"qwen3"', '"own"')
            .replace("{", '{"auto_map": {"AutoConfig": "trap.C", "AutoModelForCausalLM": "trap.M"},', 1),
            "utf8",
        )
    error = refused(copy)
    assert (error.kind, error.values["file"]) == ("load_failed", "model")
    assert error.values["reason"]
    assert not (tmp_path / "sprung").exists()


def test_a_recurrent_model_is_refused(tmp_path: Path, folder: Path) -> None:
    path = random_model(tmp_path / "model", "mamba", folder, state_size=8, intermediate_size=128)
    error = refused(path)
    assert error.kind == "load_failed"
    assert "mamba" in str(error.values["reason"])


def test_weights_that_are_no_numbers_are_noticed(tmp_path: Path, small: Path) -> None:
    copy = shutil.copytree(small, tmp_path / "model")
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert refused(copy).kind == "not_numbers"


@pytest.mark.skipif(torch.version.cuda is not None, reason="a build with CUDA")
def test_a_build_without_cuda(small: Path) -> None:
    assert refused(small, device="cuda").kind == "torch_without_cuda"


# Through the engine process


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("engine") / "engine.log") as process:
        process.send(request(folder))
        assert isinstance(process.until(Ready, Failed)[-1], Ready)
        yield process


def test_the_engine_process_speaks_the_same_protocol(process: EngineProcess) -> None:
    reply = process.ask(user(DIZZY), Sampling(temperature=0, repeat_penalty=1, max_tokens=60))
    assert reply.thinking.startswith("患者想了解")
    assert reply.answer
    assert reply.finished.finish_reason == "length"
    assert reply.finished.usage.thinking_tokens + reply.finished.usage.answer_tokens == 60
    without = process.ask(user(DIZZY), Sampling(temperature=0, max_tokens=20), think=False)
    assert without.thinking == ""


def test_a_question_that_does_not_fit(process: EngineProcess) -> None:
    assert process.ask(user(DIZZY * 60)).failed.kind == "prompt_too_long"
    assert process.ask(user("你好")).finished.finish_reason == "stop"


def test_a_cancel_while_it_answers(process: EngineProcess) -> None:
    from drkun_tui.engine.protocol import Cancel, Delta

    asked = process.request(user(DIZZY), Sampling(temperature=0, repeat_penalty=0.5, max_tokens=0))
    process.send(asked)
    begun = process.until(Delta)
    process.send(Cancel(asked.id))
    reply = Reply([*begun, *process.until(Finished, Failed)])
    assert reply.finished.finish_reason == "cancelled"


# From the settings to the answer


def test_a_base_model_is_planned_and_answers_from_the_command_line(
    tmp_path: Path, folder: Path, small: Path
) -> None:
    adapter = lora(tmp_path / "adapter", folder)
    plan = plan_load(Settings(model=str(folder), adapter=str(adapter), profile="cpu", context_length=1024))
    assert (plan.load.engine, plan.load.device, plan.load.weights) == ("transformers", "cpu", "half")
    assert plan.load.adapter == str(adapter)
    assert plan.load.context_length == 1024
    command = [sys.executable, "-m", "drkun_tui", "ask", "--model", str(folder), "--adapter", str(adapter)]
    command += ["--json", "--max-tokens", "24", "--temperature", "0", "--context", "1024", "你好"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["engine"] == "transformers"
    assert told["thinking"] + told["answer"]
    assert told["usage"]["thinking_tokens"] + told["usage"]["answer_tokens"] == 24


def test_an_adapter_for_another_base_is_refused_before_loading(
    tmp_path: Path, folder: Path, small: Path
) -> None:
    adapter = lora(tmp_path / "adapter", small)
    with pytest.raises(DrkunError) as caught:
        plan_load(Settings(model=str(folder), adapter=str(adapter), profile="cpu"))
    assert caught.value.kind == "adapter_mismatch"


def test_what_does_not_fit_a_gpu_is_refused_with_what_would(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    card = hardware.Gpu("NVIDIA Made Up", 2**30, 2**20, "nvidia", "nvidia")
    machine = hardware.Hardware("cpu", 4, 8, 2**34, 2**34, [card])
    monkeypatch.setattr(hardware, "read", lambda: machine)
    monkeypatch.setattr(profiles, "torch_has_cuda", lambda: True)
    assert plan_load(Settings(model=str(folder))).load.device == "cpu"
    with pytest.raises(DrkunError) as caught:
        plan_load(Settings(model=str(folder), profile="gpu16"))
    assert caught.value.kind == "does_not_fit"
    assert "1 MiB" in caught.value.message
