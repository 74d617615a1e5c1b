"""What goes wrong in the Transformers engine: out of memory, adapters half merged, no numbers, no GPU.

Where a GPU would be needed, what it would do is put in the place of a function.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import check_device_map  # type: ignore[import-untyped]
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from drkun_tui import i18n
from drkun_tui.engine.base import EngineError
from drkun_tui.engine.protocol import Generate
from drkun_tui.engine.transformers import loading, memory
from drkun_tui.engine.transformers.engine import Transformers
from drkun_tui.engine.transformers.generic import GenericDecoder
from drkun_tui.engine.transformers.lean import LeanDecoder
from drkun_tui.engine.transformers.placement import blocks, is_layer, place
from tests.conftest import user
from tests.transformers_models import (
    PLAIN,
    SMALL,
    answer,
    generated,
    loaded,
    lora,
    quiet,
    random_model,
    request,
    starter,
)

DIZZY = "最近总是头晕，应该怎么办？"
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return starter(tmp_path_factory.mktemp("starter"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A small random Qwen3."""
    return random_model(tmp_path_factory.mktemp("small"), "qwen3", folder, tie_word_embeddings=True)


def failing(error: Exception, of: Callable[..., Any], fails: range) -> Callable[..., Any]:
    """`of`, which fails at these calls, the first of which is 0."""
    calls = itertools.count()

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) in fails:
            raise error
        return of(*args, **options)

    return call


def weights(engine: Transformers) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine._model.state_dict().items()}


def one_line(error: EngineError) -> str:
    """The sentence and its hint."""
    told = [i18n.t(f"engine.{error.kind}{part}", **error.values) for part in ("", "_hint")]
    assert not any("\n" in text or "{" in text for text in told)
    return " ".join(told)


# Adapters


