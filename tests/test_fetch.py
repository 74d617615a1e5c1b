"""Downloads: real jobs against a real server, with everything that goes wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from drkun_tui.errors import DrkunError
from drkun_tui.jobs import detached, processes
from drkun_tui.library import inventory, unfinished
from drkun_tui.library.hub import downloads as downloads_module
from drkun_tui.library.hub.downloads import Download, Downloads
from drkun_tui.library.hub.folder import read_marker
from drkun_tui.library.hub.protocol import (
    Done,
    Event,
    Failed,
    FileDone,
    HubName,
    Limits,
    Paused,
    Plan,
    Planned,
    Progress,
    RepoFile,
    Request,
    Retrying,
    encode,
)
from tests.conftest import PATIENCE_S, has_ended, sizes_in, wait_until
from tests.hub_server import COMMIT, HubServer, serving

# Nothing waits long, but a server that is merely slow on a busy machine is never taken for a dead one.
QUICK = Limits(
    connections=2, connect_s=60, stall_s=60, tries=3, backoff_s=0.01, most_backoff_s=5, spare_bytes=0
)
IMPATIENT = msgspec.structs.replace(QUICK, stall_s=2)
REPO = "Qwen/Qwen3-4B-GGUF"
WEIGHTS = "Qwen3-4B-Q4_K_M.gguf"
TOKEN = "hf_AbCdEfGhIjKlMnOp"
HUBS: tuple[HubName, ...] = ("hf", "modelscope")


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


DATA = content(3_000_000)


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server with one GGUF model on it, and an environment in which both clients talk to it."""
    with serving() as server:
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
            monkeypatch.setenv(name, TOKEN)
        server.add(REPO, {"README.md": b"# card\n", WEIGHTS: DATA})
        yield server


@pytest.fixture
async def all_of_them(home: Path) -> AsyncIterator[Downloads]:
    """Downloads of which none outlives the test."""
    them = Downloads()
    yield them
    for download in await them.all():
        await them.pause(download.id)


def request(home: Path, name: HubName = "hf", repo: str = REPO, **more: object) -> Request:
    fields = {"store": str(home / "models"), "limits": QUICK} | more
    return Request(hub=name, repo=repo, **fields)  # type: ignore[arg-type]


async def run(them: Downloads, asked: Request | str) -> list[Event]:
    """Begin or resume a download and follow it to its end."""
    download = await (them.resume(asked) if isinstance(asked, str) else them.start(asked))
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event, _ in them.follow(download.id, download.offset)]


async def the_one(them: Downloads) -> Download:
    (download,) = await them.all()
    return download


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def model(home: Path) -> Path:
    return home / "models" / REPO


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def files_with(text: str, folder: Path) -> set[str]:
    return {name for name in files_below(folder) if text.encode() in (folder / name).read_bytes()}


def assert_whole(home: Path) -> None:
    assert (model(home) / WEIGHTS).read_bytes() == DATA
    assert files_below(model(home)) == {WEIGHTS, "README.md"}


def assert_not_complete(home: Path) -> None:
    """Whatever is there, it does not look like a model."""
    assert not (model(home) / WEIGHTS).exists()
    marker = read_marker(model(home))
    assert marker is not None
    assert WEIGHTS in {file.path for file in marker.pending}


# All goes well


@pytest.mark.parametrize("name", HUBS)
async def test_a_model_is_fetched_and_verified(
    home: Path, hub: HubServer, all_of_them: Downloads, name: HubName
) -> None:
    events = await run(all_of_them, request(home, name))
    total = len(DATA) + len(b"# card\n")
    assert events[0] == Planned(COMMIT if name == "hf" else "master", 2, total, 0)
    assert {event.path for event in of(FileDone, events)} == {WEIGHTS, "README.md"}  # type: ignore[union-attr]
    assert events[-1] == Done(str(model(home)), total)
    assert_whole(home)
    download = await the_one(all_of_them)
    assert (download.phase, download.done, download.total, download.error) == ("done", total, total, None)
    assert not download.running
    assert download.folder == model(home)


