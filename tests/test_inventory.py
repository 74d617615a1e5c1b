"""What is found on disk, what it is called, and what is said of broken models."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from drkun_tui import hardware, paths
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.library import hugging_face, inventory, walk
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.plan import folders
from drkun_tui.settings import Settings
from tests import gguf_files
from tests.model_files import CONFIG, put_base, put_json, put_lora, put_safetensors


def names(*folders: Path) -> list[str]:
    return [model.name for model in inventory.scan(folders)]


def only(folder: Path) -> Model:
    (model,) = inventory.scan([folder])
    return model


def refusal(name: str, *folders: Path) -> DrkunError:
    with pytest.raises(DrkunError) as caught:
        inventory.find(name, folders)
    assert caught.value.exit_code == EXIT_NO_MODEL
    assert caught.value.message.isprintable()
    assert caught.value.hint
    return caught.value


def test_the_bundled_model() -> None:
    model = inventory.find("starter", paths.model_folders())
    assert model.path.samefile(paths.starter())
    assert (model.kind, model.complete, model.problems) == (Kind.GGUF, True, ())
    assert model.demonstration
    assert (model.architecture, model.quantization, model.context_length) == ("qwen3", "Q4_K_M", 2048)
    assert model.parameters == 26_225_152
    assert model.size_bytes == paths.starter().stat().st_size
    inventory.ensure_loadable(model)
    # The store of a checkout holds it too; it is one model, listed once.
    assert names(*paths.model_folders(), paths.starter().parent).count("starter") == 1


def test_a_copy_of_the_bundled_model_is_a_demonstration_too(tmp_path: Path) -> None:
    shutil.copy(paths.starter(), tmp_path / "other-name.gguf")
    assert names(tmp_path) == ["starter"]
    models = inventory.scan([tmp_path, paths.starter().parent])
    assert [(model.name, model.demonstration) for model in models] == [
        ("other-name", True),
        ("starter", True),
    ]
    assert inventory.inspect(tmp_path / "other-name.gguf").model.demonstration


def test_the_json_of_a_model_is_the_contract_s(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "a.gguf")
    told = only(tmp_path).as_dict(hardware.read())
    assert set(told) == {
        "name", "kind", "path", "size_bytes", "architecture", "parameters", "quantization", "context_length",
        "base_model", "complete", "problems", "fits", "demonstration", "source", "removable",
        "expected_bytes",
    }  # fmt: skip
    assert set(told["fits"]) == {"cpu", "gpu8", "gpu16"}
    for fits in told["fits"].values():
        assert set(fits) == {"fits", "need_bytes", "reason"}
        assert fits["reason"]
    assert json.loads(json.dumps(told)) == told
    (tmp_path / "a.gguf").write_text("broken")
    broken = only(tmp_path).as_dict(hardware.read())
    assert broken["fits"]["cpu"]["fits"] is False


def test_kinds_come_from_content_not_from_names(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "lora" / "model.gguf")
    adapter = gguf_files.metadata(general__type="adapter", general__base_model__0__name="Qwen3 4B")
    gguf_files.write(tmp_path / "base" / "tuned.gguf", adapter)
    put_base(tmp_path / "adapter")
    put_lora(tmp_path / "models" / "Sogrey" / "Chinese-medical-lora")
    (tmp_path / "notes.txt").write_text("no model")
    put_json(tmp_path / "tool" / "config.json", {"a": 1})
    kinds = {model.name: model.kind.value for model in inventory.scan([tmp_path])}
    assert kinds == {
        "adapter": "base",
        "base/tuned": "gguf-lora",
        "lora/model": "gguf",
        "models/Sogrey/Chinese-medical-lora": "lora",
    }
    found = {model.name: model for model in inventory.scan([tmp_path])}
    assert found["base/tuned"].base_model == "Qwen3 4B"
    assert found["adapter"].path == tmp_path / "adapter"
    assert all(model.complete for model in found.values())


def test_a_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = only(put_base(tmp_path / "Qwen" / "Tiny"))
    assert model.name == "Tiny"
    assert (model.architecture, model.quantization, model.context_length) == (
        "Qwen3ForCausalLM",
        "BF16",
        4096,
    )
    assert model.parameters == 33 * 64
    assert model.shape
    assert model.shape.cache_bytes == 2 * 2 * 32 * 2
    assert model.shape.embedding_parameters == 32 * 64
    monkeypatch.setattr(inventory, "missing_packages", lambda _: ["torch"])
    with pytest.raises(DrkunError) as caught:
        inventory.ensure_loadable(model)
    assert caught.value.kind == "model_unusable"
    assert "torch" in caught.value.message and "drkun[gpu]" in caught.value.hint
    monkeypatch.setattr(inventory, "missing_packages", lambda _: [])
    inventory.ensure_loadable(model)


def test_a_base_model_of_several_modalities_or_packed(tmp_path: Path) -> None:
    inner = {key: CONFIG[key] for key in CONFIG if key != "architectures"}
    packed = {"architectures": ["X"], "text_config": inner, "quantization_config": {"quant_method": "gptq"}}
    model = only(put_base(tmp_path / "m", packed))
    assert (model.context_length, model.quantization, model.parameters) == (4096, "gptq", None)
    assert model.fits(hardware.read())["gpu8"].need_bytes > 0


def test_shards_are_checked_against_the_index(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    put_json(folder / "config.json", CONFIG)
    shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    put_json(
        folder / "model.safetensors.index.json",
        {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[2]}},
    )
    for shard in shards:
        put_safetensors(folder / shard, {"a": [8, 8]})
    # The same weights again, in Mistral's own layout, count once.
    put_safetensors(folder / "consolidated.safetensors", {"a": [24, 8]})
    assert (only(folder).complete, only(folder).parameters) == (True, 3 * 64)
    (folder / shards[1]).unlink()
    model = only(folder)
    assert not model.complete
    assert "2" in model.problems[0].text
    assert "3" in model.problems[0].text
    assert model.problems[0].remedy
    # Without an index the shards' own names tell.
    (folder / "model.safetensors.index.json").unlink()
    (folder / "consolidated.safetensors").unlink()
    assert not only(folder).complete


def test_broken_weights_are_told(tmp_path: Path) -> None:
    whole = put_base(tmp_path / "m") / "model.safetensors"
    raw = whole.read_bytes()
    for bad in (
        raw[:-1],
        raw[:20],
        b"",
        b"\xff" * 64,
        struct.pack("<Q", 4) + b"[1]x",
        b"\x02" + bytes(7) + b"[]",
    ):
        whole.write_bytes(bad)
        model = only(tmp_path)
        assert not model.complete
        assert len(model.problems) == 1
    whole.unlink()
    assert not only(tmp_path).complete
    (tmp_path / "m" / "config.json").write_text("{")
    assert inventory.scan([tmp_path]) == []
    put_safetensors(whole, {"a": [1]})
    assert not only(tmp_path).complete


def test_pickles_are_listed_and_refused(tmp_path: Path) -> None:
    put_json(tmp_path / "a" / "config.json", CONFIG)
    (tmp_path / "a" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    put_json(tmp_path / "b" / "adapter_config.json", {"r": 8})
    (tmp_path / "b" / "adapter_model.bin").write_bytes(b"\x80\x04")
    for model in inventory.scan([tmp_path]):
        assert not model.complete
        assert "pickle" in model.problems[0].text
        assert "safetensors" in model.problems[0].remedy
        assert model.size_bytes == 2
        with pytest.raises(DrkunError):
            inventory.ensure_loadable(model)


def test_a_lora(tmp_path: Path) -> None:
    model = only(put_lora(tmp_path / "x"))
    assert (model.base_model, model.rank, model.parameters, model.quantization) == (
        "Qwen/Qwen3-4B",
        16,
        2048,
        "F32",
    )
    assert model.complete
    assert not only(put_lora(tmp_path / "x", peft_type="IA3")).complete
    (tmp_path / "x" / "adapter_model.safetensors").unlink()
    assert not only(tmp_path).complete
    (tmp_path / "x" / "adapter_config.json").write_text("[")
    assert len(only(tmp_path).problems) == 2


def test_a_split_gguf_is_one_model(tmp_path: Path) -> None:
    tensors = [[("a", (256, 4), 12)], [("b", (256, 4), 12)], [("c", (256, 4), 12)]]
    parts = [
        gguf_files.write(tmp_path / "big" / f"q-0000{n + 1}-of-00003.gguf", tensors=tensors[n])
        for n in range(3)
    ]
    gguf_files.write(tmp_path / "big" / "other.gguf")
    model = inventory.find("big/q", [tmp_path])
    assert model.path == parts[0]
    assert (model.complete, model.parameters) == (True, 3 * 1024)
    assert model.size_bytes == sum(part.stat().st_size for part in parts)
    assert model.shape
    assert model.shape.weight_bytes == 3 * 4 * 144
    assert inventory.inspect(parts[2]).model.parameters == 3 * 1024
    parts[1].unlink()
    model = inventory.find("q", [tmp_path])
    assert not model.complete
    with pytest.raises(DrkunError) as caught:
        inventory.ensure_loadable(model)
    assert caught.value.kind == "model_unusable"


def test_a_broken_gguf_is_listed_with_its_problem(tmp_path: Path) -> None:
    whole = gguf_files.write(tmp_path / "whole.gguf").read_bytes()
    kinds = {
        "empty": (b"", "gguf_empty"),
        "text": (b"<html>", "gguf_not_gguf"),
        "cut": (whole[:-9], "gguf_truncated"),
        "claims": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1) + bytes(64), "gguf_corrupt"),
        "old": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "gguf_unsupported"),
    }
    for name, (raw, _) in kinds.items():
        (tmp_path / f"{name}.gguf").write_bytes(raw)
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle.gguf").symlink_to(tmp_path / "circle.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    models = {model.name: model for model in inventory.scan([tmp_path])}
    assert set(models) == {"whole", "dangling", "circle", "pipe", *kinds}
    for name, (raw, kind) in kinds.items():
        model = models[name]
        assert not model.complete
        assert model.problems
        assert model.size_bytes == len(raw)
        with pytest.raises(DrkunError) as caught:
            inventory.ensure_loadable(model)
        assert caught.value.kind == kind
    assert models["cut"].architecture == "qwen3"
    assert models["whole"].complete
    # What can be read of a cut file is told.
    cut = inventory.inspect(tmp_path / "cut.gguf")
    assert not cut.complete
    assert cut.metadata["general.name"] == "Tiny"
    assert inventory.inspect(tmp_path / "text.gguf").metadata == {}


def test_ggufs_that_are_no_language_model(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "eye.gguf", gguf_files.metadata("clip", general__type="mmproj"))
    gguf_files.write(tmp_path / "words.gguf", tensors=[])
    for model in inventory.scan([tmp_path]):
        assert model.problems
        with pytest.raises(DrkunError):
            inventory.ensure_loadable(model)


def test_names_are_unique_and_stay_when_a_folder_is_added(tmp_path: Path) -> None:
    for place in ("one/store", "two/store", "three"):
        gguf_files.write(tmp_path / place / "m.gguf")
    put_base(tmp_path / "one" / "store" / "m")
    folders = [tmp_path / "one" / "store", tmp_path / "two" / "store", tmp_path / "three"]
    assert names(folders[0]) == ["m", "store/m"]
    assert names(*folders) == ["m", "store/m", "two/store/m", "three/m"]


def test_links_form_no_loop_and_a_file_is_listed_once(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "a" / "m.gguf")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "again.gguf").symlink_to(tmp_path / "a" / "m.gguf")
    os.link(tmp_path / "a" / "m.gguf", tmp_path / "a" / "twin.gguf")
    assert names(tmp_path, tmp_path / "a") == ["again"]


def test_the_walk_is_bounded(tmp_path: Path) -> None:
    deep = tmp_path
    for level in range(1, 8):
        deep = deep / str(level)
        gguf_files.write(deep / "m.gguf")
    for hidden in (".cache", "checkpoints", "checkpoint-100"):
        gguf_files.write(tmp_path / hidden / "m.gguf")
    assert names(tmp_path) == ["1/m", "1/2/m", "1/2/3/m", "1/2/3/4/m", "1/2/3/4/5/m"]
    assert names(tmp_path / "no such folder", tmp_path / "1" / "m.gguf") == []


def test_a_walk_that_stops_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        gguf_files.write(tmp_path / str(number) / "m.gguf")
    monkeypatch.setattr(walk, "FOLDERS", 4)
    assert inventory.survey([tmp_path]).unreadable == []
    monkeypatch.setattr(walk, "FOLDERS", 3)
    (told,) = inventory.survey([tmp_path]).unreadable
    assert told.path == tmp_path
    assert "3" in told.reason


def test_a_fetched_model_may_be_called_like_a_checkpoint(tmp_path: Path) -> None:
    store = paths.model_store()
    put_lora(store / "someone" / "checkpoint-1000")
    put_lora(store / "run")
    for hidden in ("run/checkpoint-10", "run/checkpoints/a", "checkpoint-5", "someone/.hidden"):
        put_lora(store / hidden)
    assert names(store) == ["run", "someone/checkpoint-1000"]
    # In anybody's own folder it may be one of a run that has not ended.
    put_lora(tmp_path / "mine" / "run" / "checkpoint-10")
    assert names(tmp_path / "mine") == []


def test_finding(tmp_path: Path) -> None:
    for name in ("Qwen/Tiny-Q8", "Qwen/Tiny-Q4", "other/Tiny-Q4"):
        gguf_files.write(tmp_path / f"{name}.gguf")

    def found(name: str) -> str:
        return inventory.find(name, [tmp_path]).name

    assert found("Qwen/Tiny-Q8") == "Qwen/Tiny-Q8"
    assert found("qwen/tiny-q4") == "Qwen/Tiny-Q4"
    assert found("tiny-q8") == "Qwen/Tiny-Q8"
    assert found(str(tmp_path / "Qwen" / "Tiny-Q8.gguf")) == "Tiny-Q8"
    ambiguous = refusal("Tiny-Q4", tmp_path)
    assert ambiguous.kind == "model_ambiguous"
    assert "other/Tiny-Q4" in ambiguous.hint
    unknown = refusal("Qwen/Tiny-Q5", tmp_path)
    assert unknown.kind == "model_not_found"
    assert "Qwen/Tiny-Q" in unknown.hint


@pytest.mark.parametrize(
    "name", ["", " ", "nothing", "x" * 5000, "a\0b", "~nobody-there/x", "\x1b[31m\u202e"]
)
def test_finding_what_is_not_there(tmp_path: Path, name: str) -> None:
    assert refusal(name, tmp_path).kind == "model_not_found"


def test_a_path_to_a_folder_or_to_a_file_in_it(tmp_path: Path) -> None:
    put_base(tmp_path / "m")
    for path in ("m", "m/config.json", "m/model.safetensors"):
        assert inventory.inspect(tmp_path / path).model.kind is Kind.BASE
    (tmp_path / "empty").mkdir()
    assert refusal(str(tmp_path / "empty")).kind == "model_not_found"
    put_lora(tmp_path / "n")
    assert refusal(str(tmp_path)).kind == "model_ambiguous"


def test_inspecting(tmp_path: Path) -> None:
    entries = gguf_files.metadata(scale=float("nan"), tags=["a", "b"])
    told = inventory.inspect(gguf_files.write(tmp_path / "m.gguf", entries))
    as_dict = told.as_dict(hardware.read())
    assert as_dict["metadata"]["general.name"] == "Tiny"
    assert as_dict["metadata"]["tags"] == ["a", "b"]
    assert as_dict["metadata"]["scale"] is None
    assert as_dict["chat_template"] == "{{ messages[0].content }}"
    json.dumps(as_dict, allow_nan=False)
    starter = inventory.inspect(paths.starter())
    assert starter.model.name == "starter"
    assert starter.metadata["tokenizer.ggml.tokens"] == {"type": "strings", "length": 8192}
    base = put_base(tmp_path / "b")
    put_json(base / "tokenizer_config.json", {"chat_template": "old"})
    assert inventory.inspect(base).chat_template == "old"
    (base / "chat_template.jinja").write_text("new")
    assert inventory.inspect(base).chat_template == "new"
    assert inventory.inspect(base).metadata["model_type"] == "qwen3"


def test_every_chat_template_of_a_folder_is_shown(tmp_path: Path) -> None:
    folder = put_base(tmp_path / "m")

    def shown() -> str | None:
        return inventory.inspect(folder).chat_template

    assert shown() is None
    for odd in (7, [], ["text"], [{"name": 1, "template": "x"}], [{"name": [], "template": "x"}]):
        put_json(folder / "tokenizer_config.json", {"chat_template": odd})
        assert shown() is None
    both = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    put_json(folder / "tokenizer_config.json", {"chat_template": both})
    assert shown() == "{# default #}\nplain\n\n{# tool_use #}\ntools"
    (folder / "chat_template.jinja").write_text("file")
    put_json(folder / "tokenizer_config.json", {"chat_template": "plain"})
    assert shown() == "file"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("documents")
    assert shown() == "{# default #}\nfile\n\n{# rag #}\ndocuments"


def test_hostile_file_names(tmp_path: Path) -> None:
    odd = os.fsdecode(b"bad\xff\x1b[31m\xe2\x80\xae.gguf")
    gguf_files.write(tmp_path / odd)
    model = only(tmp_path)
    assert model.name.isprintable()
    json.dumps(model.as_dict(hardware.read()), ensure_ascii=False).encode("utf8")
    assert inventory.find(model.name, [tmp_path]).path == tmp_path / odd


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf")
    assert only(tmp_path).context_length == 4096
    gguf_files.write(path, gguf_files.metadata(qwen3__context_length=8192, more="x"))
    assert only(tmp_path).context_length == 8192


# Faults


def test_a_truncated_shard_is_found_without_reading_its_data(tmp_path: Path) -> None:
    folder = put_base(tmp_path / "m")
    weights = folder / "model.safetensors"
    length = weights.stat().st_size
    os.truncate(weights, length - 1)
    model = only(tmp_path)
    assert not model.complete
    assert f"{length:,}" in model.problems[0].text
    os.truncate(weights, length)
    assert only(tmp_path).complete


def test_a_safetensors_header_is_bounded(tmp_path: Path) -> None:
    folder = put_base(tmp_path / "m")

    def header(raw: bytes, length: int | None = None) -> None:
        whole = struct.pack("<Q", len(raw) if length is None else length) + raw
        (folder / "model.safetensors").write_bytes(whole)

    tensor = '"dtype":"F32","data_offsets":[0,0]'
    hostile = [
        b"{" + b",".join(b'"%d":0' % n for n in range(500_000)) + b"}",
        f'{{"a":{{{tensor},"shape":[{",".join(["9223372036854775807"] * 200_000)}]}}}}'.encode(),
        f'{{"a":{{{tensor},"shape":[-1]}}}}'.encode(),
        f'{{"a":{{{tensor},"shape":[1.5]}}}}'.encode(),
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,' + b"9" * 100_000 + b"]}}",
        b'{"a":' + b"[" * 1_000_000,
        b'{"a":{"dtype":"\\ud800","shape":[1],"data_offsets":[0,4]}}',
    ]
    tracemalloc.start()
    try:
        for raw in hostile:
            header(raw)
            assert not only(tmp_path).complete, raw[:60]
        header(b"{}", (1 << 64) - 1)
        assert not only(tmp_path).complete
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_huge_and_deep_json_is_a_problem_and_no_more(tmp_path: Path) -> None:
    folder = put_base(tmp_path / "m")
    index = folder / "model.safetensors.index.json"
    for text in ("[" * 1_000_000, "{" + ",".join(f'"{n}":0' for n in range(500_000)) + "}", "[]", "{"):
        index.write_text(text)
        model = only(tmp_path)
        assert not model.complete
        assert index.name in model.problems[0].text
    index.unlink()
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 30)
    model = only(tmp_path)
    assert not model.complete
    assert "config.json" in model.problems[0].text


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_base(tmp_path / "closed" / "m")
    put_base(tmp_path / "open" / "m")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # Permissions do not stop the superuser, as whom tests may run.
    monkeypatch.setattr(os, "scandir", refuse)
    survey = inventory.survey([tmp_path, tmp_path / "missing"])
    assert [model.name for model in survey.models] == ["open/m"]
    assert [(told.path, told.reason) for told in survey.unreadable] == [
        (tmp_path / "closed", "Permission denied")
    ]


def test_other_programs_folders_may_be_closed(user_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the folder of a service that runs as another user."""
    closed = [user_home / ".ollama", user_home / ".lmstudio", user_home / ".cache"]
    put_base(user_home / ".lmstudio" / "models" / "m")
    stat, scandir = Path.stat, os.scandir

    def refuse(path: Path | str) -> None:
        if any(folder in Path(path).parents for folder in closed):
            raise PermissionError(13, "Permission denied")

    def closed_stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        refuse(path)
        return stat(path, follow_symlinks=follow_symlinks)

    def closed_scandir(path: Path | str) -> object:
        refuse(path)
        return scandir(path)

    monkeypatch.setattr(Path, "stat", closed_stat)
    monkeypatch.setattr(os, "scandir", closed_scandir)
    survey = inventory.survey(folders(Settings()))
    assert [model.name for model in survey.models] == ["starter"]
    assert survey.unreadable == []


def test_a_folder_may_vanish_while_others_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        put_base(tmp_path / name)
        gguf_files.write(tmp_path / f"{name}.gguf")
    real = hugging_face.describe_base

    def describe(folder: Path, *more: Any) -> Model:
        shutil.rmtree(folder)  # after it was listed, before it is described
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        return real(folder, *more)

    monkeypatch.setattr(hugging_face, "describe_base", describe)
    models = {model.name: model for model in inventory.scan([tmp_path])}
    assert set(models) == {*"abcd", *(f"{tmp_path.name}/{n}" for n in "abc")}
    assert all(model.complete == (model.kind is Kind.GGUF) for model in models.values())


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    put_base(tmp_path / "a" / "m")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "c")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "m" / "model.safetensors").unlink()
    (tmp_path / "a" / "m" / "model.safetensors").symlink_to(tmp_path / "a" / "m" / "model.safetensors")
    model = only(tmp_path)
    assert model.name == "a/m"
    assert not model.complete