@pytest.mark.parametrize(
    ("form", "layer", "name"),
    [
        ("full", Linear, "get_delta_weight"),
        ("half", Linear, "get_delta_weight"),
        ("nf4", LoraLayer, "update_layer"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("error", [FULL, ValueError("no such thing")])
def test_a_swap_that_fails_half_way_leaves_the_adapter_before(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, form: str, layer: Any, name: str,
    before: bool, error: Exception,
) -> None:  # fmt: skip
    """Every weight is what it was, and so is the answer."""
    one, other = lora(tmp_path / "one", small, 1), lora(tmp_path / "other", small, 2)
    engine = loaded(small, weights=form, adapter=str(one) if before else None)
    said, held = answer(engine, user(DIZZY))[0], weights(engine)
    with monkeypatch.context() as patch:
        # Once, so that the one before can come back.
        patch.setattr(layer, name, failing(error, getattr(layer, name), range(6, 7)))
        with pytest.raises((EngineError, ValueError)) as raised:
            engine.set_adapter(str(other), 1.0)
    if error is FULL:
        assert isinstance(raised.value, EngineError)
        assert raised.value.kind.startswith("gpu_out_of_memory")
    now = weights(engine)
    assert held.keys() == now.keys()
    assert all(torch.equal(held[name], now[name]) for name in held)
    assert answer(engine, user(DIZZY))[0] == said
    # And the other one goes, once there is room.
    engine.set_adapter(str(other), 1.0)
    fresh = loaded(small, weights=form, adapter=str(other))
    assert answer(engine, user(DIZZY))[0] == answer(fresh, user(DIZZY))[0] != said


def test_an_engine_between_two_adapters_answers_nothing(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = lora(tmp_path / "one", small, 1), lora(tmp_path / "other", small, 2)
    engine = loaded(small, adapter=str(one))
    said, _, _ = answer(engine, user(DIZZY))
    with monkeypatch.context() as patch:
        patch.setattr(Linear, "get_delta_weight", failing(FULL, Linear.get_delta_weight, range(5, 99)))
        with pytest.raises(RuntimeError, match="cannot be attached again"):
            engine.set_adapter(str(other), 1.0)
    with pytest.raises(EngineError) as raised:
        answer(engine, user(DIZZY))
    assert raised.value.kind == "no_model"
    engine.set_adapter(str(one), 1.0)
    assert answer(engine, user(DIZZY))[0] == said


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_of_a_tied_weight_changes_what_peft_changes(
    tmp_path: Path, small: Path, target: str
) -> None:
    """The embedding or the output, not both."""
    adapter = lora(tmp_path / "lora", small, targets=[target, "q_proj"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: torch.randn_like(tensor) * 0.1 for name, tensor in tensors.items()}, file)
    engine = loaded(small, adapter=str(adapter))
    assert isinstance(engine._decoder, GenericDecoder)
    model = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32)
    with_peft = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
    prompt = engine.prepare(Generate(id=0, messages=user(DIZZY))).opening
    assert answer(engine, user(DIZZY))[0] == generated(with_peft, small, prompt)


# Out of memory


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (FULL, True),
        (CUBLAS, True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory of what I meant"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, wanted: bool) -> None:
    assert memory.ran_out(error) is wanted
    try:
        try:
            raise error
        finally:
            raise RuntimeError("the capture ended")
    except RuntimeError as hidden:
        assert memory.ran_out(hidden) is wanted


@pytest.mark.parametrize(
    ("context", "form", "proposes"),
    [
        (2048, "half", "1024"),
        (700, "nf4", "512"),
        (512, "half", "gpu8"),
        (256, "nf4", "a smaller model"),
    ],
)
@pytest.mark.parametrize("kind", ["gpu_full", "gpu_out_of_memory"])
def test_the_next_smaller_setting_is_proposed(kind: str, context: int, form: str, proposes: str) -> None:
    told, values = memory.smaller(kind, context, form)
    i18n.set_language("en")
    sentence = one_line(EngineError(told, file="a", **values))
    assert proposes in sentence
    assert "stays loaded" not in sentence or told.startswith("gpu_out_of_memory_")


@pytest.mark.parametrize("error", [FULL, CUBLAS])
def test_out_of_memory_in_mid_answer_keeps_the_model(
    small: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = loaded(small, context_length=1024)
    said, _, _ = answer(engine, user(DIZZY))
    asked = Generate(id=1, messages=user(DIZZY), sampling=PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr(engine._decoder, "step", failing(error, engine._decoder_in_use.step, range(3, 99)))
        tokens = engine.generate(asked, engine.prepare(asked), lambda: False)
        text = ""
        with pytest.raises(EngineError) as raised:
            for piece in tokens:
                text += piece
    assert text and said.startswith(text)
    assert (raised.value.kind, raised.value.values) == (
        "gpu_out_of_memory",
        {"context": 1024, "smaller": 512},
    )
    assert answer(engine, user(DIZZY))[0] == said


def test_out_of_memory_after_the_weights_is_no_loaded_model(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LeanDecoder, "adapt", failing(FULL, LeanDecoder.adapt, range(1)))
    with pytest.raises(EngineError) as raised:
        loaded(small, context_length=1024)
    assert raised.value.kind == "gpu_full"
    assert "512" in one_line(raised.value)


@pytest.mark.parametrize("error", [FULL, CUBLAS])
@pytest.mark.parametrize(("form", "kind"), [("half", "gpu_full_16_bits"), ("nf4", "gpu_full_4_bits")])
def test_out_of_memory_while_the_weights_come(
    small: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, form: str, kind: str
) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", failing(error, lambda: None, range(1)))
    with pytest.raises(EngineError) as raised:
        loaded(small, weights=form)
    assert raised.value.kind == kind
    one_line(raised.value)


# Memory that has gone since the load was planned


SIZES = {
    "model.embed_tokens": 50,
    **{f"model.layers.{n}": 10 for n in range(12)},
    "model.norm": 1,
    "lm_head": 50,
}
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("room", "kept"), [(221, 12), (220, 11), (131, 3), (130, 2), (101, 0), (50, 0), (float("inf"), 12)]
)
def test_the_last_layers_go_to_the_cpu_and_nothing_else(room: float, kept: int) -> None:
    placed = place(SIZES, room, GPU)
    assert list(placed) == list(SIZES)
    assert [name for name, where in placed.items() if where == "cpu"] == [
        f"model.layers.{n}" for n in range(kept, 12)
    ]


@pytest.mark.parametrize("kind", ["qwen3", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("form", ["half", "nf4"])
def test_the_blocks_are_the_whole_model(kind: str, form: str) -> None:
    config = AutoConfig.for_model(kind, **SMALL)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    sizes = blocks(model, form)
    check_device_map(model, dict.fromkeys(sizes, "cpu"))
    assert len([name for name in sizes if is_layer(name)]) == SMALL["num_hidden_layers"]
    in_16_bits = 2 * sum(parameter.numel() for parameter in model.parameters())
    assert sum(sizes.values()) == in_16_bits if form == "half" else sum(sizes.values()) < in_16_bits


@pytest.mark.parametrize("form", ["full", "half", "nf4"])
def test_layers_without_room_are_counted_and_answer_all_the_same(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The CPU's memory is in the place of both; the layers come and go as they would."""
    path = random_model(tmp_path / "deep", "qwen3", folder, num_hidden_layers=8)
    need = loading._need(path, request(path, weights=form))
    monkeypatch.setattr(loading, "_room", lambda *_: need)
    whole = loaded(path, weights=form)
    assert whole._cpu_layers == 0
    said, _, _ = answer(whole, user(DIZZY))
    monkeypatch.setattr(loading, "_room", lambda *_: need - 5_000)
    monkeypatch.setattr(loading, "context_bytes", lambda *_: 0)
    engine = Transformers()
    ready = engine.load(request(path, weights=form), lambda _: None)
    assert 0 < ready.cpu_layers < 8
    assert isinstance(engine._decoder, GenericDecoder)
    # In four bits those layers are more exact than they would be.
    told = answer(engine, user(DIZZY))[0]
    assert told if form == "nf4" else told == said
    adapter = lora(tmp_path / "lora", path)
    with pytest.raises(EngineError) as raised:
        engine.set_adapter(str(adapter), 1.0)
    assert raised.value.kind == "adapter_failed"
    assert answer(engine, user(DIZZY))[0] == told


@pytest.mark.parametrize("adapted", [False, True])
def test_too_little_room_for_any_layer_is_refused(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, adapted: bool
) -> None:
    adapter = str(lora(tmp_path / "lora", small)) if adapted else None
    need = loading._need(small, request(small))
    monkeypatch.setattr(loading, "_room", lambda *_: need - 1 if adapted else 1000)
    with pytest.raises(EngineError) as raised:
        loaded(small, adapter=adapter)
    assert raised.value.kind == "gpu_taken"
    one_line(raised.value)


# No numbers


def test_logits_that_are_no_numbers_end_an_answer(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(small)
    said, _, _ = answer(engine, user(DIZZY))
    asked = Generate(id=1, messages=user(DIZZY), sampling=PLAIN)
    step, steps = engine._decoder_in_use.step, 0

    def broken(position: int) -> None:
        nonlocal steps
        steps += 1
        step(position)
        if steps == 4:
            engine._picker.logits[7] = float("nan")

    with monkeypatch.context() as patch:
        patch.setattr(engine._decoder, "step", broken)
        text = ""
        with pytest.raises(EngineError) as raised:
            for piece in engine.generate(asked, engine.prepare(asked), lambda: False):
                text += piece
    assert raised.value.kind == "not_numbers"
    assert text and said.startswith(text)
    one_line(raised.value)
    assert answer(engine, user(DIZZY))[0] == said


# No GPU, or none that goes


@pytest.mark.parametrize(
    ("capability", "built", "wanted"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_75", "sm_80", "sm_86"], True),
        ((6, 1), ["sm_75", "sm_80", "sm_90"], False),
        ((7, 0), ["sm_75", "compute_75"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((12, 0), ["sm_90a", "compute_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((12, 0), ["sm_100f", "compute_100f"], False),
        ((12, 1), ["sm_120"], True),
        ((9, 0), [], False),
    ],
)
def test_which_cards_a_build_has_code_for(
    capability: tuple[int, int], built: list[str], wanted: bool
) -> None:
    assert loading.runs_on(capability, built) is wanted


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU that PyTorch sees."""
    for name, value in {
        "init": None,
        "mem_get_info": (2**33, 2**33),
        "get_device_capability": (9, 0),
        "get_arch_list": ["sm_90"],
        "get_device_name": "Made Up",
        "current_device": 0,
        "is_bf16_supported": True,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, told=value, **__: told)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return monkeypatch


def test_a_card_that_the_build_has_no_code_for(small: Path, card: pytest.MonkeyPatch) -> None:
    assert loading.device_for(request(small, device="cuda")).type == "cuda"
    card.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    with pytest.raises(EngineError) as raised:
        loading.device_for(request(small, device="cuda"))
    assert raised.value.kind == "gpu_unsupported"
    assert "6.1" in one_line(raised.value)


def test_a_driver_that_does_not_go(small: Path, card: pytest.MonkeyPatch) -> None:
    error = RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")
    card.setattr(torch.cuda, "init", failing(error, lambda: None, range(1)))
    with pytest.raises(EngineError) as raised:
        loaded(small, device="cuda")
    assert raised.value.kind == "no_cuda"
    assert "too old" in one_line(raised.value)


def test_sixteen_bits_are_those_that_the_card_computes(card: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    assert loading._half(gpu) is torch.bfloat16
    card.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert loading._half(gpu) is torch.float16
    assert loading._half(torch.device("cpu")) is torch.bfloat16


def test_four_bits_without_their_package(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else find(name, *more)
    )
    with pytest.raises(EngineError) as raised:
        loaded(small, weights="nf4")
    assert raised.value.kind == "bitsandbytes_missing"
    one_line(raised.value)


def test_kernels_that_cannot_be_made_are_told(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here there is no GPU that would use them, so they are asked for."""
    assert Transformers().load(request(small), lambda _: None).not_fused == ""
    adapt = LeanDecoder.adapt

    def with_kernels(decoder: LeanDecoder, changes: Any) -> None:
        adapt(decoder, changes)
        assert decoder._capture() is None

    monkeypatch.setattr(LeanDecoder, "adapt", with_kernels)
    monkeypatch.delitem(sys.modules, "drkun_tui.engine.transformers.fused", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    ready = Transformers().load(request(small), lambda _: None)
    assert "triton" in ready.not_fused