async def test_the_token_goes_to_the_hub_and_not_beyond(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    await run(all_of_them, request(home))
    at_hub = [seen for seen in hub.seen if not seen.at_cdn]
    at_cdn = [seen for seen in hub.seen if seen.at_cdn]
    assert at_hub and at_cdn
    assert {seen.authorization for seen in at_hub} == {f"Bearer {TOKEN}"}
    assert {seen.authorization for seen in at_cdn} == {""}


@pytest.mark.parametrize("name", HUBS)
async def test_the_token_is_written_nowhere(
    home: Path, hub: HubServer, all_of_them: Downloads, name: HubName
) -> None:
    """Not even when the server says it, or the client stumbles over it."""
    hub.fault(WEIGHTS, status=500, headers={"X-Error-Message": TOKEN})
    hub.fault(WEIGHTS, status=403, headers={"X-Error-Code": TOKEN, "X-Error-Message": TOKEN})
    events = await run(all_of_them, request(home, name))
    assert isinstance(events[-1], Failed)
    assert TOKEN not in repr(await all_of_them.all())
    assert files_with(TOKEN, home) == set()
    assert len(files_below(home)) > 5


@pytest.mark.parametrize("name", HUBS)
async def test_a_token_with_a_line_break_in_it_fails_without_being_told(
    home: Path, hub: HubServer, all_of_them: Downloads, monkeypatch: pytest.MonkeyPatch, name: HubName
) -> None:
    for variable in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.setenv(variable, f"{TOKEN}\N{SNOWMAN}")
    events = await run(all_of_them, request(home, name))
    assert isinstance(events[-1], Failed)
    assert files_with(TOKEN, home / "downloads") == set()


async def test_what_is_there_is_verified_and_not_fetched_again(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    await run(all_of_them, request(home))
    (model(home) / "README.md").write_bytes(b"# lard\n")
    events = await run(all_of_them, request(home))
    fetched = {event.path: event.fetched for event in of(FileDone, events)}  # type: ignore[union-attr]
    assert fetched == {WEIGHTS: False, "README.md": True}
    assert hub.ranges(WEIGHTS) == [""]
    assert (model(home) / "README.md").read_bytes() == b"# card\n"
    assert len(await all_of_them.all()) == 1


async def test_files_of_the_same_content(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    hub.add(REPO, {f"{name}.safetensors": DATA for name in "abcd"})
    assert isinstance((await run(all_of_them, request(home)))[-1], Done)
    assert {path.read_bytes() for path in model(home).iterdir()} == {DATA}
    assert len(files_below(model(home))) == 4


async def test_an_empty_file(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    hub.add(REPO, {WEIGHTS: DATA, "LICENSE": b""})
    assert isinstance((await run(all_of_them, request(home)))[-1], Done)
    assert (model(home) / "LICENSE").read_bytes() == b""


# Stopped and resumed


async def held_in_the_middle(
    hub: HubServer, them: Downloads, asked: Request, at: int = 1_000_000, file: str = WEIGHTS
) -> Download:
    """A download of which exactly so many bytes of the weights are on the disk, and that waits for more."""
    hub.fault(file, what="hold", at=at)
    download = await them.start(asked)
    partial = download.folder / ".drkun-partial"

    def arrived() -> bool:
        return hub.held.is_set() and at in sizes_in(partial)

    await asyncio.to_thread(wait_until, arrived)
    return download


@pytest.mark.parametrize("name", HUBS)
async def test_pause_and_resume_from_the_byte(
    home: Path, hub: HubServer, all_of_them: Downloads, name: HubName
) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home, name))
    assert (await the_one(all_of_them)).running
    await all_of_them.pause(download.id)
    assert_not_complete(home)
    paused = await the_one(all_of_them)
    assert (paused.phase, paused.running, paused.error) == ("paused", False, None)
    assert paused.done >= 1_000_000
    events = await run(all_of_them, download.id)
    assert of(Planned, events)[0].have >= 1_000_000  # type: ignore[union-attr]
    assert isinstance(events[-1], Done)
    assert hub.ranges(WEIGHTS) == ["", "bytes=1000000-"]
    assert_whole(home)


async def test_the_last_event_of_a_paused_download(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home))
    following = asyncio.ensure_future(run(all_of_them, download.id))
    await asyncio.sleep(0)
    await all_of_them.pause(download.id)
    assert isinstance((await following)[-1], Paused)


@pytest.mark.parametrize("name", HUBS)
async def test_a_killed_job_resumes_from_the_byte(
    home: Path, hub: HubServer, all_of_them: Downloads, name: HubName
) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home, name))
    state = detached.state(home / "downloads" / download.id)
    assert state is not None
    pid = int(state.process.split()[0])
    following = asyncio.ensure_future(run(all_of_them, download.id))
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: has_ended(pid))
    assert isinstance(last := (await following)[-1], Failed)
    assert last.kind == "died"
    assert_not_complete(home)
    dead = await the_one(all_of_them)
    assert dead.phase == "failed"
    assert dead.error is not None
    assert dead.error.kind == "died"
    # The same request means the same download.
    assert isinstance((await run(all_of_them, request(home, name)))[-1], Done)
    assert hub.ranges(WEIGHTS) == ["", "bytes=1000000-"]
    assert_whole(home)


