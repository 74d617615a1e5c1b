"""``drkun pull`` and ``drkun search`` as people and scripts use them."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drkun_tui import hardware
from drkun_tui.library.hub.recommended import recommended
from drkun_tui.ui.progress import duration
from tests.conftest import PATIENCE_S, sizes_in, wait_until
from tests.hub_server import HubServer, serving

REPO = "Qwen/Qwen3-4B-GGUF"
WEIGHTS = "Qwen3-4B-Q4_K_M.gguf"
PICKLES = "some/pickles"
DATA = random.Random(1).randbytes(2_000_000)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
        server.add(REPO, {"README.md": b"# card\n", WEIGHTS: DATA}, tags=["gguf"], downloads=12_345)
        server.add(PICKLES, {"x.bin": b"pickle"})
        yield server


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "drkun_tui", *words]


def drkun(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def events(told: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.splitlines()]


def test_pull_fetches_and_says_where(home: Path, hub: HubServer) -> None:
    done = drkun("pull", REPO)
    assert done.returncode == 0
    folder = home / "models" / REPO
    assert done.stdout == f"完成：{folder}\n"
    assert sorted(done.stderr.splitlines()) == [f"{WEIGHTS}  2.0 MB", "README.md  7 B"]
    assert (folder / WEIGHTS).read_bytes() == DATA


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_json_is_one_event_a_line(home: Path, hub: HubServer, name: str) -> None:
    done = drkun("pull", REPO, "--from", name, "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    told = events(done.stdout)
    assert told[0]["type"] == "planned"
    assert told[-1] == {"type": "done", "folder": str(home / "models" / REPO), "total": len(DATA) + 7}
    assert {event["type"] for event in told} <= {"planned", "progress", "file_done", "done"}


def test_include_and_quant_choose_files(home: Path, hub: HubServer) -> None:
    hub.add(REPO, {"a-Q2_K.gguf": DATA[:5000], "a-Q8_0.gguf": DATA[:9000], "x.bin": b"pickle"})
    assert drkun("pull", REPO, "--quant", "q2_k").returncode == 0
    folder = home / "models" / REPO
    assert {path.name for path in folder.iterdir()} == {"a-Q2_K.gguf"}
    assert drkun("pull", REPO, "--include", "*.bin").returncode == 0
    assert {path.name for path in folder.iterdir()} == {"a-Q2_K.gguf", "x.bin"}


@pytest.mark.parametrize("name", ["hf", "modelscope"])
def test_what_could_be_fetched_is_listed(home: Path, hub: HubServer, name: str) -> None:
    files = {"a-Q2_K.gguf": DATA[:5000], "a-Q8_0.gguf": DATA[:9000], "model.safetensors": DATA[:90_000]}
    hub.add(REPO, {**files, "README.md": b"# card"})
    done = drkun("pull", REPO, "--list", "--from", name)
    assert done.returncode == 0
    small, large, whole = done.stdout.splitlines()
    assert small.split() == ["Q2_K", "5", "kB", "放得下"]
    assert large.split() == ["*", "Q8_0", "9", "kB", "放得下", "默认下载"]
    assert "safetensors" in whole and "90 kB" in whole and "放得下" in whole
    told = json.loads(drkun("pull", REPO, "--list", "--from", name, "--json").stdout)
    assert (told["hub"], told["repo"]) == (name, REPO)
    formats = [(one["format"], one["quantization"], one["size_bytes"]) for one in told["offers"]]
    assert formats == [("gguf", "Q2_K", 5000), ("gguf", "Q8_0", 9000), ("safetensors", None, 90_006)]
    assert [one["default"] for one in told["offers"]] == [False, True, False]
    assert told["offers"][2]["files"] == ["model.safetensors", "README.md"]
    assert not (home / "models").exists()


def test_a_card_is_read_without_fetching(home: Path, hub: HubServer) -> None:
    hub.add(REPO, {"README.md": b"---\nlicense: mit\n---\n# Card\x1b[31m\n\ntext\n", WEIGHTS: DATA})
    done = drkun("pull", REPO, "--card")
    assert (done.returncode, done.stdout) == (0, "# Card\n\ntext\n")
    assert json.loads(drkun("pull", REPO, "--card", "--json").stdout)["card"] == "# Card\n\ntext"
    hub.add("some/without", {WEIGHTS: DATA})
    done = drkun("pull", "some/without", "--card")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "没有说明卡片。\n")
    assert not (home / "models").exists()


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("noslash",), 2, "bad_repo"),
        (("no/thing", "--from", "modelscope"), 3, "repo_missing"),
        ((REPO, "--revision", "no-branch"), 3, "revision_missing"),
        ((REPO, "--quant", "Q9_9"), 2, "quant_missing"),
        ((REPO, "--include", "*.nothing"), 2, "nothing_matches"),
        ((REPO, "--from", "elsewhere"), 2, "bad_usage"),
        ((REPO, "--list", "--quant", "Q4_K_M"), 2, "bad_usage"),
        ((REPO, "--list", "--card"), 2, "bad_usage"),
        (("no/thing", "--list", "--from", "modelscope"), 3, "repo_missing"),
        (("no/thing", "--card", "--from", "modelscope"), 3, "repo_missing"),
        ((PICKLES, "--list"), 3, "pickles_only"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    home: Path, hub: HubServer, words: tuple[str, ...], code: int, kind: str
) -> None:
    done = drkun("pull", *words, "--json")
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("drkun: ")
    assert events(done.stdout)[-1]["error"]["kind"] == kind  # type: ignore[index]
    assert not (home / "models").exists() or list((home / "models").iterdir()) == []


def test_stop_pauses_a_download_from_elsewhere(home: Path, hub: HubServer) -> None:
    hub.fault(WEIGHTS, what="hold", at=800_000)
    pulling = subprocess.Popen(
        command("pull", REPO), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    partial = home / "models" / REPO / ".drkun-partial"
    wait_until(lambda: hub.held.is_set() and 800_000 in sizes_in(partial))
    (id,) = (folder.name for folder in (home / "downloads").iterdir())
    stopped = drkun("stop", id)
    assert (stopped.returncode, stopped.stdout.strip()) == (0, f"下载 {id}：已暂停")
    pulling.communicate(timeout=PATIENCE_S)
    assert pulling.returncode == 130
    assert drkun("pull", REPO).returncode == 0


def test_ctrl_c_pauses_and_the_same_command_goes_on(home: Path, hub: HubServer) -> None:
    hub.fault(WEIGHTS, what="hold", at=800_000)
    pulling = subprocess.Popen(
        command("pull", REPO), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    partial = home / "models" / REPO / ".drkun-partial"
    wait_until(lambda: hub.held.is_set() and 800_000 in sizes_in(partial))
    pulling.send_signal(signal.SIGINT)
    out, errors = pulling.communicate(timeout=PATIENCE_S)
    assert pulling.returncode == 130
    assert out == ""
    assert "再运行同样的命令就继续" in errors
    assert "Traceback" not in errors
    done = drkun("pull", REPO)
    assert done.returncode == 0
    assert hub.ranges(WEIGHTS) == ["", "bytes=800000-"]
    assert (home / "models" / REPO / WEIGHTS).read_bytes() == DATA


def test_a_second_pull_follows_the_first(home: Path, hub: HubServer) -> None:
    hub.fault(WEIGHTS, what="hold", at=800_000)
    first = subprocess.Popen(command("pull", REPO), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(hub.held.is_set)
    second = subprocess.Popen(
        command("pull", REPO), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert second.stderr
    assert second.stderr.readline() == "正在由另一个程序下载，这里跟着看\n"
    hub.release.set()
    ends = [one.communicate(timeout=PATIENCE_S)[0] for one in (first, second)]
    assert ends == [f"完成：{home / 'models' / REPO}\n"] * 2
    assert hub.ranges(WEIGHTS) == ["", "bytes=800000-"]


class Terminal:
    """``drkun`` with a terminal of 80 columns for its input and its errors."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = os.environ | {"COLUMNS": "80"}
        self.process = subprocess.Popen(
            command(*words), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, wanted: str) -> None:
        while wanted not in self.text:
            ready, _, _ = select.select([self._ours], [], [], PATIENCE_S)
            assert ready, self.text
            self.text += os.read(self._ours, 65536).decode("utf8", "replace")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())


