"""Importance matrices that the program computes: their numbers are those of an independent computation, and
what is quantised with them keeps more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

pytest.importorskip("trl")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from drkun_tui import i18n
from drkun_tui.errors import EXIT_BAD_INPUT
from drkun_tui.publishing import calibrate, converters, imatrix, steps, tasks
from drkun_tui.publishing.faults import PublishingError, error_of
from drkun_tui.settings import Settings
from drkun_tui.training import base_model, preflight, recipe
from tests import publishing_files
from tests import transformers_models as models
from tests.publishing_files import refused
from tests.test_pull import drkun

pytestmark = pytest.mark.timeout(900)

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""What Transformers and llama.cpp call the weights of a block."""

BASE = "drkun/starter-bf16"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("importance")
    before = os.environ.get("DRKUN_HOME")
    os.environ["DRKUN_HOME"] = str(folder)
    yield folder
    os.environ.pop("DRKUN_HOME") if before is None else os.environ.update(DRKUN_HOME=before)


@pytest.fixture(scope="module")
def kept(home: Path, request: pytest.FixtureRequest) -> str:
    """The converters."""
    os.environ[converters.SOURCE] = str(publishing_files.source(request.config.cache))
    return str(converters.ensure(lambda: False))


@pytest.fixture(autouse=True)
def here(home: Path, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRKUN_HOME", str(home))
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    i18n.set_language("zh")


@pytest.fixture(scope="module")
def base(home: Path) -> Path:
    """The bundled model, unpacked."""
    models.quiet()
    found = preflight.find_base(recipe.parse('preset = "starter-cpu"\n[data]\npath = "demo"\n'), Settings())
    return base_model.on_disk(found)[0]


@pytest.fixture(scope="module")
def whole(home: Path, kept: str, base: Path) -> Path:
    """The same as a GGUF."""
    return converted(home / "whole.gguf", base, kept)


def converted(out: Path, folder: Path, kept: str) -> Path:
    task = tasks.Convert(converters=kept, base=str(folder), out=str(out), out_type="bf16", name="whole")
    steps.run("drkun_tui.publishing.convert", task, lambda *_: None, lambda: False)
    return out


@pytest.fixture(scope="module")
def text(home: Path) -> Path:
    """Some 1,200 tokens."""
    path = home / "text.md"
    document = Path(__file__).parent.parent / "docs" / "export.zh.md"
    path.write_text(document.read_text("utf8")[:2600], "utf8")
    return path


def computed(model: Path, source: Path, base: Path, kept: str, out: Path) -> dict[str, Any]:
    """The matrix's sums as they are in the file, by the names of its tensors."""
    task = tasks.Calibrate(
        model=str(model), source=str(source), out=str(out), converters=kept, base=str(base), threads=1
    )
    told: list[tuple[int, int]] = []
    found = steps.run("drkun_tui.publishing.calibrate", task, lambda *at: told.append(at), lambda: False)
    assert told == sorted(told)
    from gguf import GGUFReader

    reader = GGUFReader(out)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.chunk_count"].contents() == found["chunks"]
    assert reader.fields["imatrix.chunk_size"].contents() == calibrate.CHUNK
    assert reader.fields["imatrix.datasets"].contents() == [source.name]
    return {tensor.name: numpy.array(tensor.data) for tensor in reader.tensors}


def by_hooks(folder: Path, chunks: list[list[int]]) -> dict[str, Any]:
    """For each weight of the blocks the squares of its inputs, summed up by Transformers in 32 bits."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sums: dict[str, Any] = {}

    def seen(name: str) -> Any:
        def hook(_module: Any, given: tuple[torch.Tensor, ...], _made: Any) -> None:
            rows = given[0].reshape(-1, given[0].shape[-1]).double()
            sums[name] = sums.get(name, 0) + (rows**2).sum(0).numpy()

        return hook

    for number, layer in enumerate(model.model.layers):
        for inner, name in NAMES.items():
            layer.get_submodule(inner).register_forward_hook(seen(f"blk.{number}.{name}.weight"))
    with torch.inference_mode():
        for chunk in chunks:
            model(input_ids=torch.tensor([chunk]), use_cache=False)
    return sums


def test_the_sums_are_those_of_transformers(
    whole: Path, text: Path, base: Path, kept: str, tmp_path: Path
) -> None:
    ours = computed(whole, text, base, kept, tmp_path / "matrix")
    tokens = AutoTokenizer.from_pretrained(base).encode(text.read_text("utf8"), add_special_tokens=False)
    count = len(tokens) // calibrate.CHUNK
    assert count >= 2
    chunks = [tokens[n * calibrate.CHUNK : (n + 1) * calibrate.CHUNK] for n in range(count)]
    theirs = by_hooks(base, chunks)
    assert {f"{name}.in_sum2" for name in theirs} == {name for name in ours if name.endswith(".in_sum2")}
    for name, sums in theirs.items():
        assert ours[f"{name}.counts"].reshape(-1).tolist() == [count * calibrate.CHUNK]
        # llama.cpp rounds what it multiplies with a weight in 16 bits to as many.
        numpy.testing.assert_allclose(ours[f"{name}.in_sum2"].reshape(-1), sums, rtol=0.03)
    means = imatrix.read(tmp_path / "matrix", Path(kept))
    name = "blk.0.ffn_down.weight"
    numpy.testing.assert_allclose(means[name], theirs[name] / (count * calibrate.CHUNK), rtol=0.03)


def test_experts_have_sums_and_counts_of_their_own(base: Path, text: Path, kept: str, tmp_path: Path) -> None:
    """Each token goes to two of four experts, which all see what their router sees."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    folder = models.random_model(tmp_path / "moe", "qwen3_moe", base, **experts)
    model = converted(tmp_path / "moe.gguf", folder, kept)
    ours = computed(model, text, base, kept, tmp_path / "matrix")
    read = ours["blk.0.attn_q.weight.counts"].sum()
    assert read >= 2 * calibrate.CHUNK
    for layer in range(2):
        router = ours[f"blk.{layer}.ffn_gate_inp.weight.in_sum2"].reshape(-1)
        for name in ("ffn_gate_exps", "ffn_up_exps"):
            counts = ours[f"blk.{layer}.{name}.weight.counts"].reshape(-1)
            sums = ours[f"blk.{layer}.{name}.weight.in_sum2"]
            assert len(counts) == 4 and len(sums) == 4
            assert counts.sum() == 2 * read and len(set(counts)) > 1
            numpy.testing.assert_allclose(sums.sum(0), 2 * router, rtol=1e-3)
    means = imatrix.read(tmp_path / "matrix", Path(kept))
    assert means["blk.0.ffn_down_exps.weight"].shape == (4 * 64,)


def test_the_examples_of_a_data_set_are_read_as_they_are_trained_on(
    whole: Path, base: Path, kept: str, tmp_path: Path
) -> None:
    rows = [
        {
            "question": f"第{n}个问题：最近总是头晕，血压{140 + n}/95，应该怎么办？",
            "answer": "先卧床休息，并测量血压。" * (n + 1),
        }
        for n in range(30)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf8")
    task = tasks.Calibrate(
        model=str(whole),
        source=str(data),
        out=str(tmp_path / "m"),
        converters=kept,
        base=str(base),
        threads=1,
    )
    texts = list(calibrate._texts(task))
    assert 15 < len(texts) <= 30
    first = texts[0]
    assert "<|im_start|>user" in first and "第" in first and "先卧床休息" in first
    assert [int(text.partition("第")[2].partition("个")[0]) for text in texts] != sorted(range(len(texts)))
    ours = computed(whole, data, base, kept, tmp_path / "matrix")
    assert ours["blk.0.attn_q.weight.counts"].sum() >= calibrate.CHUNK


def test_what_is_no_text_to_read_is_told(whole: Path, base: Path, kept: str, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("头晕", "utf8")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n', "utf8")
    for name, kind in (("short.txt", "calibration_short"), ("rows.jsonl", "unknown_columns")):
        with pytest.raises(PublishingError) as raised:
            computed(whole, tmp_path / name, base, kept, tmp_path / "matrix")
        assert raised.value.kind == kind
        assert error_of(kind, raised.value.values).exit_code == EXIT_BAD_INPUT
        assert not (tmp_path / "matrix").exists()
    assert refused(BASE, "--imatrix-from", str(tmp_path / "no"))["kind"] == "calibration_unreadable"
    assert refused(BASE, "--type", "f16", "--imatrix-from", "demo")["kind"] == "imatrix_unused"


def test_a_model_that_computes_no_numbers_has_no_matrix(
    base: Path, text: Path, kept: str, tmp_path: Path
) -> None:
    folder = models.random_model(tmp_path / "broken", "qwen3", base)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = converted(tmp_path / "broken.gguf", folder, kept)
    with pytest.raises(PublishingError) as raised:
        computed(model, text, base, kept, tmp_path / "matrix")
    assert raised.value.kind == "not_numbers"


def test_the_matrix_lies_beside_the_export_and_is_taken_again(base: Path, text: Path) -> None:
    def made(name: str, *words: str) -> tuple[Path, set[str]]:
        done = drkun("export", BASE, "--type", "iq4_xs", "--name", name, *words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return Path(events[-1]["path"]), {event.get("stage", "") for event in events}

    first, stages = made("one/one", "--imatrix-from", str(text))
    assert "calibrating" in stages
    matrix = first.with_suffix(".imatrix")
    assert matrix.read_bytes()[:4] == b"GGUF"
    again, stages = made("one/two", "--imatrix", str(matrix))
    assert "calibrating" not in stages and not again.with_suffix(".imatrix").exists()
    plain, _ = made("one/three")
    assert first.read_bytes()[-65536:] == again.read_bytes()[-65536:] != plain.read_bytes()[-65536:]
    listed = json.loads(drkun("models", "--json").stdout)["models"]
    assert not [model for model in listed if "imatrix" in model["path"]]
