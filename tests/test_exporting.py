"""``drkun export`` on the bundled model, fine-tuned for real: every kind of file says what its source says,
and what cannot be made is told in one line and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

pytest.importorskip("trl")

import numpy
import torch
from msgspec.structs import replace
from safetensors.torch import load_file
from transformers import AutoTokenizer

from drkun_tui import i18n, paths
from drkun_tui.engine.chat_template import NAMED, ChatTemplate
from drkun_tui.engine.protocol import ChatMessage
from drkun_tui.errors import DrkunError
from drkun_tui.library import gguf, inventory, provenance
from drkun_tui.library.model import Kind
from drkun_tui.library.plan import folders, plan_load
from drkun_tui.library.provenance import Prompt, Provenance
from drkun_tui.publishing import converters, modelfile, preflight, prove, release, steps, targets, tasks
from drkun_tui.publishing.faults import PublishingError, error_of
from drkun_tui.publishing.protocol import Proved
from drkun_tui.settings import Settings
from tests import publishing_files
from tests.conftest import PATIENCE_S, has_ended, wait_until
from tests.publishing_files import ADAPTER, exported, refused
from tests.test_pull import command, drkun

pytestmark = pytest.mark.timeout(900)

BASE = "drkun/starter-bf16"
QUESTION = "最近总是头晕，应该怎么办？"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder for the whole module with an adapter in it."""
    folder = tmp_path_factory.mktemp("exporting")
    before = os.environ.get("DRKUN_HOME")
    i18n.set_language("zh")
    publishing_files.train(folder)
    yield folder
    os.environ.pop("DRKUN_HOME") if before is None else os.environ.update(DRKUN_HOME=before)