def test_a_terminal_is_asked_first_and_shows_one_line_of_progress(home: Path, hub: HubServer) -> None:
    hub.fault(WEIGHTS, what="hold", at=800_000)
    terminal = Terminal("pull", REPO)
    terminal.read_until("下载吗？[Y/n]")
    assert f"{REPO}：2 个文件，2.0 MB" in terminal.text
    assert not (home / "models").exists()
    terminal.type("y\n")
    terminal.read_until("下载  800 kB / 2.0 MB")
    assert "\r\x1b[K" in terminal.text
    hub.release.set()
    out, _ = terminal.process.communicate(timeout=PATIENCE_S)
    assert terminal.process.returncode == 0
    assert out.decode() == f"完成：{home / 'models' / REPO}\n"


def test_no_means_no(home: Path, hub: HubServer) -> None:
    terminal = Terminal("pull", REPO)
    terminal.read_until("下载吗？[Y/n]")
    terminal.type("n\n")
    terminal.read_until("没有下载")
    assert terminal.process.wait(PATIENCE_S) == 0
    assert not (home / "models").exists()


def test_search_prints_a_table(hub: HubServer) -> None:
    hub.add("Qwen/Qwen3-8B", {}, tags=["safetensors"], gated=True)
    done = drkun("search", "qwen")
    assert done.returncode == 0
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["仓库", "参数", "下载", "赞", "更新", "格式", "需许可"]
    assert first.split() == [REPO, "4.0", "B", "12,345", "1", "2026-05-01", "gguf"]
    assert second.split()[-2:] == ["safetensors", "需许可"]
    assert drkun("search", "nothing-like-it").stdout == "没有找到\n"


