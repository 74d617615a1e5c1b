"""Models in other programs' stores, and downloads that have not come to their end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from modelscope_hub._download import DownloadManager, _incomplete_path
from modelscope_hub._legacy_api import LegacyClient
from modelscope_hub.config import HubConfig

from drkun_tui import hardware, paths
from drkun_tui.library import aliases, inventory, speed, stores
from drkun_tui.library.model import Kind, Model, Source
from drkun_tui.library.plan import folders
from drkun_tui.library.scanner import Scanner
from drkun_tui.library.unfinished import MARKER, PARTIAL
from drkun_tui.settings import Settings
from tests import gguf_files
from tests.model_files import CONFIG, put_base, put_json, put_lora, put_safetensors

REVISION, OLDER = "a" * 40, "b" * 40


def found() -> dict[str, Model]:
    """Everything but the bundled model, as the program finds it with nothing configured."""
    models = inventory.scan(folders(Settings()))
    return {model.name: model for model in models if model.name != "starter"}


def one() -> Model:
    (model,) = found().values()
    return model


# Which folders


def test_stores_are_known_without_configuration(
    user_home: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_MODELS")
    assert [(store.source.value, store.path) for store in stores.known()] == [
        ("drkun", home / "models"),
        ("bundled", paths.starter().parent),
        ("huggingface", user_home / ".cache/huggingface/hub"),
        ("modelscope", user_home / ".cache/modelscope"),
        ("lmstudio", user_home / ".lmstudio/models"),
        ("lmstudio", user_home / ".cache/lm-studio/models"),
        ("ollama", user_home / ".ollama/models"),
        ("ollama", Path("/usr/share/ollama/.ollama/models")),
    ]


@pytest.mark.parametrize(
    ("variables", "source", "place"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "huggingface", "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/h"}, "huggingface", "/h/hub"),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}, "huggingface", "/c"),
        ({"HUGGINGFACE_HUB_CACHE": "/old"}, "huggingface", "/old"),
        ({"MODELSCOPE_CACHE": "/m"}, "modelscope", "/m"),
        ({"OLLAMA_MODELS": "/o"}, "ollama", "/o"),
    ],
)
def test_their_variables_move_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], source: str, place: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert [str(store.path) for store in stores.known() if store.source == source] == [place]


def test_both_layouts_of_our_own_store_and_the_bundled_model(home: Path, tmp_path: Path) -> None:
    put_base(home / "models" / "Qwen" / "Qwen3-4B")
    put_lora(home / "models" / "Sogrey" / "Chinese-medical-lora")
    gguf_files.write(home / "models" / "flat.gguf")
    models = inventory.scan(folders(Settings()))
    assert [(model.name, model.source.value, model.removable) for model in models] == [
        ("flat", "drkun", True),
        ("Qwen/Qwen3-4B", "drkun", True),
        ("Sogrey/Chinese-medical-lora", "drkun", True),
        ("starter", "bundled", False),
    ]
    own = gguf_files.write(tmp_path / "mine" / "m.gguf")
    (mine,) = inventory.scan([own.parent])
    assert (mine.source, mine.removable) == (Source.FOLDER, False)
    assert mine.as_dict(hardware.read())["source"] == "folder"
    assert inventory.at(home / "models" / "flat.gguf").source is Source.DRKUN


# huggingface_hub


def cached_file(repository: Path, revision: str, name: str, source: Path) -> Path:
    """Put a file into a cached repository as huggingface_hub does: a link into its blobs."""
    blob = repository / "blobs" / f"{hash((revision, name)) & 0xFFFFFFFF:08x}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, blob)
    link = repository / "snapshots" / revision / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(Path("../" * (2 + name.count("/"))) / "blobs" / blob.name)
    return link


@pytest.fixture
def repository(user_home: Path) -> Path:
    """A base model in huggingface_hub's cache, as its revision of ``main``."""
    folder = user_home / ".cache/huggingface/hub/models--Qwen--Qwen3-0.6B"
    base = put_base(user_home / "made")
    for name in ("config.json", "model.safetensors"):
        cached_file(folder, REVISION, name, base / name)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    return folder