async def test_it_goes_on_when_the_interface_is_killed(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    await held_in_the_middle(hub, all_of_them, request(home))
    # Another interface sees it, and follows.
    other = Downloads(home / "downloads")
    download = await the_one(other)
    assert download.running
    assert download.total == len(DATA) + 7
    following = asyncio.ensure_future(run(other, download.id))
    hub.release.set()
    # The server closes what it held; the job tries again by itself.
    assert isinstance((await following)[-1], Done)
    assert_whole(home)


async def test_bytes_that_were_spoilt_on_the_disk_are_found(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home))
    await all_of_them.pause(download.id)
    (part,) = (path for path in (model(home) / ".drkun-partial").iterdir() if path.stat().st_size)
    part.write_bytes(bytes(1_000_000))
    assert isinstance((await run(all_of_them, download.id))[-1], Done)
    assert hub.ranges(WEIGHTS) == ["", "bytes=1000000-", ""]
    assert_whole(home)


async def test_a_server_without_ranges_is_read_from_the_beginning(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home))
    await all_of_them.pause(download.id)
    hub.fault(WEIGHTS, what="no_ranges")
    assert isinstance((await run(all_of_them, download.id))[-1], Done)
    assert hub.ranges(WEIGHTS) == ["", "bytes=1000000-"]
    assert_whole(home)


async def test_cancel_leaves_nothing(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home))
    await asyncio.to_thread(wait_until, lambda: (model(home) / "README.md").exists())
    (model(home).parent / "mine").mkdir()
    await all_of_them.cancel(download.id)
    assert await all_of_them.all() == []
    assert not model(home).exists()
    assert files_below(home / "models") == set()
    assert (model(home).parent / "mine").exists()