def test_a_search_for_nothing_recommends_what_suits_this_machine(hub: HubServer) -> None:
    models = recommended(hardware.read())
    done = drkun("search")
    assert done.returncode == 0
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["仓库", "量化", "大小", "许可", "来源", "能否放下", "用途"]
    assert [line.split()[0] for line in lines] == [model.repo for model in models]
    assert models[0].zh in lines[0] and "放" in lines[0]
    told = json.loads(drkun("search", "--json", "--from", "modelscope", "--limit", "2").stdout)["recommended"]
    assert [one["repo"] for one in told] == [model.repo for model in models[:2]]
    assert told[0]["hub"] == "modelscope" and told[0]["size_bytes"] == models[0].bytes
    assert set(told[0]) == {
        *("hub", "repo", "quantization", "size_bytes", "licence", "purpose", "needs", "fits", "profile")
    }
    assert not hub.seen
    # A filter alone looks on the hub, and so does an empty word.
    assert json.loads(drkun("search", "--gguf", "--json").stdout)["found"][0]["repo"] == REPO
    assert json.loads(drkun("search", "", "--json").stdout)["found"][0]["repo"] == REPO


def test_search_for_programs(hub: HubServer) -> None:
    done = drkun("search", "qwen", "--gguf", "--json", "--from", "modelscope", "--limit", "5")
    (found,) = json.loads(done.stdout)["found"]
    assert (found["hub"], found["repo"], found["downloads"]) == ("modelscope", REPO, 12_345)


def test_a_search_is_narrowed_and_asks_the_hub_of_the_settings(home: Path, hub: HubServer) -> None:
    hub.add("qwen/large-8B", {}, tags=["safetensors"])
    hub.add("qwen/small-0.6B", {}, tags=["safetensors"])
    home.mkdir(exist_ok=True)
    (home / "settings.toml").write_text('hub = "modelscope"\n', "utf8")
    done = drkun("search", "qwen", "--safetensors", "--size", "4-", "--json")
    assert [(one["hub"], one["repo"]) for one in json.loads(done.stdout)["found"]] == [
        ("modelscope", "qwen/large-8B")
    ]
    done = drkun("search", "qwen", "--size", "0.5-0.7", "--json")
    assert [one["repo"] for one in json.loads(done.stdout)["found"]] == ["qwen/small-0.6B"]
    for wrong in ("8", "-", "a-b"):
        assert drkun("search", "qwen", "--size", wrong).returncode == 2


def test_what_a_server_says_cannot_steer_the_terminal(hub: HubServer) -> None:
    hub.add("evil/\x1b[31mmodel", {}, tags=["gguf"])
    assert "\x1b" not in drkun("search", "evil").stdout


def test_the_script_downloads_and_resumes(home: Path, hub: HubServer) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "download_model.py"), REPO, "hf", "Q4_K_M"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=True)
    assert Path(done.stdout.strip()).parent.parent.parts[-1:] == ("models",)
    assert (Path(done.stdout.strip()) / WEIGHTS).read_bytes() == DATA
    failed = subprocess.run(
        [*script[:2], "no/thing"], capture_output=True, text=True, env=environment, check=False
    )
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 59.2, 125, 3723)] == ["0 秒", "59 秒", "2:05", "1:02:03"]
