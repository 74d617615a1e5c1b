"""Questions to the hubs, names, the choice of files, recommended models."""

from __future__ import annotations

import asyncio
import email.utils
import os
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkun_tui import i18n, llama_build
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Gpu, Hardware
from drkun_tui.library.hub import downloads, fitting, recommended
from drkun_tui.library.hub.base import HubError, from_status, host_of, public
from drkun_tui.library.hub.choose import best, choose, variants
from drkun_tui.library.hub.fitting import Verdict, fits_on, judge_safetensors
from drkun_tui.library.hub.meter import Meter
from drkun_tui.library.hub.names import check_files, check_inside, check_repo
from drkun_tui.library.hub.offers import offers
from drkun_tui.library.hub.parameters import parameters_in
from drkun_tui.library.hub.protocol import Filters, HubName, Limits, Listing, RepoFile
from drkun_tui.library.hub.resolve import resolve
from drkun_tui.library.hub.retry import Backoff, StoppedError, retry_after
from drkun_tui.profiles import Profile
from tests.hub_server import COMMIT, HubServer, serving

HUBS: tuple[HubName, ...] = ("hf", "modelscope")
GIB = 1024**3


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        card = b"---\nlicense: apache-2.0\n---\n# Qwen3\n\ntext\n"
        server.add("Qwen/Qwen3-4B-GGUF", {"README.md": card, "a-Q8_0.gguf": bytes(2000)}, tags=["gguf", "zh"])
        server.add("Qwen/Qwen3-8B", {"x": b""}, tags=["safetensors", "en"], downloads=9, gated=True)
        server.add("other/thing", {"x": b""}, tags=["safetensors"], downloads=99)
        yield server


# Questions


@pytest.mark.parametrize("name", HUBS)
async def test_search_by_name(hub: HubServer, name: HubName) -> None:
    found = await downloads.search(name, "qwen")
    assert {model.repo for model in found} == {"Qwen/Qwen3-4B-GGUF", "Qwen/Qwen3-8B"}
    gated = next(model for model in found if model.repo == "Qwen/Qwen3-8B")
    assert (gated.hub, gated.downloads, gated.gated) == (name, 9, True)
    assert gated.tags == ["safetensors", "en"]
    assert gated.parameters == (4_000_000_000 if name == "hf" else 8_000_000_000)


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("filters", [Filters(format="gguf"), Filters(language="zh")])
async def test_search_with_filters(hub: HubServer, name: HubName, filters: Filters) -> None:
    found = await downloads.search(name, "qwen", filters)
    assert [model.repo for model in found] == ["Qwen/Qwen3-4B-GGUF"]


async def test_modelscope_filters_by_size_and_over_pages(hub: HubServer) -> None:
    for number in range(120):
        hub.add(f"org/model-{number}-0.6B", {"x": b""})
    hub.add("org/model-last-7B", {"x": b""})
    found = await downloads.search("modelscope", "model", Filters(least=5000, most=8000))
    assert [model.repo for model in found] == ["org/model-last-7B"]
    assert len(await downloads.search("modelscope", "model", limit=70)) == 70


@pytest.mark.parametrize("name", HUBS)
async def test_a_search_is_tried_twice(hub: HubServer, name: HubName) -> None:
    hub.fault("", status=503, times=1)
    assert await downloads.search(name, "qwen")
    hub.fault("", status=503, times=-1)
    with pytest.raises(DrkunError) as told:
        await downloads.search(name, "qwen")
    assert told.value.kind == "server_error"


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "repo_missing"),
        (429, "rate_limited"),
        (500, "server_error"),
    ],
)
async def test_a_hub_that_answers_with_a_fault(hub: HubServer, name: HubName, status: int, kind: str) -> None:
    """A server that asks for an hour's patience is not waited for."""
    headers = {"Retry-After": "3600"} if status == 429 else {}
    hub.fault("", status=status, headers=headers, times=-1)
    for question in (downloads.search(name, "qwen"), downloads.files(name, "Qwen/Qwen3-8B")):
        with pytest.raises(DrkunError) as told:
            await question
        assert told.value.kind == kind