@pytest.fixture(autouse=True)
def here(trained: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Each test looks at the module's folder; the converters come from a file."""
    monkeypatch.setenv("DRKUN_HOME", str(trained))
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.setenv(converters.SOURCE, str(publishing_files.source(request.config.cache)))
    i18n.set_language("zh")


def ask(*words: str) -> str:
    """What a model answers greedily, without a repeat penalty."""
    plain = ("--temperature", "0", "--repeat-penalty", "1", "--max-tokens", "40", "--no-think")
    done = drkun("ask", *words, *plain, "--json", QUESTION)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return str(told["thinking"] + told["answer"])


@pytest.fixture(scope="module")
def bare(trained: Path, request: pytest.FixtureRequest) -> Path:
    """The base alone, as a GGUF of the same precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(converters.SOURCE, str(publishing_files.source(request.config.cache)))
        return Path(exported(BASE, "--type", "bf16", "--name", "bare/bare")["path"])


def models() -> dict[str, Any]:
    return {model.name: model for model in inventory.scan(folders(Settings()))}


# The loop closed


@pytest.fixture(scope="module")
def of_source(trained: Path) -> str:
    """What base and adapter answer."""
    return ask("--model", BASE, "--adapter", ADAPTER)


def test_a_fine_tune_becomes_a_gguf_that_answers_alike(of_source: str) -> None:
    made = exported(ADAPTER, "--type", "bf16")
    assert made["name"] == "drkun/taught-GGUF/taught-BF16"
    answered = ask("--model", "taught-BF16")
    # Both round to 16 bits, each in its own way; a near tie may then go the other way, and later.
    assert answered[:12] == of_source[:12]
    assert ask("--model", BASE) != of_source

    # One more token that is a little too likely: hardly anything in all figures, and another word.
    store, path = paths.model_store(), Path(made["path"])
    task = tasks.Prove(
        base=str(store / BASE), adapter=str(store / ADAPTER), model=str(path), threads=1, full=True
    )
    make_louder(path, task)
    found = Proved(**prove.prove(task, lambda *_: None))
    limit = targets.tolerance("BF16")
    assert found.agreement > limit.agreement and found.divergence < limit.divergence
    with pytest.raises(PublishingError) as raised:
        targets.check("BF16", found)
    assert raised.value.kind == "other_choice"
    assert "BF16" in error_of(raised.value.kind, raised.value.values).message


def make_louder(made: Path, task: tasks.Prove) -> None:
    """Change one token's row in a GGUF of the bundled model so that it is written once where it was second,
    and nowhere before that."""
    tokenizer = AutoTokenizer.from_pretrained(task.base)
    prompts = [prove._prompt(task, tokenizer, question) for question in prove.QUESTIONS]
    seconds = []
    for text in prove._by_gguf(task, tokenizer, prompts):
        rows = text.logits[text.prompt - 1 :]
        behind = rows.max(1, keepdims=True) - rows
        for number, row in enumerate(rows):
            token = int(row.argsort()[-2])
            least = float(behind[number, token])
            if least > 1.5 * targets.ROUNDING and (behind[:number, token] > 2 * least).all():
                seconds.append((least, token, float(row[token])))
    least, token, logit = min(seconds)
    row = load_file(Path(task.base) / "model.safetensors")["model.embed_tokens.weight"][token]
    before, after = (
        weights.bfloat16().view(torch.uint8).numpy().tobytes()
        for weights in (row, row.float() * (1 + 1.25 * least / logit))
    )
    raw = made.read_bytes()
    assert raw.count(before) == 1
    made.write_bytes(raw.replace(before, after))


def test_the_usual_type_is_chosen_by_name_and_knows_how_it_was_trained(trained: Path) -> None:
    done = drkun("export", ADAPTER, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    made = events[-1]
    proved = next(event for event in events if event["type"] == "proved")
    assert proved["positions"] > 60 and proved["agreement"] > 0.8
    moved = [event for event in events if event["type"] == "progress"]
    assert "converting" in {event["stage"] for event in moved}
    assert all(event["done"] <= event["total"] for event in moved)
    path = Path(made["path"])
    model = models()["drkun/taught-GGUF/taught-Q4_K_M"]
    assert (model.kind, model.quantization, model.complete) == (Kind.GGUF, "Q4_K_M", True)
    assert model.size_bytes == made["size"] == path.stat().st_size
    assert model.demonstration
    of_adapter = provenance.read(paths.model_store() / ADAPTER)
    assert of_adapter is not None
    assert model.provenance == provenance.public(of_adapter)
    header = gguf.read(path)
    assert header.text("tokenizer.ggml.pre") == "qwen2"
    assert header.chat_template == (paths.model_store() / BASE / "chat_template.jinja").read_text()
    assert header.metadata["tokenizer.ggml.eos_token_id"] == 8178
    assert header.name == "taught-Q4_K_M"
    # Each type has its own card.
    assert "as GGUF Q4_K_M" in path.with_suffix(".md").read_text()
    assert not (path.parent / "README.md").exists()
    raw = path.read_bytes()
    assert str(trained).encode() not in raw and os.fsencode(Path.home()) not in raw
    assert ask("--model", "taught-Q4_K_M")
    assert not list(paths.model_store().glob(".export-*"))


def test_it_can_be_a_lora_beside_the_bundled_model(of_source: str, bare: Path) -> None:
    made = exported(ADAPTER, "--type", "lora")
    model = models()[made["name"]]
    assert model.kind is Kind.GGUF_LORA and not model.problems
    assert model.provenance is not None
    plan = plan_load(Settings(model="starter", adapter=made["name"]))
    assert plan.prompt is not None
    assert ask("--model", str(bare), "--adapter", made["name"])[:12] == of_source[:12]
    # On the quantised base, which is not quite the one that it was trained on.
    assert ask("--model", "starter", "--adapter", made["name"]) != ask("--model", "starter")
    # Ollama is told which GGUF it goes on; elsewhere that lies wherever it was put.
    beside = model.path.with_suffix(".Modelfile")
    told = beside.read_text()
    assert told.startswith(f"FROM {paths.starter()}\nADAPTER ./{model.path.name}\nTEMPLATE ")
    published = release.draft(model, models().values()).files
    assert published[beside.name] == beside
    release.check_files(published)
    assert release.as_published(beside.name, beside) == told.replace(
        str(paths.starter()), f"./{paths.starter().name}"
    )


def test_it_can_be_merged_and_is_then_a_model_of_its_own(of_source: str) -> None:
    made = exported(ADAPTER, "--type", "safetensors", "--name", "mine/merged")
    model = models()["mine/merged"]
    assert (model.kind, model.quantization) == (Kind.BASE, "BF16")
    assert model.provenance is not None and model.provenance.prompt.thinking_tags is not None
    assert ask("--model", "mine/merged")[:12] == of_source[:12]
    card = (Path(made["path"]) / "README.md").read_text()
    assert "## Settings" in card and "Kullback-Leibler" in card
    # And it goes on from there.
    assert exported("mine/merged", "--type", "q8_0")["name"] == "mine/merged-GGUF/merged-Q8_0"


def test_a_file_is_never_overwritten() -> None:
    there = paths.model_store() / "twice" / "twice-GGUF" / "twice-F16.gguf"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"mine")
    assert refused(ADAPTER, "--type", "f16", "--name", "twice/twice")["kind"] == "export_exists"
    assert there.read_bytes() == b"mine"


# Proof


@pytest.mark.usefixtures("unmeasured")
def test_a_file_that_says_something_else_is_not_offered() -> None:
    """Ternary weights leave nothing of a small model."""
    error = refused(ADAPTER, "--type", "tq1_0")
    assert error["kind"] == "not_proved" and "TQ1_0" in error["message"]
    assert "drkun/taught-GGUF/taught-TQ1_0" not in models()
    assert not list(paths.model_store().glob("**/*TQ1_0*"))


def test_the_proof_sees_that_an_adapter_was_left_out(bare: Path) -> None:
    store = paths.model_store()
    task = tasks.Prove(
        base=str(store / BASE), adapter=str(store / ADAPTER), model=str(bare), threads=1, full=True
    )
    found = steps.run("drkun_tui.publishing.prove", task, lambda *_: None, lambda: False)
    assert found["divergence"] > targets.tolerance("Q8_0").divergence
    alone = tasks.Prove(base=str(store / BASE), adapter="", model=str(bare), threads=1, full=True)
    found = steps.run("drkun_tui.publishing.prove", alone, lambda *_: None, lambda: False)
    targets.check("BF16", Proved(**found))


def test_a_near_tie_is_no_fault() -> None:
    """Written are tokens 1 and 0: the source would have taken 1, and at the second place 2 by a little."""
    text = prove.Said([3, 1, 0], 1, numpy.zeros((2, 4), numpy.float32))
    expected = numpy.array([[9.0, 20.0, 3.0, 19.0], [18.0, 2.0, 18.125, 4.0]], numpy.float32)
    assert prove.margin_of(expected, text) == 0.125
    near = Proved(positions=90, agreement=1.0, divergence=0.0, same=1, margin=0.125)
    far = replace(near, margin=2 * targets.ROUNDING)
    for target in ("F16", "BF16", "F32", targets.MERGED, targets.LORA):
        targets.check(target, near)
        with pytest.raises(PublishingError, match="other_choice"):
            targets.check(target, far)
    targets.check("Q8_0", far)


def test_tolerances_are_ordered_as_the_types_are() -> None:
    names = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "IQ1_S")
    limits = [targets.tolerance(name) for name in names]
    assert [limit.agreement for limit in limits] == sorted((li.agreement for li in limits), reverse=True)
    assert [limit.divergence for limit in limits] == sorted(li.divergence for li in limits)


# Tokenizers


def copied_base(name: str) -> Path:
    store = paths.model_store()
    shutil.copytree(store / BASE, store / name)
    return store / name


def split_otherwise(folder: Path, pattern: str) -> None:
    """Let a tokenizer cut texts at other places."""
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    told["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    file.write_text(json.dumps(told))
    # A generic class takes the file at its word.
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_tokenizer_that_splits_as_no_known_one_is_refused() -> None:
    split_otherwise(copied_base("odd/odd"), "..")
    error = refused("odd/odd", "--type", "f16")
    assert error["kind"] == "unknown_tokenizer"
    assert "odd/odd-GGUF/odd-F16" not in models()


# Importance matrices


def columns() -> dict[str, int]:
    """Columns of each linear weight of the bundled model by llama.cpp's names."""
    found = gguf.read(paths.starter()).tensors.shapes
    return {
        name: shapes[0][0]
        for name, shapes in found.items()
        if name.endswith(".weight") and len(shapes[0]) == 2
    }


def write_matrix(path: Path, of: dict[str, int]) -> Path:
    """An importance matrix in llama.cpp's older format."""
    drawn = numpy.random.default_rng(0)
    raw = struct.pack("<i", len(of))
    for name, count in of.items():
        values = drawn.exponential(size=count).astype("<f4") ** 3
        raw += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 7, count) + values.tobytes()
    path.write_bytes(raw)
    return path