def test_a_repository_in_huggingface_hub_s_cache(repository: Path, user_home: Path) -> None:
    model = one()
    assert (model.name, model.kind, model.source) == ("Qwen/Qwen3-0.6B", Kind.BASE, Source.HUGGINGFACE)
    assert (model.complete, model.removable, model.parameters) == (True, False, 33 * 64)
    # What is no model is not looked into, and another whole revision has its own name.
    put_base(repository.parent / "datasets--some--data" / "snapshots" / REVISION)
    older = put_base(user_home / "older")
    for name in ("config.json", "model.safetensors"):
        cached_file(repository, OLDER, name, older / name)
    assert set(found()) == {"Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B@bbbbbbbb"}
    (repository / "snapshots" / OLDER / "model.safetensors").unlink()
    assert set(found()) == {"Qwen/Qwen3-0.6B"}
    # Named by its path it is the same model.
    assert inventory.at(repository / "snapshots" / REVISION).path == model.path
    assert inventory.at(repository).name == "Qwen/Qwen3-0.6B"


def test_ggufs_in_huggingface_hub_s_cache(user_home: Path) -> None:
    folder = user_home / ".cache/huggingface/hub/models--unsloth--Qwen3-4B-GGUF"
    for name in ("Q4/Qwen3-4B-Q4_K_M.gguf", "Qwen3-4B-Q8_0.gguf"):
        cached_file(folder, REVISION, name, gguf_files.write(user_home / "x.gguf"))
    # Without refs/main nobody knows which revision is meant.
    assert set(found()) == {
        "unsloth/Qwen3-4B-GGUF@aaaaaaaa/Q4/Qwen3-4B-Q4_K_M",
        "unsloth/Qwen3-4B-GGUF@aaaaaaaa/Qwen3-4B-Q8_0",
    }
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(f"{REVISION}\n")
    # An unfinished blob may be another quantisation: a GGUF says itself whether it is whole.
    (folder / "blobs" / "cccc.incomplete").write_bytes(b"GGUF")
    models = found()
    assert set(models) == {"unsloth/Qwen3-4B-GGUF/Q4/Qwen3-4B-Q4_K_M", "unsloth/Qwen3-4B-GGUF/Qwen3-4B-Q8_0"}
    assert all(model.complete for model in models.values())


def test_an_unfinished_download_of_huggingface_hub(repository: Path, user_home: Path) -> None:
    (repository / "blobs" / "0123.incomplete").write_bytes(b"part")
    model = one()
    assert not model.complete
    assert "hf download Qwen/Qwen3-0.6B" in model.problems[0].remedy
    for begins, kind in ((b"GGUF....", Kind.GGUF), (b"\x10\0\0\0", Kind.BASE)):
        other = repository.parent / "models--org--begun"
        for name in ("snapshots", "blobs"):
            (other / name).mkdir(parents=True, exist_ok=True)
        (other / "blobs" / "4567.incomplete").write_bytes(begins)
        begun = found()["org/begun"]
        assert (begun.kind, begun.complete, begun.size_bytes) == (kind, False, len(begins))
        assert begun.source is Source.HUGGINGFACE


def test_an_attempt_that_another_one_has_overtaken_is_no_unfinished_download(repository: Path) -> None:
    """huggingface_hub takes up no unfinished blob: the next attempt has a name of its own."""
    blob = next((repository / "blobs").iterdir())
    for stale in (f"{blob.name}.incomplete", f"{blob.name}.1a2b3c4d.incomplete"):
        blob.with_name(stale).write_bytes(b"part")
    assert one().complete
    blob.with_name("0123.1a2b3c4d.incomplete").write_bytes(b"part")
    assert not one().complete


def test_a_cached_model_that_is_in_our_store_too_keeps_both_names(repository: Path, home: Path) -> None:
    put_base(home / "models" / "Qwen" / "Qwen3-0.6B")
    models = found()
    assert models["Qwen/Qwen3-0.6B"].source is Source.DRKUN
    assert models["huggingface/Qwen/Qwen3-0.6B"].source is Source.HUGGINGFACE


# ModelScope


@pytest.mark.parametrize("layers", ["hub/models", "hub", "models", ""])
def test_modelscope_s_cache(user_home: Path, layers: str) -> None:
    root = user_home / ".cache/modelscope" / layers
    put_base(root / "Qwen" / "Qwen2___5-0___5B")
    # Newer versions also link the name with its dots.
    (root / "Qwen" / "Qwen2.5-0.5B").symlink_to("Qwen2___5-0___5B")
    model = one()
    assert (model.name, model.source) == ("Qwen/Qwen2.5-0.5B", Source.MODELSCOPE)
    assert (model.complete, model.removable) == (True, False)


