"""Which adapter goes with which base, and why another does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from drkun_tui import paths
from drkun_tui.errors import DrkunError
from drkun_tui.library import adapters, inventory
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.plan import plan_load
from drkun_tui.settings import Settings
from tests import gguf_files
from tests.model_files import CONFIG, put_json, put_lora, put_safetensors

LAYER = "base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.weight"


def base_tensors(width: int = 64, layers: int = 2, vocabulary: int = 32) -> dict[str, list[int]]:
    tensors = {"model.embed_tokens.weight": [vocabulary, width], "model.norm.weight": [width]}
    for layer in range(layers):
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = [4 * 16, width]
        tensors[f"model.layers.{layer}.self_attn.v_proj.weight"] = [2 * 16, width]
    return tensors


def put_shaped_base(
    folder: Path, width: int = 64, layers: int = 2, vocabulary: int = 32, **config: object
) -> Path:
    told = CONFIG | {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": vocabulary} | config
    put_json(folder / "config.json", told)
    put_safetensors(folder / "model.safetensors", base_tensors(width, layers, vocabulary))
    return folder


def put_shaped_lora(
    folder: Path,
    base: str | None = None,
    width: int = 64,
    layers: int = 2,
    more: dict[str, list[int]] | None = None,
) -> Path:
    put_lora(folder, base_model_name_or_path=base)
    tensors = dict(more or {})
    for layer in range(layers):
        for module, outputs in (("q", 64), ("v", 32)):
            tensors[LAYER.format(layer, module, "A")] = [8, width]
            tensors[LAYER.format(layer, module, "B")] = [outputs, 8]
    put_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def put_gguf(path: Path, width: int = 64, layers: int = 2, name: str = "Tiny") -> Path:
    tensors: list[gguf_files.Tensor] = [("token_embd.weight", (width, 32), 0)]
    tensors += [(f"blk.{layer}.attn_q.weight", (width, 64), 0) for layer in range(layers)]
    return gguf_files.write(path, gguf_files.metadata(general__name=name), tensors)


def put_gguf_lora(
    path: Path, width: int = 64, layers: int = 2, tensor: str = "blk.{}.attn_q.weight", base: str = ""
) -> Path:
    tensors: list[gguf_files.Tensor] = []
    for layer in range(layers):
        tensors.append((f"{tensor.format(layer)}.lora_a", (width, 8), 0))
        tensors.append((f"{tensor.format(layer)}.lora_b", (8, 64), 0))
    entries = gguf_files.metadata(general__type="adapter", adapter__lora__alpha=16.0)
    if base:
        entries["general.base_model.0.name"] = base
    return gguf_files.write(path, entries, tensors)


def scanned(folder: Path) -> dict[str, Model]:
    return {model.name: model for model in inventory.scan([folder])}


def why_not(folder: Path, adapter: str = "adapter", base: str = "base") -> str:
    models = scanned(folder)
    reason = adapters.mismatch(models[adapter], models[base])
    assert reason is not None
    assert reason.isprintable()
    assert adapters.base_for(models[adapter], models.values()) is None
    assert [problem.text for problem in models[adapter].problems]
    assert models[adapter].complete
    return reason


# By shape


def test_a_peft_adapter_that_fits(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "base")
    put_shaped_lora(tmp_path / "adapter")
    models = scanned(tmp_path)
    assert adapters.mismatch(models["adapter"], models["base"]) is None
    assert adapters.base_for(models["adapter"], models.values()) is models["base"]
    assert models["adapter"].problems == ()


def test_a_peft_adapter_of_another_width_depth_or_vocabulary(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "base")
    put_shaped_lora(tmp_path / "adapter", width=128)
    assert "128" in why_not(tmp_path)
    put_shaped_lora(tmp_path / "adapter", layers=3)
    assert "3" in why_not(tmp_path)
    for name, shape in (
        ("base_model.model.lm_head.weight", [40, 64]),  # which the base shares with its embedding
        ("base_model.model.model.embed_tokens.weight", [40, 64]),
        ("base_model.model.model.embed_tokens.lora_embedding_A", [8, 40]),
    ):
        put_shaped_lora(tmp_path / "adapter", more={name: shape})
        reason = why_not(tmp_path)
        assert "40" in reason
        assert "32" in reason
    fitting = {"base_model.model.lm_head.weight": [32, 64], "base_model.model.model.norm.weight": [64]}
    put_shaped_lora(tmp_path / "adapter", more=fitting)
    assert scanned(tmp_path)["adapter"].problems == ()


def test_packed_weights_are_held_against_by_the_configuration(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "base", quantization_config={"quant_method": "bitsandbytes"})
    put_safetensors(
        tmp_path / "base" / "model.safetensors", {"model.layers.0.self_attn.q_proj.weight": [2048, 1]}, "U8"
    )
    put_shaped_lora(tmp_path / "adapter")
    assert scanned(tmp_path)["adapter"].problems == ()
    put_shaped_lora(tmp_path / "adapter", width=128)
    assert "128" in why_not(tmp_path)


def test_a_gguf_adapter_is_held_against_its_base_as_llama_cpp_does(tmp_path: Path) -> None:
    put_gguf(tmp_path / "base.gguf")
    put_gguf_lora(tmp_path / "adapter.gguf")
    models = scanned(tmp_path)
    adapter = models["adapter"]
    assert (adapter.rank, adapter.alpha, adapter.target_modules) == (8, 16.0, ("attn_q",))
    assert adapters.base_for(adapter, models.values()) is models["base"]
    put_gguf_lora(tmp_path / "adapter.gguf", width=128)
    assert "128" in why_not(tmp_path)
    put_gguf_lora(tmp_path / "adapter.gguf", layers=5)
    assert "5" in why_not(tmp_path)
    put_gguf_lora(tmp_path / "adapter.gguf", tensor="blk.{}.attn_k.weight")
    # No tensor of that name at all: llama.cpp would refuse it, too.
    assert adapters.mismatch(*(scanned(tmp_path)[name] for name in ("adapter", "base"))) is None
    both: list[gguf_files.Tensor] = [
        ("blk.0.attn_q.weight.lora_a", (64, 8), 0),
        ("blk.0.attn_q.weight.lora_b", (8, 64), 0),
        ("blk.0.attn_k.weight.lora_a", (64, 8), 0),
        ("blk.0.attn_k.weight.lora_b", (8, 64), 0),
    ]
    gguf_files.write(tmp_path / "adapter.gguf", gguf_files.metadata(general__type="adapter"), both)
    assert "attn_k" in why_not(tmp_path)
    entries = gguf_files.metadata("llama", general__type="adapter")
    gguf_files.write(tmp_path / "adapter.gguf", entries, both[:2])
    assert "llama" in why_not(tmp_path)


def test_a_gguf_adapter_of_the_token_embedding_has_it_the_other_way_round(tmp_path: Path) -> None:
    put_gguf(tmp_path / "base.gguf")
    entries = gguf_files.metadata(general__type="adapter")
    for vocabulary, fits in ((32, True), (33, False)):
        gguf_files.write(
            tmp_path / "adapter.gguf",
            entries,
            [
                ("token_embd.weight.lora_a", (8, vocabulary), 0),
                ("token_embd.weight.lora_b", (8, 64), 0),
            ],
        )
        models = scanned(tmp_path)
        reason = adapters.mismatch(models["adapter"], models["base"])
        assert (reason is None) == fits
        assert fits or "33" in str(reason)
        assert models["adapter"].rank == 8


def test_adapters_and_bases_are_of_one_format(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "folder")
    put_gguf(tmp_path / "file.gguf")
    put_shaped_lora(tmp_path / "peft")
    put_gguf_lora(tmp_path / "llama.gguf")
    models = scanned(tmp_path)
    assert "GGUF" in str(adapters.mismatch(models["llama"], models["folder"]))
    assert "PEFT" in str(adapters.mismatch(models["peft"], models["file"]))
    assert adapters.base_for(models["llama"], models.values()) is models["file"]
    assert adapters.base_for(models["peft"], models.values()) is models["folder"]


def test_a_hostile_adapter_is_held_against_nothing(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "base")
    put_lora(tmp_path / "adapter", base_model_name_or_path="base")
    many = {f"base_model.model.x{n}.lora_A.weight": [1, 1] for n in range(5000)}
    many["y" * 5000] = [1]
    put_safetensors(tmp_path / "adapter" / "adapter_model.safetensors", many)
    models = scanned(tmp_path)
    tensors = models["adapter"].tensors
    assert tensors
    assert not tensors.whole
    assert len(tensors.shapes) <= 512
    assert adapters.mismatch(models["adapter"], models["base"]) is None


# By name


@pytest.mark.parametrize(
    "said",
    [
        "Qwen/Qwen3-Tiny",
        "qwen/qwen3-tiny",
        "Qwen3-Tiny",
        "/root/autodl-tmp/models/Qwen3-Tiny",
        "models/Qwen/Qwen3-Tiny",
        "unsloth/Qwen3-Tiny-bnb-4bit",
        "unsloth/qwen3-tiny-unsloth-bnb-4bit",
        "https://huggingface.co/Qwen/Qwen3-Tiny",
        "https://modelscope.cn/models/Qwen/Qwen3-Tiny",
        "someone/Qwen3-Tiny",
    ],
)
def test_a_base_is_known_by_whatever_its_adapter_calls_it(tmp_path: Path, said: str) -> None:
    put_shaped_base(tmp_path / "Qwen" / "Qwen3-Tiny")
    put_shaped_base(tmp_path / "Qwen" / "Qwen3-Tiny-Thinking")
    put_shaped_lora(tmp_path / "adapter", said)
    models = scanned(tmp_path)
    base = adapters.base_for(models["adapter"], models.values())
    assert base is models["Qwen/Qwen3-Tiny"]
    assert adapters.missing_base(models["adapter"], models.values()) is None
    assert models["adapter"].problems == ()


def test_only_a_whole_base_of_that_name_is_here(tmp_path: Path) -> None:
    put_gguf(tmp_path / "Qwen3-Tiny-GGUF" / "qwen3-tiny-q4_k_m.gguf", name="Qwen3 Tiny")
    assert not adapters.is_here("Qwen/Qwen3-Tiny", scanned(tmp_path).values())
    base = put_shaped_base(tmp_path / "Qwen" / "Qwen3-Tiny")
    assert adapters.is_here("Qwen/Qwen3-Tiny", scanned(tmp_path).values())
    (base / "model.safetensors").unlink()
    assert not adapters.is_here("Qwen/Qwen3-Tiny", scanned(tmp_path).values())


def test_a_base_is_known_by_its_path(tmp_path: Path) -> None:
    bases = [put_shaped_base(tmp_path / place / "checkpoint") for place in ("a", "b")]
    put_shaped_lora(tmp_path / "adapter", str(bases[1]))
    models = scanned(tmp_path)
    assert adapters.base_for(models["adapter"], models.values()) is models["b/checkpoint"]


@pytest.mark.parametrize(
    ("said", "file", "title"),
    [
        ("https://huggingface.co/Qwen/Qwen3-Tiny", "Qwen/Qwen3-Tiny-GGUF/qwen3-tiny-q4_k_m", "x"),
        ("https://huggingface.co/Qwen/Qwen3-Tiny", "unsloth/Qwen3-Tiny-GGUF/model-UD-Q4_K_XL", "x"),
        ("Qwen3 Tiny", "Qwen3-Tiny.i1-IQ3_XXS", "x"),
        ("Qwen3 Tiny", "blob", "Qwen3 Tiny"),
    ],
)
def test_a_gguf_base_is_known_without_its_quantisation(
    tmp_path: Path, said: str, file: str, title: str
) -> None:
    put_gguf(tmp_path / f"{file}.gguf", name=title)
    put_gguf(tmp_path / "another.gguf", name="Another")
    put_gguf_lora(tmp_path / "adapter.gguf", base=said)
    models = scanned(tmp_path)
    assert adapters.base_for(models["adapter"], models.values()) is models[file]


def test_an_absent_base_is_told_with_what_to_fetch(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "Qwen" / "Other")  # of the same shape, and not the same
    put_shaped_lora(tmp_path / "adapter", "unsloth/Qwen3-4B-unsloth-bnb-4bit")
    models = scanned(tmp_path)
    adapter = models["adapter"]
    assert adapters.base_for(adapter, models.values()) is None
    assert adapters.missing_base(adapter, models.values()) == "unsloth/Qwen3-4B"
    (problem,) = adapter.problems
    assert "unsloth/Qwen3-4B" in problem.text
    assert "drkun pull unsloth/Qwen3-4B" in problem.remedy
    put_shaped_lora(tmp_path / "adapter", "/nowhere/else")
    models = scanned(tmp_path)
    assert adapters.missing_base(models["adapter"], models.values()) is None
    assert adapters.base_for(models["adapter"], models.values()) is models["Qwen/Other"]


def test_a_named_base_of_another_shape_is_told_with_the_reason(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "Qwen" / "Tiny", width=128)
    put_shaped_base(tmp_path / "fits")
    put_shaped_lora(tmp_path / "adapter", "Qwen/Tiny")
    models = scanned(tmp_path)
    adapter = models["adapter"]
    (problem,) = adapter.problems
    assert problem.text == adapters.mismatch(adapter, models["Qwen/Tiny"])
    assert "128" in problem.text
    assert problem.remedy
    assert adapters.base_for(adapter, models.values()) is None
    # Fetching it again would not help.
    assert adapters.missing_base(adapter, models.values()) is None
    # Broken weights say nothing of their shapes; the file's own problem is enough.
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    models = scanned(tmp_path)
    assert adapters.mismatch(models["adapter"], models["Qwen/Tiny"]) is None
    assert [other.text for other in models["adapter"].problems] != [problem.text]


def test_the_absent_base_of_a_gguf_adapter_is_looked_for_among_ggufs(tmp_path: Path) -> None:
    put_gguf_lora(tmp_path / "adapter.gguf", base="Qwen/Qwen3-4B")
    put_gguf_lora(tmp_path / "other.gguf", base="unsloth/Qwen3-4B-GGUF")
    models = scanned(tmp_path)
    (problem,) = models["adapter"].problems
    assert problem.remedy.count("drkun search --gguf Qwen3-4B")
    assert adapters.missing_base(models["adapter"], models.values()) == "Qwen3-4B GGUF"
    assert "drkun pull unsloth/Qwen3-4B-GGUF" in models["other"].problems[0].remedy
    assert adapters.missing_base(models["other"], models.values()) == "unsloth/Qwen3-4B-GGUF"
    put_gguf(tmp_path / "Qwen3-4B-Q8_0.gguf", width=128)
    models = scanned(tmp_path)
    assert "128" in models["adapter"].problems[0].text
    assert adapters.missing_base(models["adapter"], models.values()) is None


def test_an_adapter_that_names_none_goes_with_the_only_one_that_fits(tmp_path: Path) -> None:
    put_shaped_lora(tmp_path / "adapter")
    (problem,) = scanned(tmp_path)["adapter"].problems
    assert problem.remedy
    put_shaped_base(tmp_path / "one")
    put_shaped_base(tmp_path / "wide", width=128)
    models = scanned(tmp_path)
    assert adapters.base_for(models["adapter"], models.values()) is models["one"]
    put_shaped_base(tmp_path / "two")
    models = scanned(tmp_path)
    # Several would do: a choice, not a problem.
    assert adapters.base_for(models["adapter"], models.values()) is None
    assert models["adapter"].problems == ()


def test_the_adapters_that_a_base_would_leave_behind(tmp_path: Path) -> None:
    put_shaped_base(tmp_path / "a" / "Tiny")
    put_shaped_lora(tmp_path / "adapter", "Tiny")
    models = inventory.scan([tmp_path])
    base = next(model for model in models if model.kind is Kind.BASE)
    assert [model.name for model in adapters.dependents(base, models)] == ["adapter"]
    put_shaped_base(tmp_path / "b" / "Tiny")
    models = inventory.scan([tmp_path])
    assert [adapters.dependents(m, models) for m in models if m.kind is Kind.BASE] == [[], []]


# What a LoRA says of itself


def test_a_lora_says_how_it_was_trained(tmp_path: Path) -> None:
    folder = put_lora(tmp_path / "adapter", lora_alpha=32, target_modules=["q_proj", "v_proj"], r=8)
    put_json(
        folder / "drkun.json",
        {
            "base_model": "Qwen/Qwen3-4B",
            "base_revision": "abc",
            "prompt": {"template": "", "system": "你是医生", "thinking_tags": ["<think>", "</think>"]},
            "seed": 7,
            "new in a later version": 1,
        },
    )
    model = scanned(tmp_path)["adapter"]
    assert (model.rank, model.alpha, model.target_modules) == (8, 32, ("q_proj", "v_proj"))
    assert model.complete
    assert model.provenance
    assert (model.provenance.prompt.system, model.provenance.seed) == ("你是医生", 7)
    for damaged in ("{", "[]", '{"seed": "x"}', "[" * 100_000):
        (folder / "drkun.json").write_text(damaged)
        model = scanned(tmp_path)["adapter"]
        assert not model.complete
        assert "drkun.json" in model.problems[0].text


def test_an_adapter_config_of_any_other_kind_is_a_problem(tmp_path: Path) -> None:
    folder = put_lora(tmp_path / "adapter")
    for text in ("[]", "3", '"x"', "null", "", "[" * 100_000, '{"r": ' + "9" * 5000 + "}"):
        (folder / "adapter_config.json").write_text(text)
        assert not scanned(tmp_path)["adapter"].complete
    odd = {"r": "16", "lora_alpha": [], "target_modules": {"a": 1}, "base_model_name_or_path": 5, "x": None}
    put_json(folder / "adapter_config.json", odd | {"auto_mapping": {"base_model_class": 3}})
    model = scanned(tmp_path)["adapter"]
    assert (model.rank, model.alpha, model.target_modules, model.base_model) == (None, None, (), None)


# Loading


def test_what_does_not_fit_is_refused_before_loading(home: Path) -> None:
    store = paths.model_store()
    put_gguf(store / "base.gguf")
    put_gguf_lora(store / "fits.gguf")
    put_gguf_lora(store / "wide.gguf", width=128)
    plan = plan_load(Settings(model="base", adapter="fits"))
    assert plan.load.adapter == str(store / "fits.gguf")
    with pytest.raises(DrkunError) as caught:
        plan_load(Settings(model="base", adapter="wide"))
    assert caught.value.kind == "adapter_mismatch"
    assert "128" in caught.value.message
