"""A look through the model folders in a child process."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drkun_tui import hardware, i18n, paths
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.library import speed
from drkun_tui.library.overview import Overview, overview
from drkun_tui.library.scanner import Scanner
from tests.conftest import has_ended, wait_until
from tests.gguf_files import metadata, write
from tests.model_files import put_base, put_lora

MACHINE = hardware.read()


@pytest.fixture
async def scanner(home: Path) -> AsyncIterator[Scanner]:
    made = Scanner()
    yield made
    await made.close()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    put_base(folder / "base")
    put_lora(folder / "adapter")
    for number in range(120):
        write(folder / f"m{number:03}.gguf", metadata())
    (folder / "text.gguf").write_text("no model")
    return folder


def known() -> speed.Known:
    return speed.known(paths.machine_file(), MACHINE)


async def look(scanner: Scanner, *folders: Path) -> Overview:
    return await scanner.look(folders, MACHINE, known())


async def test_it_is_what_this_process_would_find(scanner: Scanner, models: Path) -> None:
    os.mkdir(os.fsencode(models) + b"/not-\xff-utf8")  # noqa: PTH102
    odd = Path(os.fsdecode(os.fsencode(models) + b"/not-\xff-utf8"))
    write(odd / "m.gguf", metadata())
    found = await look(scanner, models, paths.starter().parent)
    here = overview([models, paths.starter().parent], MACHINE, known())
    assert found == here
    assert len(found.entries) == 125
    (broken,) = (entry for entry in found.entries if entry.model.error is not None)
    (same,) = (entry for entry in here.entries if entry.model.error is not None)
    assert isinstance(broken.model.error, DrkunError)
    assert isinstance(same.model.error, DrkunError)
    assert broken.model.error.as_dict() == same.model.error.as_dict()
    assert broken.model.error.exit_code == same.model.error.exit_code == EXIT_NO_MODEL


async def test_what_has_not_changed_is_not_told_again(scanner: Scanner, models: Path) -> None:
    before = await look(scanner, models)
    again = await look(scanner, models)
    assert [id(entry) for entry in again.entries] == [id(entry) for entry in before.entries]
    write(models / "m007.gguf", metadata("llama"))
    (models / "m008.gguf").unlink()
    after = await look(scanner, models)
    assert after == overview([models], MACHINE, known())
    changed = {entry.model.name for entry in after.entries} - {
        entry.model.name for entry in after.entries if any(entry is old for old in before.entries)
    }
    assert changed == {"m007"}


async def test_other_folders_and_another_language(scanner: Scanner, models: Path, tmp_path: Path) -> None:
    await look(scanner, models)
    shutil.copytree(models / "adapter", tmp_path / "alone" / "adapter")
    said = {}
    for language in ("zh", "en"):
        i18n.set_language(language)
        (entry,) = (await look(scanner, tmp_path / "alone")).entries
        said[language] = str(entry.model.problems[0])
    assert said["zh"] != said["en"]
    assert said["en"].isascii()


async def test_a_look_that_nobody_waits_for_disturbs_no_other(scanner: Scanner, models: Path) -> None:
    for _ in range(5):
        left = asyncio.create_task(look(scanner, models))
        await asyncio.sleep(0.01)
        left.cancel()
    assert await look(scanner, models) == overview([models], MACHINE, known())


async def test_two_at_once(scanner: Scanner, models: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "m.gguf", metadata())
    many, one = await asyncio.gather(look(scanner, models), look(scanner, tmp_path / "other"))
    assert (len(many.entries), len(one.entries)) == (123, 1)


async def test_a_child_that_is_killed_is_told_and_another_looks(scanner: Scanner, models: Path) -> None:
    await look(scanner, models)
    waiting = asyncio.create_task(look(scanner, models))
    await asyncio.sleep(0)
    os.kill(pid_of(scanner), signal.SIGKILL)
    with pytest.raises(DrkunError) as caught:
        await waiting
    assert caught.value.kind == "scan_died"
    assert "SIGKILL" in caught.value.message
    assert len((await look(scanner, models)).entries) == 123


async def test_it_ends_with_whoever_asked(home: Path, models: Path) -> None:
    scanner = Scanner()
    await look(scanner, models)
    pid = pid_of(scanner)
    await scanner.close()
    await asyncio.to_thread(wait_until, lambda: has_ended(pid))


def test_errors_are_whole_behind_a_pipe() -> None:
    error = DrkunError("kind", "message", "hint", EXIT_NO_MODEL)
    back = pickle.loads(pickle.dumps(error))
    assert (back.as_dict(), back.exit_code, str(back)) == (error.as_dict(), EXIT_NO_MODEL, "message")


def pid_of(scanner: Scanner) -> int:
    job = scanner._job
    assert job is not None
    assert job.pid is not None
    return job.pid
