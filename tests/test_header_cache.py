"""What is remembered of headers between runs, and that a broken memory costs time and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from drkun_tui import i18n, paths
from drkun_tui.errors import DrkunError
from drkun_tui.library import gguf, header_cache, inventory
from drkun_tui.library.model import Model
from tests import gguf_files
from tests.model_files import put_base, put_lora

SCAN = """
import sys
from pathlib import Path
from drkun_tui.library import gguf, inventory, safetensors
read = []
for module, name in ((gguf, "read"), (safetensors, "_read_header")):
    real = getattr(module, name)
    setattr(module, name, lambda path, real=real, **more: (read.append(path), real(path, **more))[1])
models = inventory.scan([Path(sys.argv[1])])
print(len(models), len(read), sum(model.complete for model in models))
"""


def scan_anew(folder: Path) -> tuple[int, int, int]:
    """Models, headers read, and whole models, in a process of its own."""
    told = subprocess.run(
        [sys.executable, "-c", SCAN, str(folder)], capture_output=True, text=True, check=True
    )
    models, read, whole = map(int, told.stdout.split())
    return models, read, whole


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "all"
    gguf_files.write(folder / "a.gguf")
    put_base(folder / "b")
    put_lora(folder / "c")
    return folder


def without_errors(models: list[Model]) -> list[Model]:
    assert all(model.error is None for model in models)
    return models


def test_a_second_run_reads_no_header_again(models: Path) -> None:
    assert scan_anew(models) == (3, 3, 3)
    assert scan_anew(models) == (3, 0, 3)
    stored = paths.header_cache().read_bytes()
    assert scan_anew(models) == (3, 0, 3)
    assert paths.header_cache().read_bytes() == stored
    # What is told out of memory is what the files say.
    fresh = without_errors(inventory.scan([models]))
    paths.header_cache().unlink()
    assert without_errors(inventory.scan([models])) == fresh


def test_a_changed_file_is_read_again_and_a_cut_one_is_not_whole(models: Path) -> None:
    scan_anew(models)
    gguf_files.write(models / "a.gguf", gguf_files.metadata(qwen3__context_length=77))
    weights = models / "b" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert scan_anew(models) == (3, 2, 2)
    assert next(m for m in inventory.scan([models]) if m.name == "a").context_length == 77
    # The same length at the same time: only the time of the change itself tells.
    file = models / "a.gguf"
    before = file.stat()
    gguf_files.write(file, gguf_files.metadata(qwen3__context_length=78))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert scan_anew(models)[1] == 1


@pytest.mark.parametrize("damage", ["text", "cut", "version", "types", "empty", "folder"])
def test_a_memory_that_cannot_be_used_is_ignored(models: Path, damage: str) -> None:
    scan_anew(models)
    file = paths.header_cache()
    raw = file.read_bytes()
    file.unlink()
    if damage == "text":
        file.write_text("nonsense")
    elif damage == "cut":
        file.write_bytes(raw[:-7])
    elif damage == "version":
        file.write_bytes(raw.replace(header_cache.FORMAT.encode(), b"9" * len(header_cache.FORMAT), 1))
    elif damage == "types":
        stored = msgspec.msgpack.decode(raw)
        wrong = {key: [stamp, ["wrong"]] for key, (stamp, _) in stored[1].items()}
        file.write_bytes(msgspec.msgpack.encode([stored[0], wrong]))
    elif damage == "empty":
        file.touch()
    else:
        file.mkdir()
    assert scan_anew(models) == (3, 3, 3)
    if damage != "folder":
        assert scan_anew(models) == (3, 0, 3)
    assert not list(file.parent.glob("*.tmp"))


def test_the_memory_is_bounded(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_cache, "MAX_ENTRIES", 2)
    inventory.scan([models])
    assert len(msgspec.msgpack.decode(paths.header_cache().read_bytes())[1]) == 2
    monkeypatch.setattr(header_cache, "MAX_FILE", 10)
    gguf_files.write(models / "d.gguf")
    before = paths.header_cache().read_bytes()
    inventory.scan([models])
    assert paths.header_cache().read_bytes() == before
    assert header_cache.cached(models / "d.gguf", lambda path: gguf.read(path).version, int) == 3


def test_a_refusal_is_remembered_in_every_language(tmp_path: Path) -> None:
    raw, _ = gguf_files.header(gguf_files.metadata(qwen3__block_count=1 << 30))
    (tmp_path / "a.gguf").write_bytes(raw)
    put_base(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"\x10" + bytes(40))
    assert scan_anew(tmp_path) == (2, 2, 0)
    assert scan_anew(tmp_path) == (2, 0, 0)
    told = []
    for language in ("zh", "en"):
        i18n.set_language(language)
        model = next(m for m in inventory.scan([tmp_path]) if m.name == "a")
        with pytest.raises(DrkunError) as fresh:
            gguf.read(tmp_path / "a.gguf")
        assert model.error is not None
        assert model.error.as_dict() == fresh.value.as_dict()
        told.append(model.problems)
    assert told[0] != told[1]


def test_what_may_be_readable_the_next_time_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = gguf_files.write(tmp_path / "a.gguf")
    with monkeypatch.context() as broken:
        broken.setattr(gguf, "read_from", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
        (model,) = inventory.scan([tmp_path])
        assert model.error is not None
    (model,) = inventory.scan([tmp_path])
    assert model.complete
    assert model.path == file


def test_one_entry_that_cannot_be_written_costs_no_other(models: Path) -> None:
    other = models / "other"
    other.touch()
    header_cache.load()
    assert header_cache.cached(other, lambda _: 1 << 64, int) == 1 << 64
    inventory.scan([models])
    stored = msgspec.msgpack.decode(paths.header_cache().read_bytes())[1]
    names = {Path(os.fsdecode(key)).name for key in stored}
    assert names == {"a.gguf", "model.safetensors", "adapter_model.safetensors"}