@pytest.mark.parametrize("name", HUBS)
async def test_a_search_of_a_hub_that_cannot_be_reached(
    hub: HubServer, name: HubName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = f"http://127.0.0.1:{gone.getsockname()[1]}"
    for variable in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(variable, nowhere)
    with pytest.raises(DrkunError) as told:
        await downloads.search(name, "qwen")
    assert told.value.kind == "unreachable"


@pytest.mark.parametrize("name", HUBS)
def test_a_search_does_not_wait_for_ever(hub: HubServer, name: HubName) -> None:
    """Whatever the client library asks for by itself."""
    hub.fault("", what="hold", times=-1)
    ends = {"MODELSCOPE_API_TIMEOUT": "1", "MODELSCOPE_API_MAX_RETRIES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SEARCHES, name], env={**os.environ, **ends}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "stalled", done.stderr


SEARCHES = """
import sys
from drkun_tui.library.hub.base import HubError
from drkun_tui.library.hub.hubs import connect
from drkun_tui.library.hub.protocol import Filters, Limits
try:
    connect(sys.argv[1], Limits(stall_s=1)).search("qwen", Filters(), 5)
except HubError as error:
    print(error.kind)
"""


@pytest.mark.parametrize("name", HUBS)
async def test_the_files_of_a_repository(hub: HubServer, name: HubName) -> None:
    listing = await downloads.files(name, "Qwen/Qwen3-4B-GGUF")
    assert listing.revision == (COMMIT if name == "hf" else "master")
    assert {file.path: file.size for file in listing.files} == {"README.md": 42, "a-Q8_0.gguf": 2000}
    assert all(file.digest for file in listing.files)


@pytest.mark.parametrize("name", HUBS)
async def test_a_card_comes_without_its_metadata_and_bounded(hub: HubServer, name: HubName) -> None:
    assert await downloads.card(name, "Qwen/Qwen3-4B-GGUF") == "# Qwen3\n\ntext\n"
    assert await downloads.card(name, "other/thing") == ""
    hub.add("long/card", {"README.md": b"x" * 1_000_000})
    assert await downloads.card(name, "long/card") == "x" * 262_144


@pytest.mark.parametrize(
    ("name", "repo", "revision", "kind", "code"),
    [
        ("hf", "no/thing", "", "unauthorized", 3),
        ("modelscope", "no/thing", "", "repo_missing", 3),
        ("hf", "Qwen/Qwen3-8B", "no-branch", "revision_missing", 3),
        ("hf", "nonsense", "", "bad_repo", 2),
    ],
)
async def test_questions_about_what_is_not_there(
    hub: HubServer, name: HubName, repo: str, revision: str, kind: str, code: int
) -> None:
    with pytest.raises(DrkunError) as told:
        await downloads.files(name, repo, revision)
    assert (told.value.kind, told.value.exit_code) == (kind, code)


async def test_a_hub_that_is_none(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the login page of a hotel."""
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, f"{hub.url}/portal")
    for name in HUBS:
        with pytest.raises(DrkunError) as told:
            await downloads.files(name, "Qwen/Qwen3-8B")
        assert told.value.kind == "nonsense"
    with pytest.raises(DrkunError) as told:
        await downloads.search("hf", "x")
    assert told.value.kind == "nonsense"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DrkunError) as told:
        await downloads.search("hf", "x")
    assert told.value.kind == "offline"


async def test_the_domain_and_the_login_file_of_modelscope(
    hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", hub.url)
    login = "from modelscope_hub.config import HubConfig; HubConfig().save_token('ms-from-file-123')"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", login], check=True, capture_output=True)
    await downloads.card("modelscope", "Qwen/Qwen3-4B-GGUF")
    assert hub.seen[-1].authorization == "Bearer ms-from-file-123"


async def test_the_login_file_of_hugging_face(hub: HubServer, home: Path) -> None:
    (home / "hf").mkdir(exist_ok=True)
    (home / "hf" / "token").write_text("hf_from_file_123\n")
    await downloads.card("hf", "Qwen/Qwen3-4B-GGUF")
    assert hub.seen[-1].authorization == "Bearer hf_from_file_123"


def test_every_failure_has_a_sentence_in_both_languages() -> None:
    kinds = {key.removeprefix("fetch.") for key in i18n.catalogue("zh") if key.startswith("fetch.")}
    values: dict[str, str | int] = {
        "repo": "a/b\x1b[31m", "page": "https://x", "status": 500, "host": "x", "reason": "r", "file": "f",
        "have": 1, "need": 2, "free": 3, "folder": "d", "path": "p", "patterns": "*", "quant": "q",
        "known": "k", "log": "l", "id": "1", "files": 4,
    }  # fmt: skip
    for language in i18n.LANGUAGES:
        i18n.set_language(language)
        for kind in kinds:
            if not kind.endswith("_hint"):
                error = downloads.error_of(kind, values)
                assert error.kind == kind
                assert error.message.isprintable()
                assert "{" not in error.message + error.hint
    assert downloads.error_of("unheard", {}).kind == "internal"


def test_addresses_are_shown_without_what_is_secret() -> None:
    assert public("https://user:pw@mirror.example/a?Signature=s") == "https://mirror.example/a"
    assert host_of("https://user:pw@mirror.example:8/a") == "mirror.example:8"


@pytest.mark.parametrize(
    ("status", "code", "kind", "retry"),
    [
        (401, "RepoNotFound", "unauthorized", False),
        (404, "RepoNotFound", "repo_missing", False),
        (403, "GatedRepo", "gated", False),
        (404, "EntryNotFound", "file_missing", False),
        (429, "", "rate_limited", True),
        (408, "", "server_error", True),
        (502, "", "server_error", True),
        (400, "", "server_error", False),
    ],
)
def test_what_a_status_stands_for(status: int, code: str, kind: str, retry: bool) -> None:
    error = from_status(status, "a/b", "page", code=code)
    assert (error.kind, error.retry) == (kind, retry)


# Trying again


def noted(waits: list[float]) -> Callable[[float], bool]:
    """Waits not at all, and notes how long it should have."""

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    return wait


def test_waits_grow_with_jitter_up_to_a_limit() -> None:
    waits: list[float] = []
    limits = Limits(tries=6, backoff_s=1, most_backoff_s=5)
    backoff = Backoff(limits, noted(waits), lambda *_: None)
    for _ in range(5):
        backoff.failed(HubError("stalled", retry=True))
    for wait, most in zip(waits, (1, 2, 4, 5, 5), strict=True):
        assert most / 2 <= wait <= most
    with pytest.raises(HubError, match="stalled"):
        backoff.failed(HubError("stalled", retry=True))
    backoff.reset()
    backoff.failed(HubError("stalled", retry=True))
    assert waits[-1] <= 1


def test_the_server_may_ask_for_more_and_not_for_ever() -> None:
    waits: list[float] = []
    backoff = Backoff(Limits(), noted(waits), lambda *_: None)
    backoff.failed(HubError("rate_limited", retry=True, after_s=7))
    backoff.failed(HubError("rate_limited", retry=True, after_s=1e9))
    assert waits == [7, 120]


def test_a_wish_to_stop_ends_the_wait() -> None:
    with pytest.raises(StoppedError):
        Backoff(Limits(), lambda _: True, lambda *_: None).failed(HubError("stalled", retry=True))


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("120") == 120
    soon = retry_after(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert soon is not None
    assert 50 < soon < 61
    assert retry_after(email.utils.formatdate(0, usegmt=True)) == 0
    assert retry_after(None) is retry_after("soon") is retry_after("") is None


def test_the_meter_counts_received_bytes_only_as_speed() -> None:
    meter = Meter()
    meter.expect("a", 500)
    meter.expect("b", 0)
    assert meter.done == 500
    meter.set("a", 100, verifying=True)
    assert (meter.done, meter.verifying, meter.working()) == (500, True, {"a": 100})
    assert meter.speed() == 0
    meter.set("b", 1000, verifying=False)
    assert (meter.done, meter.verifying) == (1500, False)
    assert meter.speed() > 0
    meter.set("b", 0, verifying=False)
    assert meter.done == 500
    meter.finish("a", 600)
    assert (meter.done, meter.working()) == (600, {"b": 0})


# Names


@pytest.mark.parametrize("repo", ["Qwen/Qwen3-4B", "a/b", "01-ai/Yi-1.5", "医疗/模型"])
def test_good_repository_names(repo: str) -> None:
    assert check_repo(repo) == repo


def test_good_file_names() -> None:
    check_files(["model-00001-of-00002.safetensors", "a/b/c.json", "说明.md", ".gitattributes", "LICENSE"])


@given(st.lists(st.text(), max_size=4))
def test_names_that_are_accepted_stay_inside(parts: list[str]) -> None:
    path = "/".join(parts)
    try:
        check_files([path])
        check_inside([path])
    except HubError:
        return
    root = Path("/store/org/name")
    assert root in root.joinpath(*path.split("/")).resolve().parents
    # No control character, none that turns others round, no half of a pair.
    assert {unicodedata.category(character)[0] for character in path} <= set("LMNPSZ")
    assert not {unicodedata.category(character) for character in path} & {"Zl", "Zp"}


def test_names_that_meet_each_other() -> None:
    for pair in (["a", "A"], ["a", "a/b"], ["caf\u00e9", "cafe\u0301"], ["Dir/x", "dir"]):
        with pytest.raises(HubError, match="name_twice"):
            check_files(pair)


# Choosing


def file(path: str, size: int = 100) -> RepoFile:
    return RepoFile(path, size, "a" * 64)


GGUF = [
    file("README.md"),
    file("Qwen3-4B-Q4_K_M.gguf", 250),
    file("Qwen3-4B-Q8_0.gguf", 430),
    file("Qwen3-4B-UD-IQ2_M.gguf", 150),
    file("BF16/Qwen3-4B-BF16-00001-of-00002.gguf", 500),
    file("BF16/Qwen3-4B-BF16-00002-of-00002.gguf", 300),
    file("mmproj-F16.gguf", 60),
    file("imatrix_unsloth.gguf", 20),
]


def paths_of(files: list[RepoFile]) -> set[str]:
    return {one.path for one in files}


def test_the_quantisations_of_a_repository() -> None:
    found = variants(GGUF, lambda size: size < 300)
    assert [(v.quantization, v.size, v.fits, len(v.files)) for v in found] == [
        ("UD-IQ2_M", 150, True, 1),
        ("Q4_K_M", 250, True, 1),
        ("Q8_0", 430, False, 1),
        ("BF16", 800, False, 2),
    ]


SEVERAL = [
    file("llama-1b-Q4_K_M.gguf", 100),
    file("llama-3b-Q4_K_M.gguf", 300),
    file("small/m.gguf", 50),
    file("small/m-00001-of-00002.gguf", 30),
    file("small/m-00002-of-00002.gguf", 30),
    file("README.md", 5),
]
"""Several models of one name, and one both whole and in parts."""


def test_models_of_one_quantisation_stay_apart() -> None:
    found = [(v.quantization, v.name, v.size) for v in variants(SEVERAL, lambda _: True)]
    assert found == [
        ("m", "small/m", 50),
        ("m", "small/m", 60),
        ("Q4_K_M", "llama-1b-Q4_K_M", 100),
        ("Q4_K_M", "llama-3b-Q4_K_M", 300),
    ]
    with pytest.raises(HubError, match="quant_several") as told:
        choose(SEVERAL, lambda _: True, quant="q4_k_m")
    assert told.value.values["known"] == "llama-1b-Q4_K_M, llama-3b-Q4_K_M"


@pytest.mark.parametrize(
    ("free", "quantization"),
    [(10_000, "Q8_0"), (430, "Q8_0"), (300, "Q4_K_M"), (160, "UD-IQ2_M"), (1, "UD-IQ2_M")],
)
def test_the_best_that_fits(free: int, quantization: str) -> None:
    assert best(variants(GGUF, lambda size: size <= free)).quantization == quantization


def test_sixteen_bits_where_there_is_nothing_else() -> None:
    only = [file("m-F16.gguf", 100), file("m-F32.gguf", 200)]
    assert best(variants(only, lambda _: True)).quantization == "F16"


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("qwen3-4b-q4_k_m.gguf", "Q4_K_M"),
        ("model.Q5_K_S.gguf", "Q5_K_S"),
        ("DeepSeek-R1-Distill-Llama-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("q8_0/weights.gguf", "Q8_0"),
        ("ggml-model-fp16.gguf", "FP16"),
        ("drkun.gguf", "drkun"),
    ],
)
def test_how_quantisations_are_written(name: str, quantization: str) -> None:
    assert variants([file(name)], lambda _: True)[0].quantization == quantization


def test_a_gguf_repository_gives_one_quantisation_and_its_card() -> None:
    assert paths_of(choose(GGUF, lambda _: True)) == {"Qwen3-4B-Q8_0.gguf", "README.md"}
    chosen = choose(GGUF, lambda _: True, quant="bf16")
    assert paths_of(chosen) == {*(one.path for one in GGUF if one.path.startswith("BF16")), "README.md"}
    with pytest.raises(HubError, match="quant_missing") as told:
        choose(GGUF, lambda _: True, quant="Q3_K_S")
    assert told.value.values["known"] == "UD-IQ2_M, Q4_K_M, Q8_0, BF16"


SAFETENSORS = [
    file("model-00001-of-00002.safetensors"),
    file("model-00002-of-00002.safetensors"),
    file("model.safetensors.index.json"),
    file("consolidated.safetensors"),
    file("pytorch_model.bin"),
    file("tf_model.h5"),
    file("flax_model.msgpack"),
    file("onnx/model.onnx"),
    file("onnx/config.json"),
    file("original/params.json"),
    file("original/consolidated.00.pth"),
    file("modeling_custom.py"),
    file("config.json"),
    file("generation_config.json"),
    file("tokenizer.json"),
    file("tokenizer.model"),
    file("merges.txt"),
    file("chat_template.jinja"),
    file("additional_chat_templates/tool_use.jinja"),
    file("README.md"),
    file("LICENSE"),
    file("figure.png"),
    file(".gitattributes"),
]


def test_a_safetensors_repository_gives_its_weights_once() -> None:
    assert paths_of(choose(SAFETENSORS, lambda _: True)) == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "merges.txt",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "README.md",
        "LICENSE",
    }


def test_weights_in_a_folder_come_with_what_is_beside_them() -> None:
    files = [file("lora/adapter_model.safetensors"), file("lora/adapter_config.json"), file("other/x.json")]
    assert paths_of(choose(files, lambda _: True)) == {one.path for one in files[:2]}


def test_pickles_are_fetched_only_when_asked_for() -> None:
    pickles = [file("pytorch_model.bin"), file("config.json")]
    with pytest.raises(HubError, match="pickles_only"):
        choose(pickles, lambda _: True)
    assert paths_of(choose(pickles, lambda _: True, include=["*.bin"])) == {"pytorch_model.bin"}
    with pytest.raises(HubError, match="no_weights"):
        choose([file("README.md")], lambda _: True)
    with pytest.raises(HubError, match="nothing_matches"):
        choose(pickles, lambda _: True, include=["*.gguf"])


def test_a_plan_trusts_neither_sizes_nor_digests() -> None:
    listing = Listing("main", [RepoFile("a.safetensors", -5, "../../etc/passwd"), file("b.safetensors")])
    plan = resolve(listing, lambda _: True)
    assert [(one.size, one.digest) for one in plan.files] == [(0, ""), (100, "a" * 64)]
    with pytest.raises(HubError, match="too_many"):
        resolve(Listing("main", [file(str(number)) for number in range(20_001)]), lambda _: True)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Qwen/Qwen3-0.6B-GGUF", 600_000_000),
        ("unsloth/DeepSeek-R1-Distill-Llama-8B", 8_000_000_000),
        ("org/model_135M", 135_000_000),
        ("Qwen/Qwen3-30B-A3B", 30_000_000_000),
        ("org/bert-base", None),
        ("org/v2.5", None),
    ],
)
def test_parameters_by_name(name: str, count: int | None) -> None:
    assert parameters_in(name) == count


# Recommended models


def machine(ram_gib: float, gpu_gib: float = 0) -> Hardware:
    gpus = [Gpu("card", int(gpu_gib * GIB), int(gpu_gib * GIB), "nvidia 1", "nvidia")] if gpu_gib else []
    return Hardware("cpu", 4, 8, int(ram_gib * GIB), int(ram_gib * GIB * 0.8), gpus)


def test_the_list_is_whole() -> None:
    lists = recommended._lists()
    assert tuple(lists) == recommended.CLASSES
    everything = [model for models in lists.values() for model in models]
    for model in everything:
        check_repo(model.repo)
        assert model.hubs
        assert model.zh and model.en
        assert model.quant or "GGUF" not in model.repo
    repos = {model.repo for model in everything}
    assert repos >= {
        "Qwen/Qwen3-4B",
        "Sogrey/Chinese-medical-lora",
        "unsloth/DeepSeek-R1-Distill-Llama-8B",
    }
    assert {model.needs for model in everything if model.needs} <= repos


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        (machine(7.6), "cpu-8gb"),
        (machine(15.5), "cpu-16gb"),
        (machine(64, 7.6), "gpu8"),
        (machine(64, 15.7), "gpu16"),
        (machine(64, 23.6), "gpu24"),
        (machine(7.6, 6), "cpu-8gb"),
    ],
)
def test_the_class_of_a_machine(hardware: Hardware, name: str) -> None:
    assert recommended.machine_class(hardware) == name
    models = recommended.recommended(hardware)
    assert models[0] == recommended._lists()[name][0]
    assert len({model.repo for model in models}) == len(models)


@pytest.mark.parametrize(
    ("hardware", "repo", "fitting"),
    [
        (machine(15.5), "Qwen/Qwen3-4B-GGUF", True),
        (machine(7.6), "Qwen/Qwen3-1.7B-GGUF", True),
        (machine(2.5), "Qwen/Qwen3-0.6B-GGUF", True),
        (machine(1), "Qwen/Qwen3-0.6B-GGUF", False),
        (machine(31, 7.6), "Qwen/Qwen3-4B-GGUF", True),
    ],
)
def test_the_first_choice(hardware: Hardware, repo: str, fitting: bool) -> None:
    model = recommended.first_choice(hardware)
    assert (model.repo, recommended.judge(model, hardware).fits) == (repo, fitting)


def test_a_recommendation_is_one_request_away(home: Path) -> None:
    model = recommended.first_choice(machine(15.5))
    request = model.request(home / "models", "hf")
    assert (request.hub, request.repo, request.quant) == ("hf", "Qwen/Qwen3-4B-GGUF", "Q4_K_M")
    assert model.text == model.zh
    i18n.set_language("en")
    assert model.text == model.en
    assert msgspec.json.decode(msgspec.json.encode(request), type=type(request)) == request


def test_what_fits_before_its_header_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fits_here = fits_on(machine(10))
    assert fits_here(7 * GIB)
    assert not fits_here(int(7.5 * GIB))
    # A card counts where llama.cpp computes on it.
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "")
    assert not fits_on(machine(10, 8))(12 * GIB)
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "CUDA")
    assert fits_on(machine(10, 8))(14 * GIB)
    assert not fits_on(machine(10, 8))(15 * GIB)
    assert not fits_on(machine(10))(12 * GIB)


@pytest.mark.parametrize(
    ("hardware", "gib", "verdict"),
    [
        (machine(10), 7, Verdict(True, Profile.CPU)),
        (machine(10), 7.5, Verdict(False)),
        (machine(10, 23.6), 16, Verdict(True, Profile.GPU16)),
        (machine(10, 7.6), 16, Verdict(True, Profile.GPU8)),
        (machine(64, 7.6), 30, Verdict(True, Profile.CPU)),
        (machine(10, 7.6), 30, Verdict(False)),
    ],
)
def test_safetensors_are_judged_by_the_profile_that_would_load_them(
    monkeypatch: pytest.MonkeyPatch, hardware: Hardware, gib: float, verdict: Verdict
) -> None:
    monkeypatch.setattr(fitting, "missing_packages", lambda _: ["torch"])
    assert judge_safetensors(int(gib * GIB), hardware) == verdict


def test_a_pytorch_without_cuda_leaves_safetensors_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "missing_packages", lambda _: [])
    monkeypatch.setattr(fitting, "torch_has_cuda", lambda: False)
    assert judge_safetensors(3 * GIB, machine(10, 23.6)) == Verdict(True, Profile.CPU)


def test_a_recommended_adapter_is_judged_with_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "missing_packages", lambda _: ["torch"])
    roomy = machine(16, 15.7)
    (adapter,) = [model for model in recommended.recommended(roomy) if model.needs]
    base = recommended.base_of(adapter)
    assert base is not None and base.repo == "Qwen/Qwen3-4B" and recommended.base_of(base) is None
    assert recommended.judge(adapter, roomy) == Verdict(True, Profile.GPU16)
    assert recommended.judge(adapter, machine(4, 3)) == Verdict(False)
    assert (adapter.hub("hf"), base.hub("hf")) == ("modelscope", "hf")


def test_what_can_be_fetched_of_a_repository() -> None:
    sizes = {"a-Q4_K_M.gguf": 4, "a-Q8_0.gguf": 7, "b-Q8_0.gguf": 9, "model.safetensors": 14, "README.md": 0}
    listing = Listing("main", [RepoFile(path, size * GIB) for path, size in sizes.items()])
    offered = offers(listing, machine(10))
    assert [(o.quantization, o.size // GIB, o.verdict.fits, o.default) for o in offered] == [
        ("Q4_K_M", 4, True, False),
        ("Q8_0", 7, True, True),
        ("Q8_0", 9, False, False),
        ("", 14, False, False),
    ]
    assert offered[0].quant == "Q4_K_M" and not offered[0].include
    assert not offered[1].quant and offered[1].include == ("a-Q8_0.gguf", "README.md")
    assert offered[3].include == ("model.safetensors", "README.md")
    (proposed,) = [o for o in offers(listing, machine(10), "Q4_K_M") if o.default]
    assert proposed.quantization == "Q4_K_M"
    (whole,) = offers(Listing("main", listing.files[3:]), machine(10))
    assert whole.default and not whole.include
