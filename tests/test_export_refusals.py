"""What an export looks at on models made by hand: kinds of adapters, memory and end tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("peft")

import torch
from safetensors.torch import save_file

from drkun_tui import hardware, paths
from drkun_tui.errors import DrkunError
from drkun_tui.publishing import convert, preflight
from drkun_tui.settings import Settings
from tests import model_files
from tests.test_pull import drkun

WIDTH = 64


@pytest.mark.parametrize(
    ("config", "target", "kind", "named"),
    [
        ({"modules_to_save": ["norm", "lm_head"]}, "lora", "lora_has_weights", "norm, lm_head"),
        ({"use_dora": True}, "lora", "not_only_lora", "use_dora"),
        ({"alora_invocation_tokens": [1]}, "q8_0", "not_only_lora", "alora_invocation_tokens"),
    ],
)
def test_what_is_more_than_lora_is_refused_before_anything_is_begun(
    home: Path, config: dict[str, object], target: str, kind: str, named: str
) -> None:
    model_files.put_lora(paths.model_store() / "org" / "more", **config)
    done = drkun("export", "org/more", "--type", target, "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["kind"]) == (2, kind), done.stderr
    assert named in error["message"] and error["hint"] and "\n" not in error["message"]
    assert len(done.stderr.splitlines()) == 1
    assert not (paths.home() / "exports").exists()


def test_memory_is_counted_as_the_source_is_stored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = {}
    for name, dtype in (("narrow", torch.bfloat16), ("wide", torch.float32)):
        folder = model_files.put_base(paths.model_store() / "org" / name)
        tensors = {"embed": torch.zeros(32, WIDTH, dtype=dtype), "norm": torch.zeros(WIDTH, dtype=dtype)}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        need[name] = preflight.check(f"org/{name}", "f16", Settings()).memory_bytes
    # But for the headers of the files.
    assert need["wide"] - need["narrow"] == pytest.approx(2 * (32 * WIDTH + WIDTH), abs=64)
    machine = replace(hardware.read(), ram_available=need["wide"] - 1)
    monkeypatch.setattr(hardware, "read", lambda: machine)
    preflight.check("org/narrow", "f16", Settings())
    with pytest.raises(DrkunError) as raised:
        preflight.check("org/wide", "f16", Settings())
    assert raised.value.kind == "memory_short"


@pytest.mark.parametrize(
    ("told", "own", "end"),
    [
        ([128001, 128008, 128009], 128009, 128009),
        ([151645, 151643], 5, 151645),
        (151645, 151643, 151645),
        (None, 7, 7),
        ([], None, None),
    ],
)
def test_an_answer_ends_with_the_tokenizer_s_token_where_that_is_one_of_several(
    told: object, own: int | None, end: int | None, tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": told}))
    assert convert.end_of_answer(tmp_path, own) == end
