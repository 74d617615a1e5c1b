"""The command line as a script meets it: what comes out where, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from drkun_tui import __version__, cli, hardware, i18n, paths, profiles
from drkun_tui.commands import doctor
from drkun_tui.engine import client
from drkun_tui.library import inventory
from drkun_tui.settings import Settings, save
from tests.conftest import PATIENCE_S, MakeChild, has_ended, starter_with, wait_until
from tests.gguf_files import lora, metadata, write
from tests.model_files import put_lora

pytestmark = pytest.mark.usefixtures("known_machine")

DRKUN = (sys.executable, "-m", "drkun_tui")
GREEDY = ("--threads", "1", "--temperature", "0")
LONG = (*GREEDY, "--repeat-penalty", "0.5", "--max-tokens", "0")
"""An answer that goes round in circles until the context is full."""

JSON_FIELDS = {
    *("model", "adapter", "demonstration", "profile", "engine", "thinking", "answer", "finish_reason"),
    *("thinking_truncated", "red_flags", "usage", "timings"),
}


@pytest.fixture(autouse=True)
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_MESSAGES", "LC_ALL", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONUTF8", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")


class Ran:
    """A command that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out, self.err = (stream.decode("utf8") for stream in (done.stdout, done.stderr))
        assert "Traceback" not in self.err
        assert "Exception ignored" not in self.err

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which is one JSON object and no more."""
        told = json.loads(self.out)
        assert isinstance(told, dict)
        assert self.out.count("\n") == 1
        return told

    @property
    def failure(self) -> str:
        """The one line that says what went wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("drkun: ")]
        assert len(lines) == 1, self.err
        assert self.err.endswith(lines[0] + "\n")
        return lines[0].removeprefix("drkun: ")


def run(*arguments: str, given: str | bytes | None = "", env: Mapping[str, str] | None = None) -> Ran:
    """Run a command in a process of its own."""
    raw = given.encode() if isinstance(given, str) else given
    environment = {**os.environ, **(env or {})}
    command = [*DRKUN, *arguments]
    return Ran(subprocess.run(command, input=raw, capture_output=True, env=environment, timeout=PATIENCE_S))


# Asking


def test_the_answer_comes_on_standard_output_and_the_reasoning_on_standard_error() -> None:
    ran = run("ask", "你好", *GREEDY)
    assert ran.code == 0
    assert "Dr. Kun" in ran.out
    assert ran.out.endswith("\n")
    assert "打招呼" in ran.err
    assert "打招呼" not in ran.out
    assert "Dr. Kun" not in ran.err
    assert i18n.t("consult.demonstration") in ran.err
    assert "\x1b" not in ran.out + ran.err


def test_a_question_from_standard_input_and_one_in_several_words() -> None:
    piped = run("ask", "--json", *GREEDY, given="headache and\nfever\n").json
    words = run("ask", "--json", "headache", "and\nfever", *GREEDY).json
    assert piped["answer"] == words["answer"] != ""
    assert piped["usage"]["prompt_tokens"] == words["usage"]["prompt_tokens"]


def test_json_is_one_object_with_all_that_the_contract_names() -> None:
    ran = run("ask", "你好", "--json", *GREEDY)
    told = ran.json
    assert ran.code == 0
    assert told.keys() == JSON_FIELDS
    assert (told["model"], told["adapter"], told["profile"]) == ("starter", None, "cpu")
    assert (told["engine"], told["finish_reason"]) == ("llama_cpp", "stop")
    assert "Dr. Kun" in told["answer"]
    assert "打招呼" in told["thinking"]
    assert (told["thinking_truncated"], told["demonstration"], told["red_flags"]) == (False, True, [])
    assert told["usage"].keys() == {"prompt_tokens", "thinking_tokens", "answer_tokens", "reused_tokens"}
    assert all(isinstance(count, int) for count in told["usage"].values())
    assert told["timings"].keys() == {"load_s", "ttft_s", "decode_tok_s"}
    assert all(seconds > 0 for seconds in told["timings"].values())
    # Nothing but notes on standard error.
    assert "Dr. Kun" not in ran.err
    assert "打招呼" not in ran.err


