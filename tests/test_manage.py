"""Importing, removing and renaming models: nothing overwritten, nothing outside the store touched."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from drkun_tui import i18n, paths
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_NO_MODEL, DrkunError
from drkun_tui.library import aliases, inventory, manage
from drkun_tui.library.manage import Mode, import_model
from drkun_tui.library.model import Kind, Model, Source
from drkun_tui.library.plan import folders, plan_load
from drkun_tui.library.unfinished import MARKER, PARTIAL
from drkun_tui.settings import Settings
from tests import gguf_files
from tests.model_files import put_base, put_json, put_lora

MODES = list(Mode)


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is no model folder."""
    folder = tmp_path_factory.mktemp("outside") / "files"
    folder.mkdir()
    return folder


def found() -> dict[str, Model]:
    models = inventory.scan(folders(Settings()))
    return {model.name: model for model in models if model.name != "starter"}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder; folders have no content, links are what they lead to."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(path: Path, mode: Mode = Mode.COPY, name: str | None = None) -> DrkunError:
    before = tree(paths.model_store()), tree(path.parent) if path.parent.exists() else {}
    with pytest.raises(DrkunError) as caught:
        import_model(path, mode, name)
    after = tree(paths.model_store()), tree(path.parent) if path.parent.exists() else {}
    assert after == before
    error = caught.value
    assert error.message.isprintable()
    assert error.hint
    return error


# Importing


@pytest.mark.parametrize("mode", MODES)
def test_importing_a_gguf(outside: Path, mode: Mode) -> None:
    source = gguf_files.write(outside / "m.gguf")
    content = source.read_bytes()
    model = import_model(source, mode)
    target = paths.model_store() / "m.gguf"
    assert (model.name, model.path, model.source) == ("m", target, Source.DRKUN)
    assert target.read_bytes() == content
    assert target.is_symlink() == (mode is Mode.LINK)
    assert source.exists() == (mode is not Mode.MOVE)
    assert found()["m"].complete
    assert not list(paths.model_store().glob(".*"))


@pytest.mark.parametrize("mode", MODES)
def test_importing_a_split_gguf_from_any_part_under_another_name(outside: Path, mode: Mode) -> None:
    for number, tensor in enumerate("ab", 1):
        gguf_files.write(outside / f"q-0000{number}-of-00002.gguf", tensors=[(tensor, (256, 4), 12)])
    gguf_files.write(outside / "other.gguf")
    model = import_model(outside / "q-00002-of-00002.gguf", mode, "org/big.gguf")
    assert (model.name, model.complete, len(model.files)) == ("org/big", True, 2)
    assert set(found()) == {"org/big"}
    names = {path.name for path in (paths.model_store() / "org").iterdir()}
    assert names == {"big-00001-of-00002.gguf", "big-00002-of-00002.gguf"}


@pytest.mark.parametrize("mode", MODES)
def test_importing_a_folder(outside: Path, mode: Mode) -> None:
    folder = put_base(outside / "Tiny")
    (folder / "tokenizer.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / "sub").mkdir()
    (folder / "sub" / "notes.txt").write_text("x")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder)
    model = import_model(folder / "config.json", mode, "Qwen/Tiny")
    target = paths.model_store() / "Qwen" / "Tiny"
    assert (model.name, model.kind, model.path) == ("Qwen/Tiny", Kind.BASE, target)
    assert (target / "tokenizer.json").read_text() == "{}"
    assert (target / "sub" / "notes.txt").exists()
    assert target.is_symlink() == (mode is Mode.LINK)
    if mode is Mode.COPY:
        assert not any((target / name).exists() for name in ("pipe", "loop", ".git"))
    assert folder.exists() == (mode is not Mode.MOVE)
    assert found()["Qwen/Tiny"].complete


def test_a_cache_s_links_are_followed_when_copied(user_home: Path) -> None:
    repository = user_home / ".cache/huggingface/hub/models--Qwen--Tiny"
    made = put_base(repository / "blobs" / "made")
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(made / name)
    assert refused(snapshot, Mode.MOVE).kind == "import_not_movable"
    model = import_model(snapshot, Mode.COPY)
    assert model.name == "Qwen/Tiny"
    shutil.rmtree(repository)
    assert found()["Qwen/Tiny"].complete


def test_a_blob_is_named_after_the_model_in_it(outside: Path) -> None:
    shutil.move(gguf_files.write(outside / "m.gguf"), outside / "sha256-00aa")
    assert import_model(outside / "sha256-00aa", Mode.LINK).path.name == "Tiny.gguf"