def all_columns() -> dict[str, int]:
    return {
        name.replace("blk.*", f"blk.{layer}"): count
        for layer in range(8)
        for name, count in columns().items()
    }


def test_an_importance_matrix_changes_what_is_kept(tmp_path: Path) -> None:
    matrix = write_matrix(tmp_path / "matrix.dat", all_columns())
    plain = exported(ADAPTER, "--type", "q4_0", "--name", "plain/plain")
    weighed = exported(ADAPTER, "--type", "q4_0", "--name", "weighed/weighed", "--imatrix", str(matrix))
    assert plain["size"] == pytest.approx(weighed["size"], rel=0.01)
    assert Path(plain["path"]).read_bytes()[-4096:] != Path(weighed["path"]).read_bytes()[-4096:]


def test_a_wrong_importance_matrix_is_told(tmp_path: Path) -> None:
    other = write_matrix(tmp_path / "other.dat", dict.fromkeys(all_columns(), 96))
    assert refused(ADAPTER, "--type", "q5_0", "--imatrix", str(other))["kind"] == "imatrix_other"
    (tmp_path / "text").write_text("no matrix at all")
    assert refused(ADAPTER, "--type", "q5_0", "--imatrix", str(tmp_path / "text"))["kind"] == (
        "imatrix_unreadable"
    )
    assert refused(ADAPTER, "--type", "q5_0", "--imatrix", str(tmp_path / "no"))["kind"] == (
        "imatrix_unreadable"
    )
    assert refused(ADAPTER, "--type", "iq2_xxs")["kind"] == "needs_imatrix"