async def test_cancel_keeps_what_was_there_before(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    model(home).mkdir(parents=True)
    (model(home) / "README.md").write_bytes(b"# card\n")
    (model(home) / "notes.txt").write_text("mine")
    download = await held_in_the_middle(hub, all_of_them, request(home))
    await all_of_them.cancel(download.id)
    assert files_below(home / "models") == {f"{REPO}/README.md", f"{REPO}/notes.txt"}


async def test_a_finished_download_is_forgotten_and_its_model_stays(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    await run(all_of_them, request(home))
    await all_of_them.cancel((await the_one(all_of_them)).id)
    assert await all_of_them.all() == []
    assert_whole(home)


async def test_one_quantisation_unfinished_while_another_is_finished(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    other = "Qwen3-4B-Q2_K.gguf"
    hub.add(REPO, {WEIGHTS: DATA, other: content(50_000, 2)})
    download = await held_in_the_middle(hub, all_of_them, request(home, quant="Q4_K_M"))
    await all_of_them.pause(download.id)
    assert isinstance((await run(all_of_them, request(home, quant="Q2_K")))[-1], Done)
    assert_not_complete(home)
    marker = read_marker(model(home))
    assert marker is not None
    assert [file.path for file in marker.pending] == [WEIGHTS]
    assert isinstance((await run(all_of_them, download.id))[-1], Done)
    assert hub.ranges(WEIGHTS) == ["", "bytes=1000000-"]
    assert files_below(model(home)) == {WEIGHTS, other}


# Faults of the way and of the server


def limits_for(fault: dict[str, object]) -> Limits:
    return IMPATIENT if fault.get("what") == "hold" else QUICK


# All come from the one transfer that both hubs share; a few are tried through each.
@pytest.mark.parametrize(
    ("name", "fault", "ranges"),
    [
        ("hf", {"status": 500}, ["", ""]),
        ("modelscope", {"status": 503, "times": 2}, ["", "", ""]),
        ("hf", {"status": 429, "headers": {"Retry-After": "0"}}, ["", ""]),
        ("modelscope", {"what": "close", "at": 1_500_000}, ["", "bytes=1500000-"]),
        ("hf", {"what": "close", "at": 0}, ["", ""]),
        ("modelscope", {"what": "hold", "at": 700_000}, ["", "bytes=700000-"]),
        ("hf", {"what": "corrupt"}, ["", ""]),
        ("modelscope", {"what": "short", "at": 2_000_000}, ["", ""]),
    ],
    ids=["500", "503 twice", "429", "closed", "closed at once", "stalled", "wrong bytes", "wrong length"],
)
async def test_a_passing_fault_is_got_over(
    home: Path,
    hub: HubServer,
    all_of_them: Downloads,
    name: HubName,
    fault: dict[str, object],
    ranges: list[str],
) -> None:
    hub.fault(WEIGHTS, **fault)
    asked = request(home, name, limits=limits_for(fault))
    assert isinstance((await run(all_of_them, asked))[-1], Done)
    assert hub.ranges(WEIGHTS) == ranges
    assert_whole(home)


@pytest.mark.parametrize(
    ("name", "fault", "kind"),
    [
        ("hf", {"status": 401}, "unauthorized"),
        ("modelscope", {"status": 403}, "forbidden"),
        ("hf", {"status": 404}, "file_missing"),
        ("modelscope", {"status": 429}, "rate_limited"),
        ("hf", {"status": 500}, "server_error"),
        ("modelscope", {"what": "close", "at": 0}, "unreachable"),
        ("hf", {"what": "hold", "at": 0}, "stalled"),
        ("modelscope", {"what": "corrupt"}, "wrong_hash"),
        ("hf", {"what": "short", "at": 2_000_000}, "wrong_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_lasting_fault_is_told_and_nothing_looks_complete(
    home: Path, hub: HubServer, all_of_them: Downloads, name: HubName, fault: dict[str, object], kind: str
) -> None:
    hub.fault(WEIGHTS, **fault, times=-1)
    events = await run(all_of_them, request(home, name, limits=limits_for(fault)))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == kind
    download = await the_one(all_of_them)
    assert download.phase == "failed"
    assert download.error is not None
    assert download.error.kind == kind
    assert download.error.message and "{" not in download.error.message
    assert_not_complete(home)
    # Mended, it goes on.
    hub.faults.clear()
    assert isinstance((await run(all_of_them, download.id))[-1], Done)
    assert_whole(home)


async def test_wrong_bytes_are_deleted_and_fetched_once_more(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    hub.fault(WEIGHTS, what="corrupt", times=-1)
    await run(all_of_them, request(home))
    assert hub.ranges(WEIGHTS) == ["", ""]
    assert sizes_in(model(home) / ".drkun-partial") <= {0}


@pytest.mark.parametrize("told", [{"sha256": "0" * 64}, {"size": 2_999_999}, {"size": 3_000_001}])
async def test_a_file_that_is_not_what_the_listing_says(
    home: Path, hub: HubServer, all_of_them: Downloads, told: dict[str, object]
) -> None:
    hub.add(REPO, {WEIGHTS: DATA}, told=told)
    events = await run(all_of_them, request(home))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == ("wrong_hash" if "sha256" in told else "wrong_size")
    assert_not_complete(home)


async def test_a_small_file_is_verified_by_gits_hash(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    hub.add(REPO, {"config.json": b"{}"}, told={"git_sha": "1" * 40})
    events = await run(all_of_them, request(home, include=["*.json"]))
    assert events[-1] == Failed("wrong_hash", {"file": "config.json"})


async def test_retries_wait_as_long_as_the_server_asks(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    hub.fault(WEIGHTS, status=429, headers={"Retry-After": "1"})
    events = await run(all_of_them, request(home))
    (retry,) = of(Retrying, events)
    assert isinstance(retry, Retrying)
    assert (retry.path, retry.attempt, retry.wait_s, retry.kind) == (WEIGHTS, 1, 1.0, "rate_limited")
    assert isinstance(events[-1], Done)


async def test_a_download_that_waits_can_be_paused(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    hub.fault(WEIGHTS, status=429, headers={"Retry-After": "3600"})
    patient = msgspec.structs.replace(QUICK, most_backoff_s=3600)
    download = await all_of_them.start(request(home, limits=patient))
    async with asyncio.timeout(PATIENCE_S):
        async for event, _ in all_of_them.follow(download.id, download.offset):
            if isinstance(event, Retrying):
                break
    assert "请求太多" in (await the_one(all_of_them)).waiting
    await all_of_them.pause(download.id)
    assert (await the_one(all_of_them)).phase == "paused"


@pytest.mark.parametrize("name", HUBS)
async def test_a_gated_model_says_where_to_accept_its_licence(
    home: Path, hub: HubServer, all_of_them: Downloads, monkeypatch: pytest.MonkeyPatch, name: HubName
) -> None:
    for variable in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(variable)
    hub.add(REPO, {WEIGHTS: DATA}, gated=True)
    await run(all_of_them, request(home, name))
    error = (await the_one(all_of_them)).error
    assert error is not None
    assert error.kind == ("gated" if name == "hf" else "forbidden")
    page = f"{hub.url}/{REPO}" if name == "hf" else f"{hub.url}/models/{REPO}"
    assert page in error.hint
    assert error.exit_code == 3


@pytest.mark.parametrize("name", HUBS)
async def test_a_repository_that_is_not_there(
    home: Path, hub: HubServer, all_of_them: Downloads, name: HubName
) -> None:
    events = await run(all_of_them, request(home, name, repo="nobody/nothing"))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == ("unauthorized" if name == "hf" else "repo_missing")
    # No folder is left of what is not there.
    assert not (home / "models" / "nobody").exists()


async def test_a_listing_that_fails_at_first(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    hub.fault("", status=503, times=2)
    events = await run(all_of_them, request(home))
    assert [type(event) for event in events[:2]] == [Retrying, Retrying]
    assert isinstance(events[-1], Done)


async def test_a_hub_that_says_nothing_stalls_and_can_be_stopped(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    hub.fault("", what="hold", times=-1)
    events = await run(all_of_them, request(home, limits=IMPATIENT))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "stalled"
    hub.held.clear()
    download = await all_of_them.start(request(home, quant="Q4_K_M"))
    await asyncio.to_thread(hub.held.wait, PATIENCE_S)
    await all_of_them.pause(download.id)
    stopped = await all_of_them.get(download.id)
    assert stopped.phase == "paused"


async def test_nobody_listens(
    home: Path, hub: HubServer, all_of_them: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:password@127.0.0.1:9")
    events = await run(all_of_them, request(home))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "unreachable"
    assert "password" not in repr(events) + repr((await the_one(all_of_them)).error)


@pytest.mark.parametrize("name", HUBS)
async def test_a_repository_that_changes_meanwhile(
    home: Path, hub: HubServer, all_of_them: Downloads, name: HubName
) -> None:
    """Files that are no longer in it are not waited for."""
    hub.add(REPO, {"old-Q4_K_M.gguf": content(2_000_000, 2), "a": b"a"})
    download = await held_in_the_middle(hub, all_of_them, request(home, name), file="old-Q4_K_M.gguf")
    await all_of_them.pause(download.id)
    hub.add(REPO, {WEIGHTS: DATA, "README.md": b"# card\n"})
    failed = (await run(all_of_them, download.id))[-1]
    assert isinstance(failed, Failed)
    assert failed.kind == "file_missing"
    assert isinstance((await run(all_of_them, download.id))[-1], Done)
    assert_whole(home)


async def test_what_goes_on_is_told_in_full(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    asked = request(home, "modelscope", include=["*Q4_K_M*"])
    download = await held_in_the_middle(hub, all_of_them, asked)
    await all_of_them.pause(download.id)
    remedy = unfinished.read_marker(model(home)).problem.remedy
    assert f"drkun pull {REPO} --from modelscope --include '*Q4_K_M*'" in remedy


# The disk


async def test_room_that_another_download_will_fill_is_not_free(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    other = home / "downloads" / "20261201-000000-abcdef"
    other.mkdir(parents=True)
    (other / "request.json").write_bytes(encode(request(home, repo="drkun/huge")))
    (other / "plan.json").write_bytes(encode(Plan("main", [RepoFile("huge.gguf", 10**15)])))
    (home / "models" / "drkun" / "huge").mkdir(parents=True)
    at_work = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE)
    state = detached.State(process=processes.signature(at_work.pid), phase="downloading")
    (other / "state.json").write_bytes(msgspec.json.encode(state))
    events = await run(all_of_them, request(home))
    at_work.kill()
    await at_work.wait()
    assert isinstance(events[-1], Failed)
    assert (events[-1].kind, events[-1].values["free"]) == ("disk_short", 0)


async def test_too_little_room_is_told_before_the_first_byte(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    greedy = msgspec.structs.replace(QUICK, spare_bytes=10**18)
    events = await run(all_of_them, request(home, limits=greedy))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "disk_short"
    assert hub.seen == []
    error = (await the_one(all_of_them)).error
    assert error is not None
    assert "3 MiB" in error.message


async def test_a_file_that_the_system_does_not_let_grow(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, hard))
    try:
        events = await run(all_of_them, request(home))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "disk_full"
    assert_not_complete(home)
    assert isinstance((await run(all_of_them, request(home)))[-1], Done)
    again = hub.ranges(WEIGHTS)[-1]
    assert again.startswith("bytes=") and again != "bytes=0-"
    assert_whole(home)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_in_the_middle(home: Path, hub: HubServer, small_disk: Path) -> None:
    """The job's own folder is on it, too: what has happened can be read all the same."""
    them = Downloads(small_disk / "downloads")
    # What is free is told wrongly when others write meanwhile.
    greedy = msgspec.structs.replace(QUICK, spare_bytes=-(10**9))
    asked = request(home, store=str(small_disk / "models"), limits=greedy)
    events = await run(them, asked)
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "disk_full"
    download = await the_one(them)
    assert (download.phase, download.error and download.error.kind) == ("failed", "disk_full")
    marker = read_marker(download.folder)
    assert marker is not None
    assert WEIGHTS in {file.path for file in marker.pending}
    assert not (download.folder / WEIGHTS).exists()
    grow = ["mount", "-o", "remount,size=8m", str(small_disk)]
    await asyncio.to_thread(subprocess.run, grow, check=True)
    assert isinstance((await run(them, download.id))[-1], Done)
    assert (download.folder / WEIGHTS).read_bytes() == DATA
    assert hub.ranges(WEIGHTS)[-1].startswith("bytes=")


async def test_a_store_that_cannot_be_made(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    (home / "models").write_text("no folder")
    events = await run(all_of_them, request(home))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "unwritable"


# Two at once


async def test_two_programs_that_fetch_the_same_model(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    """They have data folders of their own, and one store."""
    await held_in_the_middle(hub, all_of_them, request(home))
    other = Downloads(home / "other")
    events = await run(other, request(home))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "busy"
    hub.release.set()
    first = await the_one(all_of_them)
    assert isinstance((await run(all_of_them, first.id))[-1], Done)
    assert_whole(home)
    assert isinstance((await run(other, request(home)))[-1], Done)


async def test_the_same_request_twice_is_one_download(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    first = await held_in_the_middle(hub, all_of_them, request(home))
    second = await all_of_them.start(request(home))
    assert second.id == first.id
    assert len(hub.ranges(WEIGHTS)) == 1


async def test_several_at_once(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    repos = [f"org/model-{number}" for number in range(3)]
    for number, repo in enumerate(repos):
        hub.add(repo, {"a-Q8_0.gguf": content(400_000, number)})
    ends = await asyncio.gather(*(run(all_of_them, request(home, repo=repo)) for repo in repos))
    assert [type(events[-1]) for events in ends] == [Done] * 3
    assert {download.phase for download in await all_of_them.all()} == {"done"}


# Hostile names


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("../evil.safetensors", "name_outside"),
        ("a/../../evil.safetensors", "name_outside"),
        ("/tmp/evil.safetensors", "name_outside"),
        ("C:/evil.safetensors", "name_outside"),
        ("..\\evil.safetensors", "name_outside"),
        ("a//b.safetensors", "name_outside"),
        ("evil\x1b[31m.safetensors", "name_control"),
        ("evil\N{RIGHT-TO-LEFT OVERRIDE}.safetensors", "name_control"),
        (f"{'x' * 4000}.safetensors", "name_long"),
        (f"{'x/' * 40}a.safetensors", "name_long"),
        (".drkun-partial/lock.safetensors", "name_reserved"),
        (".DRKUN-download.json", "name_reserved"),
        ("nul.safetensors", "name_reserved"),
        ("a.safetensors ", "name_reserved"),
    ],
)
async def test_a_name_that_is_not_to_be_trusted(
    home: Path, hub: HubServer, all_of_them: Downloads, path: str, kind: str
) -> None:
    hub.add(REPO, {path: DATA, "config.json": b"{}"})
    before = files_below(home.parent)
    events = await run(all_of_them, request(home, include=["*"]))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == kind
    error = (await the_one(all_of_them)).error
    assert error is not None
    assert len(error.message) < 300
    assert error.message.isprintable()
    new = {name for name in files_below(home.parent) - before if "/downloads/" not in name}
    assert all(name.endswith("hf") or "/modules/" in name for name in new), new


async def test_names_that_differ_by_case_alone(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    hub.add(REPO, {"Model.safetensors": DATA, "model.SAFETENSORS": DATA})
    events = await run(all_of_them, request(home, include=["*"]))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "name_twice"


@pytest.mark.parametrize("repo", ["noslash", "../x/y", "a/b/c", "a/..", ".git/x", "a/b\n", "a/" + "b" * 200])
async def test_a_repository_name_that_is_none(home: Path, all_of_them: Downloads, repo: str) -> None:
    with pytest.raises(DrkunError) as told:
        await all_of_them.start(request(home, repo=repo))
    assert (told.value.kind, told.value.exit_code) == ("bad_repo", 2)


@pytest.mark.parametrize("where", ["file", "folder", "partial", "model", "organisation"])
async def test_nothing_is_written_through_a_link(
    home: Path, hub: HubServer, all_of_them: Downloads, where: str
) -> None:
    outside = home / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * len(DATA))
    hub.add(REPO, {"sub/a.safetensors": DATA})
    links = {
        "file": (model(home) / "sub" / "a.safetensors", outside / "precious"),
        "folder": (model(home) / "sub", outside),
        "partial": (model(home) / ".drkun-partial", outside),
        "model": (model(home), outside),
        "organisation": (model(home).parent, outside),
    }
    link, target = links[where]
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    events = await run(all_of_them, request(home, include=["*"]))
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "linked"
    assert files_below(outside) == {"precious"}
    assert (outside / "precious").read_bytes() == b"x" * len(DATA)


# The marker, for whoever lists models


async def test_the_marker_says_what_is_missing(home: Path, hub: HubServer, all_of_them: Downloads) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home))
    await asyncio.to_thread(wait_until, lambda: (model(home) / "README.md").exists())

    def only_weights() -> bool:
        return len(json.loads((model(home) / ".drkun-download.json").read_text())["pending"]) == 1

    await asyncio.to_thread(wait_until, only_weights)
    assert json.loads((model(home) / ".drkun-download.json").read_text()) == {
        "hub": "hf",
        "repo": REPO,
        "revision": COMMIT,
        "options": ["--from", "hf"],
        "pending": [{"path": WEIGHTS, "size": len(DATA)}],
    }
    await all_of_them.cancel(download.id)


async def test_a_model_on_its_way_is_never_listed_as_whole(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    """Neither while it comes, nor when its process was killed."""
    download = await held_in_the_middle(hub, all_of_them, request(home))
    (coming,) = inventory.scan([home / "models"])
    assert (coming.complete, coming.expected_bytes) == (False, len(DATA))
    state = detached.state(home / "downloads" / download.id)
    assert state is not None
    pid = int(state.process.split()[0])
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: has_ended(pid))
    (dead,) = inventory.scan([home / "models"])
    assert not dead.complete
    assert REPO in dead.problems[0].remedy


# What the interface sees


async def test_progress_is_told_at_most_five_times_a_second(
    home: Path, hub: HubServer, all_of_them: Downloads
) -> None:
    download = await held_in_the_middle(hub, all_of_them, request(home))
    seen: list[Progress] = []
    async with asyncio.timeout(PATIENCE_S):
        async for event, _ in all_of_them.follow(download.id):
            if isinstance(event, Progress):
                seen.append(event)
                # The other file may be on its way still when the first is told.
                if event.files == {WEIGHTS: 1_000_000}:
                    break
    assert all(progress.total == len(DATA) + 7 for progress in seen)
    # Nothing new is not told again, however long it waits.
    folder = home / "downloads" / download.id
    await asyncio.to_thread(wait_until, lambda: (folder / "events.jsonl").stat().st_size > 0)
    shown = await all_of_them.get(download.id)
    assert shown.files == {WEIGHTS: 1_000_000}


async def test_old_finished_downloads_are_forgotten(
    home: Path, hub: HubServer, all_of_them: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads_module, "KEPT", 1)
    for number in range(4):
        hub.add(f"org/model-{number}", {"a-Q8_0.gguf": content(2_000, number)})
        await run(all_of_them, request(home, repo=f"org/model-{number}"))
    assert len(await all_of_them.all()) <= 3


async def test_what_is_no_download_is_no_download(home: Path, all_of_them: Downloads) -> None:
    assert await all_of_them.all() == []
    (home / "downloads" / "something").mkdir(parents=True)
    (home / "downloads" / "broken").mkdir()
    (home / "downloads" / "broken" / "request.json").write_text("{")
    assert await all_of_them.all() == []
    with pytest.raises(DrkunError) as told:
        await all_of_them.resume("something")
    assert told.value.kind == "no_download"
    await all_of_them.cancel("something")
    with contextlib.suppress(DrkunError):
        await all_of_them.pause("something")