def test_what_is_no_model_is_refused(outside: Path) -> None:
    (outside / "page.gguf").write_text("<html>")
    (outside / "notes.txt").write_text("notes")
    (outside / "empty").mkdir()
    whole = gguf_files.write(outside / "cut.gguf")
    whole.write_bytes(whole.read_bytes()[:-1])
    (outside / "circle.gguf").symlink_to(outside / "circle.gguf")
    kinds = {
        "page.gguf": "gguf_not_gguf",
        "notes.txt": "gguf_not_gguf",
        "cut.gguf": "gguf_truncated",
        "empty": "model_not_found",
        "nothing": "model_not_found",
        "circle.gguf": "model_not_found",
        "x" * 4000: "model_not_found",
        "nul\0": "model_not_found",
    }
    for name, kind in kinds.items():
        for mode in MODES:
            error = refused(outside / name, mode)
            assert (error.kind, error.exit_code) == (kind, EXIT_NO_MODEL), name
    gguf_files.write(outside / "q-00001-of-00002.gguf")
    assert refused(outside / "q-00001-of-00002.gguf").kind == "import_refused"
    put_json(outside / "pickled" / "config.json", {"model_type": "x"})
    (outside / "pickled" / "pytorch_model.bin").write_bytes(b"\x80")
    assert "pickle" in refused(outside / "pickled").message
    assert refused(outside).kind == "model_ambiguous"


@pytest.mark.parametrize(
    "name",
    [
        "..", "../x", "a/../../x", "/tmp/x", "/", "", " ", ".", ".hidden", "a//b", "a/", "x" * 4000, "a\nb",
        "a\x1b[31m", "a\u202eb", "a\0b", "a/b/c/d", "checkpoints", "checkpoint-7", "a\\..\\b", "x/.cache/y",
        "trailing.", "datasets--x",
    ],
)  # fmt: skip
def test_names_that_lead_out_of_the_store_or_out_of_sight_are_refused(outside: Path, name: str) -> None:
    source = gguf_files.write(outside / "m.gguf")
    for mode in MODES:
        error = refused(source, mode, name)
        assert (error.kind, error.exit_code) == ("import_name", EXIT_BAD_INPUT)


def test_a_hostile_file_name_becomes_a_safe_one(outside: Path) -> None:
    odd = outside / os.fsdecode(b"..\xff\x1b[31m\xe2\x80\xae\\x.gguf")
    gguf_files.write(odd)
    model = import_model(odd, Mode.COPY)
    assert model.name.isprintable()
    assert model.path.parent == paths.model_store()
    assert not model.path.name.startswith(".")
    assert set(found()) == {model.name}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_overwritten(outside: Path, mode: Mode) -> None:
    store = paths.model_store()
    gguf_files.write(store / "m.gguf")
    put_base(store / "Tiny")
    (store / "dangling.gguf").symlink_to(store / "nothing")
    source = gguf_files.write(outside / "m.gguf", gguf_files.metadata(general__name="Another"))
    assert refused(source, mode).kind == "import_exists"
    assert refused(source, mode, "dangling").kind == "import_exists"
    assert refused(put_lora(outside / "l" / "Tiny"), mode).kind == "import_exists"
    # Two files of one split model: one is there already.
    gguf_files.write(store / "q-00002-of-00002.gguf")
    for number, tensor in enumerate("ab", 1):
        gguf_files.write(outside / "s" / f"q-0000{number}-of-00002.gguf", tensors=[(tensor, (256, 4), 12)])
    assert refused(outside / "s" / "q-00001-of-00002.gguf", mode).kind == "import_exists"


def test_what_is_in_the_store_is_not_imported_again() -> None:
    inside = gguf_files.write(paths.model_store() / "m.gguf")
    for mode in MODES:
        assert refused(inside, mode, "n").kind == "import_here"


def test_links_are_not_moved(outside: Path) -> None:
    gguf_files.write(outside / "m.gguf")
    (outside / "l.gguf").symlink_to(outside / "m.gguf")
    assert refused(outside / "l.gguf", Mode.MOVE).kind == "import_not_movable"