# Refused before anything is written


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ((ADAPTER, "--type", "q9"), "unknown_target"),
        (("starter",), "not_exportable"),
        ((BASE, "--type", "lora"), "not_exportable"),
        ((BASE, "--type", "safetensors"), "not_exportable"),
        (("nobody/nothing",), "model_not_found"),
        ((ADAPTER, "--base", "nobody/nothing"), "model_not_found"),
        ((ADAPTER, "--base", "starter"), "adapter_mismatch"),
        ((ADAPTER, "--name", "../out"), "import_name"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], kind: str) -> None:
    assert refused(*words)["kind"] == kind


def test_a_base_in_four_bits_is_refused() -> None:
    folder = copied_base("packed/packed")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    assert refused(ADAPTER, "--base", "packed/packed")["kind"] == "base_quantised"


def test_another_base_of_the_same_shape_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    copied_base("another/model")
    found = preflight.check(ADAPTER, "q8_0", Settings(), base="another/model", name="x/y")
    assert any("another/model" in warning for warning in found.warnings)


def test_room_and_memory_are_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = preflight.check(ADAPTER, "q5_1", Settings())
    assert found.disk_bytes > found.result_bytes > 10_000_000
    usage = shutil.disk_usage(paths.model_store())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=found.disk_bytes - 1))
    with pytest.raises(DrkunError) as raised:
        preflight.check(ADAPTER, "q5_1", Settings())
    assert raised.value.kind == "disk_short"
    monkeypatch.undo()
    monkeypatch.setenv("DRKUN_HOME", str(paths.home()))


