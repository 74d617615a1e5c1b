"""Merged weights are those of PEFT, whatever kind of LoRA it is, and what is no LoRA is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from drkun_tui.publishing import convert, lora, merge, tasks
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.sources import weight_files
from tests import transformers_models as models


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models.quiet()
    return models.starter(tmp_path_factory.mktemp("starter"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A small model in 16 bits, in several shards."""
    whole = models.random_model(tmp_path_factory.mktemp("whole"), "qwen3", tokenizer)
    folder = tmp_path_factory.mktemp("base")
    model: Any = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="300KB")
    for file in tokenizer.glob("tokenizer*"):
        shutil.copyfile(file, folder / file.name)
    (folder / "LICENSE").write_text("free")
    (folder / "README.md").write_text("of another model")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "merged"
    folder.mkdir()
    return folder


def merged(base: Path, adapter: Path, target: Path) -> dict[str, torch.Tensor]:
    merge.merge(tasks.Merge(base=str(base), adapter=str(adapter), target=str(target)), lambda *_: None)
    return weights(target)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        found |= load_file(file)
    return found


def by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """PEFT's own merge, in 32 bits."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    state: dict[str, torch.Tensor] = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    return state


KINDS = {
    "plain": {},
    "rank_stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 8, "layers.1.mlp.up_proj": 2},
        "alpha_pattern": {"model.layers.0.self_attn.k_proj": 20, "down_proj": 3},
    },
    "embedding": {"targets": [*models.PROJECTIONS, "embed_tokens"]},
    "with_whole_weights": {"modules_to_save": ["embed_tokens", "norm"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_peft(kind: str, base: Path, tmp_path: Path, target: Path) -> None:
    adapter = models.lora(tmp_path / "adapter", base, **KINDS[kind])  # type: ignore[arg-type]
    ours, theirs, before = merged(base, adapter, target), by_peft(base, adapter), weights(base)
    assert ours.keys() == before.keys()
    changed = 0
    for name, weight in ours.items():
        assert weight.dtype == torch.bfloat16
        # One rounding to 16 bits is all that they may differ by.
        assert torch.allclose(weight.float(), theirs[name], rtol=2**-8, atol=1e-6), name
        changed += not torch.equal(weight, before[name])
    assert changed >= 3 * len(models.PROJECTIONS)
    if kind == "with_whole_weights":
        # Merged they are; a GGUF LoRA has no place for them, whatever the configuration says.
        changes = lora.read(adapter, lora.shapes_of(weight_files(base)))
        with pytest.raises(PublishingError) as raised:
            convert.evenly_scaled(adapter, changes, tmp_path)
        assert raised.value.kind == "lora_has_weights"


def test_the_weights_are_those_of_peft_in_blocks_of_few_rows(
    base: Path, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that end within a weight, and do not divide it."""
    adapter = models.lora(tmp_path / "adapter", base, targets=[*models.PROJECTIONS, "embed_tokens"])
    monkeypatch.setattr(merge, "_PIECE", 7 * 64 * 2 + 1)
    ours, theirs, before = merged(base, adapter, target), by_peft(base, adapter), weights(base)
    assert max(weight.nbytes for weight in ours.values()) > 20 * 7 * 64 * 2
    for name, weight in ours.items():
        assert torch.allclose(weight.float(), theirs[name], rtol=2**-8, atol=1e-6), name
        if "norm" in name:
            assert torch.equal(weight, before[name])


def test_a_shard_that_ends_early_is_an_error(base: Path, tmp_path: Path, target: Path) -> None:
    adapter = models.lora(tmp_path / "adapter", base)
    cut = tmp_path / "cut"
    shutil.copytree(base, cut)
    shard = weight_files(cut)[1]
    changes = lora.read(adapter, lora.shapes_of(weight_files(cut)))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1)
    with pytest.raises(OSError, match="ends early"):
        merge._merge_shard(shard, target / "out", changes, lambda _: None)


def test_shards_and_what_lies_beside_them_stay(base: Path, tmp_path: Path, target: Path) -> None:
    adapter = models.lora(tmp_path / "adapter", base)
    merged(base, adapter, target)
    assert len(weight_files(base)) > 2
    assert [file.name for file in weight_files(target)] == [file.name for file in weight_files(base)]
    there = {file.name for file in target.iterdir()}
    assert {"LICENSE", "config.json", "tokenizer.json"} <= there
    assert not there & {"README.md", "adapter_config.json"}
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    assert loaded.num_parameters() > 0


def test_wider_weights_become_16_bits(tokenizer: Path, tmp_path: Path, target: Path) -> None:
    base = models.random_model(tmp_path / "base", "qwen3", tokenizer)
    adapter = models.lora(tmp_path / "adapter", base)
    ours, theirs = merged(base, adapter, target), by_peft(base, adapter)
    for name, weight in ours.items():
        assert weight.dtype == torch.bfloat16
        assert torch.allclose(weight.float(), theirs[name], rtol=2**-8, atol=1e-6)
    assert json.loads((target / "config.json").read_text())["dtype"] == "bfloat16"


def test_progress_is_told_in_bytes(base: Path, tmp_path: Path, target: Path) -> None:
    adapter = models.lora(tmp_path / "adapter", base)
    told: list[tuple[int, int]] = []
    merge.merge(
        tasks.Merge(base=str(base), adapter=str(adapter), target=str(target)),
        lambda done, total: told.append((done, total)),
    )
    size = sum(tensor.nbytes for tensor in weights(target).values())
    assert told[-1][0] == size
    assert size <= told[-1][1] < size * 1.1
    assert told == sorted(told)


def spoil(kind: str, adapter: Path) -> None:
    """Make something else of an adapter."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    first = next(name for name in tensors if "lora_A" in name)
    if kind == "dora":
        config["use_dora"] = True
    elif kind == "method":
        config["peft_type"] = "LOHA"
    elif kind == "extra":
        tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = torch.ones(64)
    elif kind == "absent":
        tensors[first.replace("layers.0", "layers.9")] = tensors[first].clone()
    elif kind == "shape":
        tensors[first] = tensors[first][:, :-1].contiguous()
    elif kind == "half":
        del tensors[first]
    else:
        tensors["base_model.model.lm_head.lora_A.weight"] = torch.ones(4, 64)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("dora", "not_only_lora"),
        ("method", "not_only_lora"),
        ("extra", "not_only_lora"),
        ("absent", "no_tensor"),
        ("shape", "wrong_shape"),
        ("half", "wrong_shape"),
        ("tied", "tied"),
    ],
)
def test_what_cannot_be_merged_is_refused(kind: str, error: str, tokenizer: Path, tmp_path: Path) -> None:
    base = models.random_model(tmp_path / "base", "qwen3", tokenizer, tie_word_embeddings=True)
    adapter = models.lora(tmp_path / "adapter", base)
    shapes = lora.shapes_of(weight_files(base))
    assert len(lora.read(adapter, shapes).of) == 3 * len(models.PROJECTIONS)
    spoil(kind, adapter)
    with pytest.raises(PublishingError) as raised:
        lora.read(adapter, shapes)
    assert raised.value.kind == error


def test_a_shard_holds_what_its_header_says(base: Path, tmp_path: Path, target: Path) -> None:
    """Tensors begin where the header says, in the order of the base's file."""
    adapter = models.lora(tmp_path / "adapter", base)
    merged(base, adapter, target)
    for file in weight_files(base):
        with safe_open(file, "pt") as one, safe_open(target / file.name, "pt") as other:
            assert list(one.keys()) == list(other.keys())