def test_without_thinking_and_with_a_system_text() -> None:
    plain = run("ask", "你好", "--json", "--no-think", *GREEDY).json
    assert plain["thinking"] == ""
    assert plain["usage"]["thinking_tokens"] == 0
    assert plain["answer"]
    told = run(
        "ask", "你好", "--json", "--no-think", "--system", "你是一名心血管科医生，请简短回答。", *GREEDY
    ).json
    assert told["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 8


def test_reasoning_cut_off_at_the_limit_is_told() -> None:
    ran = run("ask", "头晕", *GREEDY, "--max-tokens", "4")
    assert ran.code == 0
    assert ran.out == ""
    assert i18n.t("consult.thinking_truncated") in ran.err
    assert run("ask", "头晕", "--json", *GREEDY, "--max-tokens", "4").json["thinking_truncated"] is True


def test_signs_of_an_emergency_are_answered_at_once() -> None:
    question = "突然胸口剧痛，喘不上气，左臂发麻"
    ran = run("ask", question, "--json", *GREEDY, "--max-tokens", "2")
    assert ran.json["red_flags"]
    assert "120" in ran.err
    assert "120" not in run("ask", "你好", *GREEDY, "--max-tokens", "2").err


def test_a_seed_repeats_an_answer() -> None:
    sampled = ("--threads", "1", "--temperature", "1.2", "--seed", "5", "--max-tokens", "60", "--json")
    first, second = (run("ask", "头晕怎么办", *sampled).json for _ in range(2))
    assert (first["thinking"], first["answer"]) == (second["thinking"], second["answer"])


def test_settings_are_the_defaults_and_the_command_line_lies_over_them(home: Path) -> None:
    paths.settings_file().write_text(
        "language = 'en'\nthreads = 1\nthink = false\n[sampling]\ntemperature = 0\nmax_tokens = 3\n"
    )
    ran = run("ask", "你好", "--json")
    assert ran.json["usage"]["answer_tokens"] == 3
    assert ran.json["thinking"] == ""
    assert "Demonstration" in ran.err
    assert run("ask", "你好", "--json", "--max-tokens", "5").json["usage"]["answer_tokens"] == 5


def test_reasoning_is_dimmed_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_terminal() -> bytes:
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as screen:
            process = subprocess.Popen(
                [*DRKUN, "ask", "头晕", *GREEDY, "--max-tokens", "4"], stderr=theirs, stdin=subprocess.DEVNULL
            )
            os.close(theirs)
            seen = b""
            # A terminal whose other end is closed is an error to its reader.
            try:
                while piece := screen.read(1024):
                    seen += piece
            except OSError:
                pass
            assert process.wait() == 0
        return seen

    assert "\x1b[2m患者".encode() in on_terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b[2m" not in on_terminal()


# Input that is none


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_no_question_is_wrong_use(text: str) -> None:
    ran = run("ask", given=text)
    assert (ran.code, ran.out) == (2, "")
    assert i18n.t("ask.no_question") in ran.failure
    ran = run("ask", text, "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (2, "no_question")


@pytest.mark.parametrize("streams", ["<&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_empty_ones(streams: str) -> None:
    ran = Ran(subprocess.run(["sh", "-c", f'exec "$@" {streams}', "sh", *DRKUN, "ask"], capture_output=True))
    assert ran.code == 2
    assert (i18n.t("ask.no_question") in ran.err) == ("2>&-" not in streams)


def test_an_answer_that_nobody_can_hear() -> None:
    command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *DRKUN, "ask", "你好", *GREEDY, "--max-tokens", "25"]
    ran = Ran(subprocess.run(command, capture_output=True))
    assert ran.code == 0
    assert "打招呼" in ran.err


def test_bytes_that_are_no_text_are_replaced() -> None:
    ran = run("ask", "--json", *GREEDY, "--max-tokens", "2", given=b"\xff\xfe\xe5\xa4\xb4\xe6\x99\x95")
    assert ran.code == 0
    command: list[str | bytes] = [
        *DRKUN,
        "ask",
        b"\xff\xfe \xe5\xa4\xb4",
        "--json",
        *GREEDY,
        "--max-tokens",
        "2",
    ]
    ran = Ran(subprocess.run(command, capture_output=True))
    assert ran.code == 0
    assert ran.json["usage"]["answer_tokens"] + ran.json["usage"]["thinking_tokens"] == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ask", "x", "--seed", "abc"), "--seed"),
        (("ask", "x", "--max-tokens", "-1"), "--max-tokens"),
        (("ask", "x", "--temperature", "hot"), "--temperature"),
        (("ask", "x", "--temperature", "9"), "temperature"),
        (("ask", "x", "--temperature", "nan"), "temperature"),
        (("ask", "x", "--top-p", "0"), "top_p"),
        (("ask", "x", "--repeat-penalty", "0"), "repeat_penalty"),
        (("ask", "x", "--seed", "99999999999"), "seed"),
        (("ask", "x", "--threads", "100000"), "threads"),
        (("ask", "x", "--profile", "gpu4"), "--profile"),
        (("ask", "x", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
        (("inspect",), "PATH"),
        (("bench", "--runs", "many"), "--runs"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], word: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert word in ran.failure
    ran = run(*arguments, "--json")
    assert ran.code == 2
    assert ran.json.keys() == {"error"}
    assert ran.json["error"].keys() == {"kind", "message", "hint"}
    assert word in ran.json["error"]["message"]


# Models that cannot be used


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "text.gguf").write_text("这不是模型")
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "truncated.gguf").write_bytes(paths.starter().read_bytes()[:9_000_000])
    starter_with(tmp_path / "template.gguf", tokenizer__chat_template="{% for %}")
    starter_with(tmp_path / "refuses.gguf", tokenizer__chat_template="{{ raise_exception('no') }}")
    write(tmp_path / "weightless.gguf", metadata())
    return tmp_path


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("missing.gguf", "model_not_found"),
        ("text.gguf", "gguf_not_gguf"),
        ("empty.gguf", "gguf_empty"),
        ("truncated.gguf", "gguf_truncated"),
        ("template.gguf", "template_broken"),
        ("refuses.gguf", "template_refused"),
        ("weightless.gguf", "load_failed"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(broken: Path, file: str, kind: str) -> None:
    ran = run("ask", "头晕", "--model", str(broken / file), "--threads", "1", "--json")
    assert ran.code == 3
    assert ran.json["error"]["kind"] == kind
    assert ran.json["error"]["hint"]
    for part in ran.json["error"].values():
        assert "\n" not in part
    assert ran.json["error"]["message"] in ran.failure
    assert ran.json["error"]["hint"] in ran.failure


def test_an_unknown_name_gets_close_ones() -> None:
    ran = run("ask", "头晕", "--model", "startr")
    assert ran.code == 3
    assert "starter" in ran.failure


def test_an_adapter_that_does_not_fit() -> None:
    assert run("ask", "头晕", "--adapter", "starter", "--json").json["error"]["kind"] == "adapter_not_usable"


def test_an_adapter_is_used_with_its_base_whatever_model_is_chosen() -> None:
    paths.model_store().mkdir()
    starter_with(paths.model_store() / "other.gguf", general__name="Other")
    entries = metadata(general__type="adapter", adapter__type="lora", adapter__lora__alpha=8.0)
    tensors = [(f"blk.0.attn_q.weight.lora_{s}", shape, 0) for s, shape in (("a", (512, 4)), ("b", (4, 512)))]
    write(paths.model_store() / "of-other.gguf", entries | {"general.base_model.0.name": "Other"}, tensors)
    ran = run("ask", "头晕", "--adapter", "of-other", "--max-tokens", "4", "--json")
    assert (ran.json["model"], ran.json["adapter"]) == ("other", "of-other")
    # Whoever chose them together meant that.
    save(Settings(adapter="of-other"), paths.settings_file())
    ran = run("ask", "头晕", "--adapter", "of-other", "--max-tokens", "4", "--json")
    assert ran.json["model"] == "starter"


def test_an_adapter_whose_base_is_not_here_says_where_to_get_it() -> None:
    put_lora(paths.model_store() / "medical", base_model_name_or_path="Qwen/Qwen3-4B")
    ran = run("bench", "--adapter", "medical", "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (3, "adapter_mismatch")
    assert "drkun pull Qwen/Qwen3-4B" in ran.json["error"]["hint"]


def test_an_adapter_acts_as_strongly_as_it_is_told() -> None:
    lora(paths.model_store() / "lora.gguf")
    save(Settings(adapter="lora", adapter_scale=2.0), paths.settings_file())

    def answer(*more: str) -> str:
        ran = run("ask", "头晕", *GREEDY, "--max-tokens", "60", "--json", *more)
        assert ran.code == 0
        return f"{ran.json['adapter']}: {ran.json['thinking']}|{ran.json['answer']}"

    plain = answer("--adapter", "")
    assert plain.startswith("None: ")
    assert answer("--adapter-scale", "0") == plain.replace("None", "lora")
    assert answer() != answer("--adapter-scale", "1")
    # A scale in the settings goes with the adapter there.
    assert answer("--adapter", "lora") == answer("--adapter-scale", "1")


@pytest.mark.parametrize("scale", ["2.5", "-1", "nan"])
def test_a_scale_that_is_not_allowed(scale: str) -> None:
    ran = run("ask", "头晕", f"--adapter-scale={scale}", "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (2, "bad_value")


def test_a_profile_that_does_not_work_here() -> None:
    ran = run("ask", "头晕", "--profile", "gpu8", "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (2, "profile_unavailable")


def test_a_question_longer_than_the_context() -> None:
    ran = run("ask", "--json", "--threads", "1", "--context", "512", given="头晕，恶心，想吐。" * 1000)
    assert (ran.code, ran.json["error"]["kind"]) == (2, "prompt_too_long")


@pytest.mark.parametrize("command", [("ask", "头晕"), ("models",), ("inspect", "starter"), ("bench",)])
def test_broken_settings_are_told_and_left_as_they_are(command: tuple[str, ...]) -> None:
    paths.settings_file().write_text("threads = 'many'")
    ran = run(*command)
    assert (ran.code, ran.out) == (2, "")
    assert "threads" in ran.failure
    assert str(paths.settings_file()) in ran.failure
    assert paths.settings_file().read_text() == "threads = 'many'"


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = run("models", env={"DRKUN_HOME": str(tmp_path / "file" / "home")})
    assert ran.code == 2
    assert "DRKUN_HOME" in ran.failure


# Interrupted


def start(*command: str) -> subprocess.Popen[bytes]:
    """A command that hears Ctrl+C, as one started in the background of a script would not, and whose
    output is read byte by byte, so that none is left behind in a buffer."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def engine_of(process: subprocess.Popen[bytes]) -> int:
    """The process id of the engine, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        for child in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if client.HOST in child.cmdline():
                    found.append(child.pid)
        return bool(found)

    wait_until(look)
    return found[0]


def end_of(process: subprocess.Popen[bytes], before: bytes = b"") -> Ran:
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return Ran(subprocess.CompletedProcess((), process.returncode, before + out, err))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_mid_answer_keeps_what_has_come(number: signal.Signals) -> None:
    process = start(*DRKUN, "ask", "你好", *LONG)
    assert process.stdout
    first = process.stdout.read(1)
    engine = engine_of(process)
    process.send_signal(number)
    ran = end_of(process, first)
    assert ran.code == 130
    assert len(ran.out) > 1
    assert ran.out.endswith("\n")
    assert i18n.t("consult.demonstration") in ran.err
    assert has_ended(engine)


BEGINNING = """
    import os, sys
    from drkun_tui import cli
    from drkun_tui.commands import ask

    class Printer(ask.Printer):
        def add(self, delta):
            os.write(2, b"BEGUN\\n")
            super().add(delta)

    ask.Printer = Printer
    raise SystemExit(cli.main(sys.argv[1:]))
"""


def test_an_interrupted_answer_as_json(child: MakeChild) -> None:
    """A program that tells when the answer begins, which ``--json`` does not."""
    process = start(sys.executable, "-m", child(BEGINNING), "ask", "你好", "--json", *LONG)
    assert process.stderr
    told = b""
    while b"BEGUN" not in told:
        told += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    ran = end_of(process)
    assert ran.code == 130
    assert ran.json.keys() == JSON_FIELDS
    assert ran.json["finish_reason"] == "cancelled"
    assert ran.json["thinking"] + ran.json["answer"]


@pytest.fixture
def slow_load(child: MakeChild, home: Path) -> None:
    """An engine that takes an hour to start."""
    child("")
    (home / "modules" / "llama_cpp.py").write_text("import time\ntime.sleep(3600)\n")


@pytest.mark.usefixtures("slow_load")
@pytest.mark.parametrize("command", [("ask", "你好"), ("bench",), ("doctor",)])
def test_an_interrupt_while_loading(command: tuple[str, ...]) -> None:
    process = start(*DRKUN, *command, "--json")
    engine = engine_of(process)
    process.send_signal(signal.SIGINT)
    ran = end_of(process)
    assert ran.code == 130
    assert ran.json["error"]["kind"] == "interrupted"
    assert ran.failure == i18n.t("error.interrupted")
    wait_until(lambda: has_ended(engine))


def test_an_engine_killed_in_mid_answer() -> None:
    process = start(*DRKUN, "ask", "你好", *LONG)
    assert process.stdout
    first = process.stdout.read(1)
    os.kill(engine_of(process), signal.SIGKILL)
    ran = end_of(process, first)
    assert ran.code == 4
    assert len(ran.out) > 1
    assert "SIGKILL" in ran.failure
    assert i18n.t("engine.engine_died_hint") in ran.failure


# Readers that go away


@pytest.fixture
def nobody() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ask", "你好", *LONG), 4),
        (("ask", "你好", *GREEDY, "--max-tokens", "2", "--json"), 4),
        (("ask", "你好", "--model", "nothing", "--json"), 3),
        (("models",), 4),
        (("inspect", "starter"), 4),
        (("doctor",), 4),
    ],
)
def test_output_that_nobody_reads_ends_quietly(arguments: tuple[str, ...], code: int, nobody: int) -> None:
    done = subprocess.run(
        [*DRKUN, *arguments], stdout=nobody, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    ran = Ran(subprocess.CompletedProcess((), done.returncode, b"", done.stderr))
    assert ran.code == code
    assert "Errno" not in ran.err
    assert "BrokenPipe" not in ran.err


def test_notes_that_nobody_reads_end_quietly(nobody: int) -> None:
    """As with `2>&1 | head -1`."""
    done = subprocess.run(
        [*DRKUN, "ask", "你好", *LONG], stdout=nobody, stderr=nobody, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 4


# What is on disk


def test_models_as_json(home: Path) -> None:
    store = paths.model_store()
    write(store / "tiny.gguf", metadata())
    (store / "text.gguf").write_text("这不是模型")
    ran = run("models", "--json")
    assert ran.code == 0
    assert ran.json.keys() == {"models"}
    models = {model["name"]: model for model in ran.json["models"]}
    assert models.keys() == {"starter", "tiny", "text"}
    for model in models.values():
        assert model.keys() >= {
            *("name", "kind", "path", "size_bytes", "architecture", "parameters", "quantization"),
            *("context_length", "base_model", "complete", "problems", "fits"),
        }
        assert model["fits"].keys() == {"cpu", "gpu8", "gpu16"}
        assert all(fit.keys() == {"fits", "need_bytes", "reason"} for fit in model["fits"].values())
    starter = models["starter"]
    assert (starter["kind"], starter["architecture"], starter["complete"]) == ("gguf", "qwen3", True)
    assert starter["fits"]["cpu"]["fits"] is True
    assert (models["text"]["complete"], len(models["text"]["problems"])) == (False, 1)


def test_models_as_a_table_that_lines_up(home: Path) -> None:
    write(paths.model_store() / "头晕模型.gguf", metadata())
    lines = run("models").out.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[0] == i18n.t("models.column_name")
    # The second column begins in the same cell in every line: Chinese takes two.
    begins = set()
    for line in lines:
        name = line.split("  ")[0]
        rest = line[len(name) :]
        wide = sum("\u4e00" <= char <= "\u9fff" for char in name)
        begins.add(len(name) + wide + len(rest) - len(rest.lstrip()))
    assert len(begins) == 1
    assert run("models", env={"LANG": "en_US.UTF-8"}).out.startswith("Name")


def test_inspect_by_name_and_by_path(home: Path) -> None:
    named, at = (run("inspect", which, "--json").json for which in ("starter", str(paths.starter())))
    # The sentence tells the memory that is free just then, which another program may have taken in between.
    for told in (named, at):
        for fit in told["fits"].values():
            assert fit.pop("reason")
    assert named == at
    assert named["name"] == "starter"
    assert named["metadata"]["general.architecture"] == "qwen3"
    assert "<|im_start|>" in named["chat_template"]
    text = run("inspect", "starter")
    assert text.code == 0
    for word in ("starter", "qwen3", "Q4_K_M", "general.name", "<|im_start|>"):
        assert word in text.out


def test_what_is_needed_is_for_the_settings_and_with_the_base(home: Path) -> None:
    lora(paths.model_store() / "shift.gguf")
    needs = []
    for context in (512, 2048):
        paths.settings_file().write_text(f"context_length = {context}")
        models = {model["name"]: model for model in run("models", "--json").json["models"]}
        for name in ("starter", "shift"):
            needs.append(models[name]["fits"]["cpu"]["need_bytes"])
            assert run("inspect", name, "--json").json["fits"]["cpu"]["need_bytes"] == needs[-1]
    starter, shift, longer, longer_shift = needs
    assert shift - starter == longer_shift - longer == (paths.model_store() / "shift.gguf").stat().st_size
    assert longer > starter


def test_inspect_says_what_is_wrong(broken: Path) -> None:
    ran = run("inspect", str(broken / "truncated.gguf"), "--json")
    assert ran.code == 3
    assert ran.json["complete"] is False
    assert ran.json["problems"]
    assert ran.json["metadata"]["general.architecture"] == "qwen3"
    ran = run("inspect", str(broken / "text.gguf"))
    assert ran.code == 3
    assert "GGUF" in ran.out
    ran = run("inspect", str(broken / "missing.gguf"), "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (3, "model_not_found")


def test_what_a_file_says_cannot_act_on_the_terminal(home: Path) -> None:
    write(
        paths.model_store() / "sly.gguf",
        metadata(general__name="\x1b[31mred\x07\u202e", tokenizer__chat_template="\x1b]0;x\x07"),
    )
    for arguments in (("inspect", "sly"), ("models",)):
        assert not set("\x1b\x07\u202e") & set(run(*arguments).out)
    ran = run("inspect", "sly", "--json")
    assert "\x1b" not in ran.out
    assert ran.json["chat_template"] == "\x1b]0;x\x07"


def test_models_say_where_they_are_from_and_what_to_do(home: Path, user_home: Path) -> None:
    write(user_home / ".lmstudio/models/pub/repo/m.gguf", metadata())
    put_lora(paths.model_store() / "medical", base_model_name_or_path="Qwen/Qwen3-4B")
    ran = run("models", env={"LANG": "en_US.UTF-8"})
    (medical,) = (line for line in ran.out.splitlines() if line.startswith("medical"))
    assert "store" in medical
    assert medical.endswith("Its base Qwen/Qwen3-4B is not here. Fetch it with drkun pull Qwen/Qwen3-4B.")
    models = {model["name"]: model for model in run("models", "--json").json["models"]}
    assert (models["pub/repo/m"]["source"], models["pub/repo/m"]["removable"]) == ("lmstudio", False)
    assert models["medical"]["complete"] is True
    assert len(models["medical"]["problems"]) == 1
    shown = run("inspect", "medical", "--json").json
    assert (shown["rank"], shown["provenance"], shown["title"]) == (16, None, None)
    assert len(shown["files"]) == 1


def test_folders_that_cannot_be_read_are_told_beside_the_list(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = paths.model_store() / "closed"
    closed.mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert cli.main(["models", "--json"]) == 0
    told = capsys.readouterr()
    assert [model["name"] for model in json.loads(told.out)["models"]] == ["starter"]
    assert str(closed) in told.err
    assert told.err.count("\n") == 1


# Importing, removing, renaming


def test_a_model_is_imported_renamed_and_removed(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = write(tmp_path_factory.mktemp("outside") / "m.gguf", metadata())
    ran = run("import", str(source), "--copy", "--name", "org/tiny", "--json")
    assert (ran.code, ran.json["mode"], ran.json["name"], ran.json["source"]) == (
        0,
        "copy",
        "org/tiny",
        "drkun",
    )
    ran = run("import", str(source), "--name", "linked")
    assert (ran.code, (paths.model_store() / "linked.gguf").is_symlink()) == (0, True)
    assert "linked" in ran.out
    ran = run("rename", "tiny", "我的", "--json")
    assert (ran.code, ran.json) == (0, {"name": "我的", "disk_name": "org/tiny"})
    assert run("inspect", "我的", "--json").json["disk_name"] == "org/tiny"
    ran = run("remove", "我的", "--yes", "--json")
    assert (ran.code, ran.json["removed"], ran.json["paths"]) == (0, True, [str(paths.model_store() / "org")])
    assert ran.json["frees_bytes"] == source.stat().st_size
    assert "linked" in run("remove", "linked", "--yes").out
    assert {model["name"] for model in run("models", "--json").json["models"]} == {"starter"}
    assert source.exists()


def test_removing_asks_and_without_a_terminal_refuses(home: Path) -> None:
    file = write(paths.model_store() / "m.gguf", metadata())
    ran = run("remove", "m", given="y\n")
    assert (ran.code, file.exists()) == (2, True)
    assert "--yes" in ran.failure
    for answer, left in (("n", True), ("", True), ("y", False)):
        main, terminal = pty.openpty()
        with os.fdopen(main, "r+b", buffering=0) as reader:
            os.write(main, f"{answer}\n".encode())
            done = subprocess.run(
                [*DRKUN, "remove", "m"],
                stdin=terminal,
                stderr=terminal,
                stdout=subprocess.PIPE,
                timeout=PATIENCE_S,
            )
            os.close(terminal)
            asked = reader.read(10_000).decode("utf8", "replace")
        assert done.returncode == 0
        assert str(file)[-20:] in asked
        assert file.exists() == left


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("import", "/nowhere/m.gguf"), "model_not_found", 3),
        (("import", "{text}"), "gguf_not_gguf", 3),
        (("import", "{whole}", "--name", "../x"), "import_name", 2),
        (("import", "{whole}", "--copy", "--move"), "bad_usage", 2),
        (("import", "{whole}", "--name", "taken"), "import_exists", 2),
        (("remove", "starter", "--yes"), "remove_refused", 2),
        (("remove", "nothing", "--yes"), "model_not_found", 3),
        (("rename", "taken", "starter"), "alias_taken", 2),
        (("rename", "taken", "a\x1bb"), "alias_bad", 2),
    ],
)
def test_what_cannot_be_imported_removed_or_renamed(
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    arguments: tuple[str, ...],
    kind: str,
    code: int,
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    write(paths.model_store() / "taken.gguf", metadata())
    (outside / "text.gguf").write_text("这不是模型")
    places = {"text": outside / "text.gguf", "whole": write(outside / "m.gguf", metadata())}
    ran = run(*(word.format(**places) for word in arguments), "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (code, kind)
    assert ran.failure
    assert [path.name for path in paths.model_store().iterdir()] == ["taken.gguf"]


# This machine


def test_doctor_loads_the_bundled_model() -> None:
    ran = run("doctor", "--json")
    assert ran.code == 0
    assert ran.json["ok"] is True
    findings = {finding["name"]: finding for finding in ran.json["findings"]}
    assert all(f.keys() == {"name", "state", "text", "hint"} for f in ran.json["findings"])
    assert {
        "drkun",
        "cpu",
        "memory",
        "packages",
        "data",
        "conversations",
        "engine",
        "profile gpu8",
    } <= findings.keys()
    assert __version__ in findings["drkun"]["text"]
    assert "llama-cpp-python" in findings["packages"]["text"]
    assert findings["engine"]["state"] == "ok"


def test_doctor_tells_what_does_not_work(home: Path, child: MakeChild) -> None:
    paths.settings_file().write_text("theme = 3")
    paths.database().write_bytes(b"no database" * 1000)
    child("")
    (home / "modules" / "llama_cpp.py").write_text("raise ImportError('libllama.so')")
    ran = run("doctor")
    assert ran.code == 4
    failed = [line for line in ran.out.splitlines() if line.startswith("x ")]
    assert len(failed) == 3
    for word, line in zip(("settings.toml", "conversations", "libllama.so"), failed, strict=True):
        assert word in line
    assert ran.err == ""


def test_doctor_tells_what_the_kernels_of_a_gpu_need(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._decoding() == []
    card = hardware.Gpu("NVIDIA Made Up", 2**33, 2**33, "nvidia", "nvidia")
    machine = hardware.Hardware("cpu", 4, 8, 2**34, 2**34, [card])
    monkeypatch.setattr(hardware, "read", lambda: machine)
    monkeypatch.setattr(profiles, "missing_packages", lambda _: [])
    monkeypatch.setattr(profiles, "installed", lambda name: name == "triton")
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setenv("CC", "cc")
    assert [found.state for found in doctor._decoding()] == ["ok"]
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    (found,) = doctor._decoding()
    assert (found.state, "gcc" in found.text, "triton" in found.text) == ("warning", True, False)


def test_bench_measures() -> None:
    ran = run("bench", "--json", "--runs", "1", "--threads", "1", "--context", "512")
    assert ran.code == 0
    assert ran.json.keys() == {
        *("model", "profile", "engine", "threads", "context_length", "safe_mode", "load_s", "prompt_tokens"),
        *("prefill_tok_s", "ttft_s", "decode_tok_s", "runs"),
    }
    assert (ran.json["threads"], ran.json["context_length"], ran.json["runs"]) == (1, 512, 1)
    assert ran.json["prompt_tokens"] > 100
    assert ran.json["prefill_tok_s"] > 0
    assert ran.json["decode_tok_s"] > 0


def test_bench_as_text() -> None:
    lines = run("bench", "--runs", "1", "--threads", "1", "--context", "512").out.splitlines()
    assert len(lines) == 12
    assert lines[0].split() == [i18n.t("bench.model"), "starter"]


# Language and encoding


def test_the_language_follows_the_locale() -> None:
    assert i18n.t("ask.no_question") in run("ask").failure
    english = run("ask", env={"LANG": "en_US.UTF-8"}).failure
    assert english.isascii()
    i18n.set_language("en")
    assert i18n.t("ask.no_question") in english


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
    ],
)
def test_chinese_comes_out_whatever_the_locale(env: dict[str, str]) -> None:
    ran = run("ask", "头晕怎么办", *GREEDY, "--max-tokens", "12", env=env)
    assert ran.code == 0
    assert "头晕" in ran.err


# The program itself


def test_the_chat_screen_needs_a_terminal() -> None:
    ran = run()
    assert (ran.code, ran.out) == (2, "")
    assert i18n.t("chat.no_terminal") in ran.failure
    assert "drkun ask" in ran.failure


def test_version_and_help() -> None:
    assert run("--version").out == f"drkun {__version__}\n"
    assert "ask" in run("--help").out
    assert "--repeat-penalty" in run("ask", "--help").out


def test_a_mistake_in_the_program_is_one_line_without_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistake(*_: object) -> None:
        raise RuntimeError("boom\nboom")

    monkeypatch.setattr(inventory, "survey", mistake)
    assert cli.main(["models"]) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "RuntimeError: boom boom" in told.err
    assert cli.main(["models", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "internal"
    with pytest.raises(RuntimeError):
        cli.main(["models", "--debug"])