def test_an_unfinished_download_of_modelscope(user_home: Path) -> None:
    root = user_home / ".cache/modelscope/hub/models"
    put_base(root / "Qwen" / "Qwen3-4B")
    gguf_files.write(root / "org" / "some-GGUF" / "a-Q8_0.gguf")
    for path in ("Qwen/Qwen3-4B/tokenizer.json", "org/some-GGUF/a-Q4_K_M.gguf", "new/Base/model.safetensors"):
        temporary = root / "._____temp" / path
        temporary.parent.mkdir(parents=True)
        temporary.write_bytes(b"part")
    (root / "._____temp" / "old" / "finished").mkdir(parents=True)
    models = found()
    assert {name: model.complete for name, model in models.items()} == {
        "Qwen/Qwen3-4B": False,
        "org/some-GGUF/a-Q8_0": True,
        "org/some-GGUF/a-Q4_K_M": False,
        "new/Base": False,
    }
    assert "modelscope download --model Qwen/Qwen3-4B" in models["Qwen/Qwen3-4B"].problems[0].remedy
    assert (models["org/some-GGUF/a-Q4_K_M"].size_bytes, models["new/Base"].kind) == (4, Kind.BASE)


def test_the_cache_that_modelscope_hub_writes(user_home: Path) -> None:
    root = user_home / ".cache/modelscope/models"
    base = put_base(root / "Qwen--Qwen2.5-0.5B" / "snapshots" / "master")
    gguf_files.write(root / "org--some-GGUF" / "snapshots" / "v1" / "Q4" / "a.gguf")
    models = found()
    assert set(models) == {"Qwen/Qwen2.5-0.5B", "org/some-GGUF@v1/Q4/a"}
    assert all(m.complete and m.source is Source.MODELSCOPE and not m.removable for m in models.values())
    # It is where the client itself puts it.
    settings = HubConfig(cache_dir=user_home / ".cache/modelscope")
    client = DownloadManager(LegacyClient(None, "http://127.0.0.1"), settings)
    place = client._repo_cache_dir_path("Qwen/Qwen2.5-0.5B", "model")
    assert place / "snapshots" / "master" == base
    assert inventory.at(base).complete


def test_an_unfinished_download_of_modelscope_hub(user_home: Path) -> None:
    models = user_home / ".cache/modelscope/models"
    put_base(models / "Qwen--Qwen3-4B" / "snapshots" / "master")
    gguf = gguf_files.write(models / "org--some-GGUF" / "snapshots" / "master" / "a-Q8_0.gguf")
    # Where an older client has put a repository, the new one goes on with it there.
    put_base(models / "old" / "Base")
    for file in (
        models / "Qwen--Qwen3-4B" / "snapshots" / "master" / "tokenizer.json",
        gguf.with_name("a-Q4_K_M.gguf"),
        models / "new--Base" / "snapshots" / "master" / "model.safetensors",
        models / "old" / "Base" / "tokenizer.json",
    ):
        begun = _incomplete_path(file)
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.write_bytes(b"part")
    told = found()
    assert {name: model.complete for name, model in told.items()} == {
        "Qwen/Qwen3-4B": False,
        "org/some-GGUF/a-Q8_0": True,
        "org/some-GGUF/a-Q4_K_M": False,
        "new/Base": False,
        "old/Base": False,
    }
    for name in ("Qwen/Qwen3-4B", "new/Base", "old/Base"):
        assert f"modelscope download --model {name}" in told[name].problems[0].remedy
    assert (told["org/some-GGUF/a-Q4_K_M"].size_bytes, told["new/Base"].kind) == (4, Kind.BASE)


# LM Studio and Ollama


def test_lm_studio_s_models(user_home: Path) -> None:
    gguf_files.write(user_home / ".lmstudio/models/unsloth/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf")
    gguf_files.write(user_home / ".cache/lm-studio/models/pub/repo/old.gguf")
    assert {(name, model.source.value) for name, model in found().items()} == {
        ("unsloth/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M", "lmstudio"),
        ("pub/repo/old", "lmstudio"),
    }