# Faults on the way


def test_a_full_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, hard))
    try:
        told = [refused(ADAPTER, "--type", name, "--name", "full/full") for name in ("safetensors", "f16")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [error["kind"] for error in told] == ["disk_full", "disk_full"]
    assert not [name for name in models() if name.startswith("full/")]
    assert not list(paths.model_store().glob(".export-*"))


def begun(*words: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """An export at work: the command, and the job's process with a stage at work."""
    started = subprocess.Popen(
        command("export", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )

    def job() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if "drkun_tui.publishing.job" in line and str(paths.home()) in line[-1] and process.children():
                return process
        return None

    wait_until(lambda: job() is not None)
    found = job()
    assert found is not None
    return started, found


@pytest.mark.usefixtures("unmeasured")
def test_a_killed_export_is_no_model_and_the_next_one_cleans_up() -> None:
    before = set(models())
    started, job = begun(ADAPTER, "--type", "q8_0", "--name", "killed/killed")
    (stage,) = job.children()
    os.kill(job.pid, signal.SIGKILL)
    assert started.wait(PATIENCE_S) == 4
    assert started.stderr is not None and "Traceback" not in started.stderr.read().decode()
    wait_until(lambda: has_ended(stage.pid))
    assert set(models()) == before
    assert list(paths.model_store().glob(".export-*"))
    exported(ADAPTER, "--type", "q8_0", "--name", "killed/killed")
    assert not list(paths.model_store().glob(".export-*"))


def test_a_stopped_export_leaves_nothing() -> None:
    started, job = begun(ADAPTER, "--type", "q8_0", "--name", "stopped/stopped")
    (stage,) = job.children()
    started.send_signal(signal.SIGINT)
    assert started.wait(PATIENCE_S) == 130
    wait_until(lambda: has_ended(stage.pid))
    assert not [name for name in models() if name.startswith("stopped/")]
    assert not list(paths.model_store().glob(".export-*"))


@pytest.mark.usefixtures("unmeasured")
def test_one_that_goes_on_by_itself_is_listed_stopped_and_followed() -> None:
    started, job = begun(ADAPTER, "--type", "q8_0", "--name", "away/away", "--detach")
    (stage,) = job.children()
    id = started.communicate(timeout=PATIENCE_S)[0].decode().strip()
    newest = json.loads(drkun("export", "--list", "--json").stdout)["exports"][0]
    assert (newest["id"], newest["model"], newest["type"], newest["error"]) == (id, ADAPTER, "Q8_0", None)
    assert newest["phase"] not in ("stopped", "done", "failed")
    assert id in drkun("export", "--list").stdout
    stopped = json.loads(drkun("stop", id[-6:], "--json").stdout)
    assert stopped == {"kind": "export", "id": id, "phase": "stopped"}
    wait_until(lambda: has_ended(stage.pid))
    followed = drkun("export", "--follow", id)
    assert followed.returncode == 130 and i18n.t("publishing.stopped") in followed.stderr
    assert not [name for name in models() if name.startswith("away/")]


@pytest.mark.parametrize(
    ("words", "kind"),
    [((), "bad_usage"), ((ADAPTER, "--list"), "bad_usage"), (("--follow", "nothing"), "no_job")],
)
def test_an_export_is_begun_followed_or_listed(words: tuple[str, ...], kind: str) -> None:
    done = drkun("export", *words, "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["kind"]) == (2, kind)


def test_a_stage_that_dies_is_told() -> None:
    started, job = begun(ADAPTER, "--type", "q8_0", "--name", "dies/dies")
    os.kill(job.children()[0].pid, signal.SIGKILL)
    assert started.wait(PATIENCE_S) == 4
    assert started.stderr is not None and "SIGKILL" in started.stderr.read().decode()
    assert not list(paths.model_store().glob(".export-*"))


# The converters


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another cache folder."""
    monkeypatch.setattr(paths, "cache", lambda: tmp_path / "cache")
    return tmp_path


def test_converters_are_those_of_the_installed_version(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = converters.ensure(lambda: False)
    assert folder.name == f"llama.cpp-{converters.version()}"
    assert (folder / "conversion" / "qwen.py").is_file() and (folder / "LICENSE").is_file()
    # Once there, nothing more is asked for.
    monkeypatch.setenv(converters.SOURCE, "/nowhere")
    assert converters.ensure(lambda: False) == folder
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == [folder.name]


def test_converters_of_another_version_are_not_taken(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(converters.SOURCE, str(elsewhere / "llama_cpp_python-0.1.0.tar.gz"))
    with pytest.raises(PublishingError) as raised:
        converters.ensure(lambda: False)
    assert raised.value.kind == "converters_other"
    broken = elsewhere / f"llama_cpp_python-{converters.version()}.tar.gz"
    broken.write_bytes(b"\x1f\x8b no archive")
    monkeypatch.setenv(converters.SOURCE, str(broken))
    with pytest.raises(PublishingError) as raised:
        converters.ensure(lambda: False)
    assert raised.value.kind == "converters_broken"
    assert not [path for path in (elsewhere / "cache").iterdir() if not path.name.endswith(".lock")]


def test_without_a_network_it_is_one_line(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(converters.SOURCE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(elsewhere))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(PublishingError) as raised:
        converters.ensure(lambda: False)
    assert raised.value.kind in ("converters_missing", "no_pip")
    assert not converters.present()


# How it is asked elsewhere


def by_go(template: str, system: str, prompt: str) -> str:
    """The few words of Go's template language that a Modelfile of ours has."""
    if found := re.fullmatch(r"\{\{ if \.System \}\}(.*)\{\{ else \}\}(.*)\{\{ end \}\}(.*)", template, re.S):
        template = (found[1] if system else found[2]) + found[3]
    return template.replace("{{ .System }}", system).replace("{{ .Prompt }}", prompt)


@pytest.mark.parametrize("name", ["sikao", "starter"])
def test_ollama_asks_as_the_model_was_trained(name: str) -> None:
    source = NAMED.get(name) or gguf.read(paths.starter()).chat_template
    trained = Provenance(prompt=Prompt(system="你是医生。", thinking_tags=("<思考>", "</思考>")), recipe="x")
    told = modelfile.write("./m.gguf", source, trained)
    assert told.startswith("FROM ./m.gguf\n") and 'SYSTEM """你是医生。"""' in told
    (template,) = re.findall(r'TEMPLATE """(.*?)"""', told, re.S)
    asked, _, _ = template.partition("{{ .Response }}")
    rendered = ChatTemplate(source)
    for system in ("", "只用中文。"):
        messages = [ChatMessage("system", system)] if system else []
        wanted = rendered.render([*messages, ChatMessage("user", QUESTION)], think=True)
        assert by_go(asked, system, QUESTION) == wanted


def test_what_is_handed_on_names_no_path(tmp_path: Path) -> None:
    recipe = f'[base]\nmodel = "starter"\n[data]\npath = "{tmp_path}/patients.csv"\n'
    told = provenance.public(Provenance(base_model=f"{tmp_path}/base", recipe=recipe))
    assert str(tmp_path) not in provenance.dump(told)
    assert "patients.csv" in told.recipe and told.base_model == "base"
    assert provenance.parse(provenance.dump(told)) == told
    assert provenance.parse("{") is None and provenance.parse('{"prompt": 3}') is None


def test_a_stage_ends_with_its_export() -> None:
    """Its input ends when the export is gone."""
    stage = subprocess.Popen(
        [sys.executable, "-m", "drkun_tui.publishing.prove"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert stage.stdin is not None and prove.__name__
    stage.stdin.close()
    assert stage.wait(PATIENCE_S) != 0