def test_a_full_disk_is_seen_before_and_in_the_middle(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, tensor in enumerate("ab", 1):
        gguf_files.write(outside / f"q-0000{number}-of-00002.gguf", tensors=[(tensor, (256, 4), 12)])
    source = outside / "q-00001-of-00002.gguf"
    usage = shutil.disk_usage(outside)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
        error = refused(source, name="org/q")
        assert (error.kind, error.exit_code) == ("import_no_space", EXIT_FAILED)
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        copy(source, target)
        if "00002-of" in str(source):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    for path in (source, put_base(outside / "00002-of")):
        error = refused(path, name="org/q")
        assert error.kind == "import_failed"
        assert i18n.t("export.full") in error.message


def test_a_move_between_disks_copies_and_then_removes(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manage, "_same_device", lambda *_: False)
    file, folder = gguf_files.write(outside / "m.gguf"), put_base(outside / "Tiny")
    import_model(file, Mode.MOVE)
    import_model(folder, Mode.MOVE)
    assert tree(outside) == {}
    folder = put_base(outside / "Tuned")
    gguf_files.write(folder / "checkpoints" / "m.gguf")
    import_model(folder, Mode.MOVE)
    assert set(tree(outside)) == {"Tuned", "Tuned/checkpoints", "Tuned/checkpoints/m.gguf"}
    assert {model.name: model.complete for model in found().values()} == {
        "m": True,
        "Tiny": True,
        "Tuned": True,
    }


def test_a_move_that_fails_half_way_is_undone(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, tensor in enumerate("ab", 1):
        gguf_files.write(outside / f"q-0000{number}-of-00002.gguf", tensors=[(tensor, (256, 4), 12)])
    place = manage._place

    def fail(source: Path, target: Path) -> None:
        if "00002-of" in source.name:
            raise PermissionError(errno.EACCES, "denied")
        place(source, target)

    monkeypatch.setattr(manage, "_place", fail)
    assert refused(outside / "q-00001-of-00002.gguf", Mode.MOVE).kind == "import_failed"


def test_one_that_comes_between_is_not_overwritten(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs import under the same name at the same time."""
    source = gguf_files.write(outside / "m.gguf")
    target = paths.model_store() / "m.gguf"
    copy = shutil.copyfile

    def meanwhile(source: Path, aside: Path) -> None:
        copy(source, aside)
        target.write_text("another's")

    monkeypatch.setattr(shutil, "copyfile", meanwhile)
    with pytest.raises(DrkunError) as caught:
        import_model(source, Mode.COPY)
    assert caught.value.kind == "import_failed"
    assert tree(paths.model_store()) == {"m.gguf": b"another's"}


# Removing


def gone(name: str) -> manage.Removal:
    """Remove a model, and see that what was announced is what happened."""
    models = list(found().values())
    model = inventory.chosen(name, models)
    planned = manage.removal(model, models)
    done = manage.remove(model)
    assert done.paths == planned.paths
    assert not any(os.path.lexists(path) for path in planned.paths)
    assert name not in found()
    return planned


def test_removing_frees_what_it_says_and_takes_empty_folders_along() -> None:
    store = paths.model_store()
    file = gguf_files.write(store / "org" / "name" / "m.gguf")
    (file.parent / "README.md").write_text("card")
    size = file.stat().st_size
    planned = gone("org/name/m")
    assert planned.paths == (store / "org",)
    assert planned.frees_bytes == size + len("card")
    assert tree(store) == {}
    assert store.exists()


def test_removing_leaves_what_is_not_the_model_s() -> None:
    store = paths.model_store()
    for name in ("a", "b"):
        gguf_files.write(store / "org" / f"{name}.gguf")
    put_base(store / "org" / "Tiny")
    (store / "org" / "notes.txt").write_text("mine")
    gone("org/a")
    gone("org/Tiny")
    assert set(tree(store)) == {"org", "org/b.gguf", "org/notes.txt"}
    gone("org/b")
    assert set(tree(store)) == {"org", "org/notes.txt"}
    # A folder model with a GGUF beside its weights, and one that lies in the store itself.
    folder = put_base(store / "mixed")
    gguf_files.write(folder / "q.gguf")
    gone("mixed")
    assert set(found()) == {"mixed/q"}
    put_base(store)
    gone("models")
    assert set(found()) == {"mixed/q"}


def test_removing_a_split_model() -> None:
    store = paths.model_store()
    for number, tensor in enumerate("ab", 1):
        gguf_files.write(store / f"q-0000{number}-of-00002.gguf", tensors=[(tensor, (256, 4), 12)])
    assert len(gone("q").paths) == 2
    assert tree(store) == {}


def test_only_the_link_is_removed(outside: Path) -> None:
    file, folder = gguf_files.write(outside / "m.gguf"), put_base(outside / "Tiny")
    before = tree(outside)
    import_model(file, Mode.LINK)
    import_model(folder, Mode.LINK, "org/Tiny")
    for name, target in (("m", file), ("org/Tiny", folder)):
        planned = gone(name)
        assert planned.frees_bytes == 0
        assert str(target) in planned.note
    assert tree(outside) == before
    assert tree(paths.model_store()) == {}


def test_what_lies_behind_a_link_to_several_models_stays(outside: Path) -> None:
    for name in ("a", "b"):
        gguf_files.write(outside / f"{name}.gguf")
    paths.model_store().mkdir()
    (paths.model_store() / "many").symlink_to(outside)
    with pytest.raises(DrkunError) as caught:
        manage.removal(found()["many/a"])
    assert caught.value.kind == "remove_behind_link"
    (outside / "b.gguf").unlink()
    assert gone("many/a").paths == (paths.model_store() / "many",)
    assert set(tree(outside)) == {"a.gguf"}


def test_a_file_with_another_name_frees_nothing(outside: Path) -> None:
    file = gguf_files.write(paths.model_store() / "m.gguf")
    os.link(file, outside / "twin.gguf")
    assert gone("m").frees_bytes == 0


def test_a_base_that_adapters_need_is_told() -> None:
    put_base(paths.model_store() / "Qwen" / "Qwen3-4B")
    put_lora(paths.model_store() / "medical")
    assert "medical" in gone("Qwen/Qwen3-4B").note
    assert gone("medical").note == ""


def test_others_models_are_refused_with_whom_to_ask(user_home: Path, outside: Path) -> None:
    gguf_files.write(user_home / ".lmstudio/models/pub/repo/m.gguf")
    gguf_files.write(outside / "own.gguf")
    put_base(user_home / ".cache/modelscope/hub/models/org/Tiny")
    models = {model.name: model for model in inventory.scan(folders(Settings(model_folders=[str(outside)])))}
    words = {"starter": "附带", "pub/repo/m": "LM Studio", "own": "文件夹", "org/Tiny": "modelscope"}
    assert set(models) == set(words)
    for name, word in words.items():
        with pytest.raises(DrkunError) as caught:
            manage.remove(models[name])
        assert (caught.value.kind, caught.value.exit_code) == ("remove_refused", EXIT_BAD_INPUT)
        assert word in caught.value.message + caught.value.hint
        assert models[name].path.exists()


def test_a_path_out_of_the_store_is_never_removed(outside: Path) -> None:
    file = gguf_files.write(outside / "m.gguf")
    paths.model_store().mkdir()
    for path in (file, paths.model_store() / ".." / "m.gguf"):
        model = Model(name="m", kind=Kind.GGUF, path=path, files=(path,), source=Source.DRKUN)
        with pytest.raises(DrkunError) as caught:
            manage.remove(model)
        assert caught.value.kind == "remove_outside"
    store = Model(name="s", kind=Kind.BASE, path=paths.model_store(), source=Source.DRKUN)
    manage.remove(store)
    assert file.exists()
    assert paths.model_store().exists()


def pending(folder: Path, *names: str) -> None:
    told = [{"path": name, "size": 100} for name in names]
    put_json(folder / MARKER, {"hub": "hf", "repo": "org/name", "pending": told})
    for name in names:
        path = folder / PARTIAL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(40))


def test_removing_an_unfinished_download_takes_what_has_come() -> None:
    folder = paths.model_store() / "org" / "name"
    pending(folder, "config.json", "model.safetensors")
    assert gone("org/name").frees_bytes >= 80
    assert tree(paths.model_store()) == {}


def test_what_is_being_downloaded_is_not_removed() -> None:
    folder = paths.model_store() / "org" / "name"
    pending(folder, "config.json", "model.safetensors")
    lock = folder / PARTIAL / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DrkunError) as caught:
            manage.removal(found()["org/name"])
        assert caught.value.kind == "remove_busy"
    gone("org/name")


def test_removing_one_of_several_pending_files_leaves_the_others() -> None:
    folder = paths.model_store() / "org" / "name"
    gguf_files.write(folder / "whole.gguf")
    pending(folder, "a.gguf", "b.gguf")
    assert gone("org/name/a").frees_bytes == 40
    assert {name: model.complete for name, model in found().items()} == {
        "org/name/whole": True,
        "org/name/b": False,
    }
    # The whole one goes, and the download of the other stays.
    gone("org/name/whole")
    assert found()["org/name/b"].size_bytes == 40
    gone("org/name/b")
    assert tree(paths.model_store()) == {}


def test_links_to_nothing_and_to_themselves_can_be_removed() -> None:
    store = paths.model_store()
    store.mkdir()
    (store / "circle.gguf").symlink_to(store / "circle.gguf")
    (store / "dangling.gguf").symlink_to(store / "nothing")
    assert str(store / "nothing") in gone("dangling").note
    gone("circle")
    assert tree(store) == {}


def test_a_model_that_is_gone_already_is_told() -> None:
    gguf_files.write(paths.model_store() / "org" / "m.gguf")
    model = found()["org/m"]
    shutil.rmtree(paths.model_store() / "org")
    with pytest.raises(DrkunError) as caught:
        manage.remove(model)
    assert caught.value.kind == "remove_failed"


def test_a_removal_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gguf_files.write(paths.model_store() / "m.gguf")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(Path, "unlink", deny)
    with pytest.raises(DrkunError) as caught:
        manage.remove(found()["m"])
    assert (caught.value.kind, caught.value.exit_code) == ("remove_failed", EXIT_FAILED)


# Aliases


def rename(name: str, alias: str) -> str:
    models = inventory.scan(folders(Settings()))
    return aliases.rename(inventory.chosen(name, models), alias, models)


def test_an_alias_is_used_wherever_a_name_is() -> None:
    file = gguf_files.write(paths.model_store() / "org" / "m.gguf")
    assert rename("org/m", " 我的 模型 ") == "我的 模型"
    model = found()["我的 模型"]
    assert (model.path, model.disk_name) == (file, "org/m")
    for name in ("我的 模型", "org/m", "m"):
        assert Path(plan_load(Settings(model=name)).load.path) == file
    assert rename("我的 模型", "other") == "other"
    assert rename("other", "") == "org/m"
    assert set(found()) == {"org/m"}
    # A removed model's alias is free again.
    rename("org/m", "other")
    gone("other")
    gguf_files.write(file)
    assert set(found()) == {"org/m"}


def test_an_alias_is_unique_and_keeps_its_name() -> None:
    for name in ("a", "b"):
        gguf_files.write(paths.model_store() / f"{name}.gguf")
    rename("a", "mine")
    for taken in ("a", "A", "mine", "MINE", "starter"):
        with pytest.raises(DrkunError) as caught:
            rename("b", taken)
        assert (caught.value.kind, caught.value.exit_code) == ("alias_taken", EXIT_BAD_INPUT)
    assert rename("b", "b") == "b"
    # A file that comes later does not take it away.
    gguf_files.write(paths.model_store() / "mine.gguf")
    models = found()
    assert models["mine"].disk_name == "a"
    assert len(models) == 3


@pytest.mark.parametrize("alias", ["x" * 81, "a\nb", "\x1b[31m", "a\u202eb", "/etc", "~x", "-x", "a\0"])
def test_aliases_that_cannot_be(alias: str) -> None:
    gguf_files.write(paths.model_store() / "m.gguf")
    with pytest.raises(DrkunError) as caught:
        rename("m", alias)
    assert (caught.value.kind, caught.value.exit_code) == ("alias_bad", EXIT_BAD_INPUT)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "[" * 100_000, "\xff"])
def test_a_broken_file_of_aliases_stops_no_scan_and_is_not_overwritten(text: str) -> None:
    gguf_files.write(paths.model_store() / "m.gguf")
    paths.aliases_file().write_text(text, "latin-1")
    assert set(found()) == {"m"}
    with pytest.raises(DrkunError) as caught:
        rename("m", "n")
    assert caught.value.kind == "aliases_broken"
    assert paths.aliases_file().read_text("latin-1") == text


def test_names_that_somebody_wrote_into_the_file_twice_are_one_model_s() -> None:
    files = [gguf_files.write(paths.model_store() / f"{name}.gguf") for name in "abc"]
    put_json(paths.aliases_file(), {str(file): "same" for file in files[:2]} | {str(files[2]): "starter"})
    assert set(found()) == {"a", "same", "c"}


def test_aliases_are_kept_as_json() -> None:
    file = gguf_files.write(paths.model_store() / "m.gguf")
    rename("m", "n")
    assert json.loads(paths.aliases_file().read_text("utf8")) == {str(file): "n"}