class Ollama:
    """A store of Ollama's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.blobs.mkdir(parents=True)
        self.count = 0

    def blob(self, entries: dict[str, gguf_files.Entry] | None = None) -> str:
        self.count += 1
        digest = f"{self.count:064x}"
        gguf_files.write(self.blobs / f"sha256-{digest}", entries)
        return f"sha256:{digest}"

    def manifest(self, place: str, **layers: str) -> Path:
        path = self.root / "manifests" / place
        told = [{"mediaType": f"application/vnd.ollama.image.{t}", "digest": d} for t, d in layers.items()]
        put_json(path, {"schemaVersion": 2, "layers": told})
        return path


@pytest.fixture
def ollama(user_home: Path) -> Ollama:
    return Ollama(user_home / ".ollama" / "models")


def test_ollama_s_models_are_named_as_it_names_them(ollama: Ollama) -> None:
    model = ollama.blob()
    adapter = ollama.blob(gguf_files.metadata(general__type="adapter"))
    ollama.manifest("registry.ollama.ai/library/qwen3/4b", model=model, template="sha256:" + "e" * 64)
    ollama.manifest("registry.ollama.ai/library/qwen3/latest", model=model)
    ollama.manifest("registry.ollama.ai/someone/tuned/v1", model=model, adapter=adapter)
    ollama.manifest("hf.co/unsloth/Qwen3-4B-GGUF/Q4_K_M", model=ollama.blob())
    ollama.manifest("registry.ollama.ai/library/cloud/latest")
    models = found()
    assert set(models) == {
        *("qwen3:4b", "qwen3:latest", "someone/tuned:v1", "someone/tuned:v1/adapter"),
        "hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M",
    }
    qwen = models["qwen3:4b"]
    assert (qwen.kind, qwen.complete, qwen.architecture) == (Kind.GGUF, True, "qwen3")
    assert (qwen.source, qwen.removable) == (Source.OLLAMA, False)
    assert models["someone/tuned:v1/adapter"].kind is Kind.GGUF_LORA
    inventory.ensure_loadable(qwen)


async def test_names_that_share_a_file_are_models_of_their_own(ollama: Ollama) -> None:
    model = ollama.blob()
    for tag in ("4b", "latest"):
        ollama.manifest(f"registry.ollama.ai/library/qwen3/{tag}", model=model)
    aliases.rename(found()["qwen3:4b"], "mine", found().values())
    assert set(found()) == {"mine", "qwen3:latest"}
    machine = hardware.read()
    scanner = Scanner()
    try:
        told = await scanner.look([ollama.root], machine, speed.known(paths.machine_file(), machine))
    finally:
        await scanner.close()
    assert [entry.model.name for entry in told.entries] == ["mine", "qwen3:latest"]


def test_a_broken_store_of_ollama(ollama: Ollama, tmp_path: Path) -> None:
    gone = ollama.blob()
    shutil.rmtree(ollama.blobs)
    ollama.blobs.mkdir()
    cut = ollama.blob()
    (ollama.blobs / cut.replace(":", "-")).write_bytes(b"GGUF")
    secret = gguf_files.write(tmp_path / "secret.gguf")
    library = "registry.ollama.ai/library"
    ollama.manifest(f"{library}/gone/1", model=gone)
    ollama.manifest(f"{library}/cut/1", model=cut)
    ollama.manifest(f"{library}/outside/1", model=f"sha256:../../../{secret.name}")
    ollama.manifest(f"{library}/absolute/1", model=str(secret))
    ollama.manifest(f"{library}/text/1").write_text("no manifest")
    ollama.manifest(f"{library}/list/1").write_text('["layers"]')
    ollama.manifest(f"{library}/deep/1").write_text("[" * 100_000)
    ollama.manifest(f"{library}/types/1").write_text(json.dumps({"layers": [{"mediaType": 3}]}))
    models = found()
    assert set(models) == {
        f"{name}:1" for name in ("gone", "cut", "outside", "absolute", "text", "list", "deep", "types")
    }
    for name, model in models.items():
        assert not model.complete
        assert model.problems[0].text
        assert model.problems[0].remedy
        assert model.path.is_relative_to(ollama.root), name
    assert "ollama pull gone:1" in str(models["gone:1"].problems[0])


# Downloads of our own that have not come to their end


def mark(folder: Path, **pending: int) -> None:
    told = [{"path": path, "size": size} for path, size in pending.items()]
    put_json(folder / MARKER, {"hub": "hf", "repo": "org/name", "revision": "main", "pending": told})


def part(folder: Path, name: str, size: int) -> None:
    path = folder / PARTIAL / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def test_a_folder_with_a_pending_file_is_not_whole(home: Path) -> None:
    folder = put_base(home / "models" / "org" / "name")
    weights = one().size_bytes
    mark(folder, **{"README.md": 9, "image.png": 9})
    assert one().complete  # nobody needs these
    mark(folder, **{"tokenizer.json": 1000, "README.md": 9})
    part(folder, "0123abcd", 300)  # named by what it will contain
    part(folder, "lock", 50)
    model = one()
    assert not model.complete
    (problem,) = model.problems
    assert "drkun pull org/name" in problem.remedy
    assert (model.size_bytes, model.expected_bytes) == (weights + 300, weights + 1000)
    (folder / MARKER).unlink()
    assert one().complete


def test_of_several_ggufs_only_the_pending_one_is_not_whole(home: Path) -> None:
    folder = home / "models" / "org" / "name"
    gguf_files.write(folder / "m-Q4_K_M.gguf")
    gguf_files.write(folder / "big" / "m-Q8_0-00001-of-00002.gguf")
    put_json(folder / "config.json", CONFIG)
    mark(folder, **{"m-Q5_K_M.gguf": 5000, "big/m-Q8_0-00002-of-00002.gguf": 7000, "params": 1})
    part(folder, "m-Q5_K_M.gguf", 1234)
    models = found()
    assert {name: model.complete for name, model in models.items()} == {
        "org/name/m-Q4_K_M": True,
        "org/name/m-Q5_K_M": False,
        "org/name/big/m-Q8_0": False,
    }
    begun, split = models["org/name/m-Q5_K_M"], models["org/name/big/m-Q8_0"]
    assert (begun.size_bytes, begun.expected_bytes) == (1234, 5000)
    assert split.expected_bytes == split.size_bytes + 7000
    assert len(split.problems) == 1
    # By its path each is the same as in the list.
    assert inventory.at(folder / "m-Q4_K_M.gguf").complete
    assert not inventory.at(folder / "big" / "m-Q8_0-00001-of-00002.gguf").complete
    with pytest.raises(Exception, match="下载没有完成"):
        inventory.ensure_loadable(begun)


@pytest.mark.parametrize(
    ("pending", "kind", "name"),
    [
        ({"config.json": 10, "model.safetensors": 90}, Kind.BASE, "org/name"),
        ({"adapter_config.json": 10, "adapter_model.safetensors": 90}, Kind.LORA, "org/name"),
        ({"Q4/m-00001-of-00002.gguf": 60, "Q4/m-00002-of-00002.gguf": 40}, Kind.GGUF, "org/name/Q4/m"),
    ],
)
def test_a_download_of_which_nothing_is_whole_yet_is_listed(
    home: Path, pending: dict[str, int], kind: Kind, name: str
) -> None:
    folder = home / "models" / "org" / "name"
    mark(folder, **pending, **{"README.md": 5})
    part(folder, next(iter(pending)), 7)
    model = one()
    assert (model.name, model.kind, model.complete) == (name, kind, False)
    assert (model.size_bytes, model.expected_bytes) == (7, 100)
    assert (model.source, model.removable) == (Source.DRKUN, True)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"hub": "hf", "repo": 3}', "[" * 50_000,
        '{"hub": "hf", "repo": "a/b", "pending": [{"path": "../x.gguf"}]}',
        '{"hub": "hf", "repo": "a/b", "pending": [{"path": "/x.gguf"}]}',
        '{"hub": "hf", "repo": "a/b", "pending": [{"path": "x.gguf", "size": -1}]}',
        '{"hub": "hf", "repo": "a/b", "pending": [{"path": ""}]}',
    ],
)  # fmt: skip
def test_a_marker_that_cannot_be_read_makes_nothing_whole(home: Path, text: str) -> None:
    folder = put_base(home / "models" / "org" / "name")
    gguf_files.write(folder / "q.gguf")
    (folder / MARKER).write_text(text)
    models = found()
    assert set(models) == {"org/name", "org/name/q"}
    for model in models.values():
        assert not model.complete
        assert "drkun pull" in model.problems[0].remedy


def test_shards_that_the_index_wants_outside_are_refused(home: Path) -> None:
    folder = put_base(home / "models" / "m")
    put_safetensors(home / "models" / "x.safetensors", {"a": [4]})
    shards = {"a": "model.safetensors", "b": "../x.safetensors"}
    put_json(folder / "model.safetensors.index.json", {"weight_map": shards})
    model = found()["m"]
    assert not model.complete
    assert "../x.safetensors" in model.problems[0].text
    assert model.files == (folder / "model.safetensors",)
