"""Answers of a server elsewhere: a real HTTP server on loopback, the real engine process, real commands."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drkun_tui import i18n, paths, remote, settings
from drkun_tui.engine.protocol import Cancel, Delta, Failed, Finished, Load, Partial, Ready
from drkun_tui.errors import DrkunError
from drkun_tui.library.plan import plan_load
from drkun_tui.profiles import Profile
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from tests.conftest import EngineProcess, Reply, user
from tests.openai_server import KEY, THOUGHTS, WORDS, Behaviour, end, piece, serving
from tests.test_cli import run

DIZZY = "最近总是头晕，应该怎么办？"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Behaviour]]:
    """A server, and its address in the environment."""
    with serving() as (url, behaviour):
        monkeypatch.setenv("DRKUN_REMOTE_URL", url)
        yield url, behaviour


@pytest.fixture
def does(server: tuple[str, Behaviour]) -> Behaviour:
    return server[1]


@pytest.fixture
def process(does: Behaviour, tmp_path: Path) -> Iterator[EngineProcess]:
    """An engine process that has the server's model."""
    with EngineProcess(tmp_path / "engine.log") as started:
        assert isinstance(load(started), Ready)
        yield started


def load(process: EngineProcess, model: str = "") -> Ready | Failed:
    plan = plan_load(Settings(profile="remote", remote_model=model))
    process.send(plan.load)
    event = process.until(Ready, Failed)[-1]
    assert isinstance(event, Ready | Failed)
    return event


def ask(process: EngineProcess, sampling: Sampling | None = None, *, think: bool = True) -> Reply:
    return process.ask(user(DIZZY), sampling or Sampling(seed=7), think=think)


# What is asked, and what comes


def test_the_servers_model_is_ready(process: EngineProcess, does: Behaviour) -> None:
    with EngineProcess(Path(paths.home()) / "other.log") as other:
        ready = load(other, "another")
    assert isinstance(ready, Ready)
    assert (ready.engine, ready.architecture, ready.context_length) == ("openai", "another", 4096)


def test_reasoning_and_answer_come_apart(process: EngineProcess, does: Behaviour) -> None:
    reply = ask(process)
    assert (reply.thinking, reply.answer) == ("".join(THOUGHTS), "".join(WORDS))
    usage = reply.finished.usage
    assert (usage.thinking_tokens, usage.answer_tokens) == (len(THOUGHTS), len(WORDS))
    assert (usage.prompt_tokens, usage.reused_tokens) == (21, 8)
    assert (reply.started.seed, reply.finished.finish_reason) == (7, "stop")


def test_the_question_and_the_settings_reach_the_server(process: EngineProcess, does: Behaviour) -> None:
    ask(process, Sampling(temperature=0.3, top_p=0.8, top_k=5, max_tokens=99, seed=7), think=False)
    asked = does.asked[-1]
    assert asked["messages"] == [{"role": "user", "content": DIZZY}]
    told = {name: asked[name] for name in ("model", "temperature", "top_p", "top_k", "max_tokens", "seed")}
    assert told == {
        "model": "made-up", "temperature": 0.3, "top_p": 0.8, "top_k": 5, "max_tokens": 99, "seed": 7
    }  # fmt: skip
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert asked["stream"] is True


@pytest.mark.parametrize("tag", ["think", "思考"])
def test_reasoning_in_tags_comes_apart_too(process: EngineProcess, does: Behaviour, tag: str) -> None:
    cut = [f"<{tag[:2]}", f"{tag[2:]}>\n先想一想。</", f"{tag}>\n\n多喝水。"]
    does.chunks = [*(piece(content=text) for text in cut), end(), "data: [DONE]"]
    reply = ask(process)
    assert (reply.thinking, reply.answer) == ("先想一想。", "多喝水。")


def test_reasoning_under_its_other_name(process: EngineProcess, does: Behaviour) -> None:
    does.chunks = [piece(reasoning="想。"), piece(content="答。"), end(), "data: [DONE]"]
    reply = ask(process)
    assert (reply.thinking, reply.answer) == ("想。", "答。")


def test_reasoning_that_never_ends_is_no_answer(process: EngineProcess, does: Behaviour) -> None:
    does.chunks = [piece(reasoning_content="想了又想"), end("length"), "data: [DONE]"]
    reply = ask(process)
    assert (reply.thinking, reply.answer) == ("想了又想", "")
    assert (reply.finished.finish_reason, reply.finished.thinking_truncated) == ("length", True)


def test_comments_and_unknown_lines_are_passed_over(process: EngineProcess, does: Behaviour) -> None:
    does.chunks = [": alive", "event: message", piece(content="好。"), "id: 3", end(), "data: [DONE]"]
    assert ask(process).answer == "好。"


def test_an_answer_without_chunked_transfer(process: EngineProcess, does: Behaviour) -> None:
    does.lengths = True
    assert ask(process).answer == "".join(WORDS)


def test_a_strict_server_is_asked_in_openais_words_only(process: EngineProcess, does: Behaviour) -> None:
    does.strict = True
    assert ask(process).answer == "".join(WORDS)
    assert ask(process).answer == "".join(WORDS)
    # It is tried once, and remembered.
    assert ["top_k" in body for body in does.asked] == [True, False, False]


def test_words_come_while_the_server_goes_on(process: EngineProcess, does: Behaviour) -> None:
    does.chunks, does.fault = [piece(content="第一句。"), piece(content="第二句。")], "stall"
    process.send(process.request(user(DIZZY)))
    said = ""
    while said != "第一句。第二句。":
        event = process.event()
        said += event.answer if isinstance(event, Delta) else ""
    assert not does.go.is_set()


# Faults


def failure(event: object) -> str:
    assert isinstance(event, Failed), event
    hint = f"engine.{event.kind}_hint"
    assert i18n.t(f"engine.{event.kind}", **event.values)
    assert not i18n.has(hint) or i18n.t(hint, **event.values)
    return event.kind


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("DRKUN_REMOTE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with EngineProcess(tmp_path / "engine.log") as process:
            event = load(process)
    assert failure(event) == "remote_unreachable"
    assert isinstance(event, Failed)
    assert "refused" in str(event.values["reason"]).lower()


def test_the_wrong_key(does: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does.key = KEY
    monkeypatch.setenv("DRKUN_REMOTE_KEY", "sk-another")
    with EngineProcess(tmp_path / "engine.log") as process:
        assert failure(load(process)) == "remote_refused"
        assert b"sk-another" not in b"".join(process.lines)


def test_a_model_that_the_server_has_not(does: Behaviour, tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "engine.log") as process:
        event = load(process, "missing")
    assert failure(event) == "remote_no_model"
    assert isinstance(event, Failed)
    assert "made-up, another" in str(event.values["known"])


def test_a_name_without_ollamas_tag(does: Behaviour, tmp_path: Path) -> None:
    does.models = ["qwen3:latest"]
    with EngineProcess(tmp_path / "engine.log") as process:
        assert isinstance(load(process, "qwen3"), Ready)


def test_a_server_without_a_list_of_models(does: Behaviour, tmp_path: Path) -> None:
    does.models = None
    with EngineProcess(tmp_path / "engine.log") as process:
        assert failure(load(process)) == "remote_which_model"
        assert isinstance(load(process, "mine"), Ready)
        assert ask(process).answer == "".join(WORDS)
    assert does.asked[-1]["model"] == "mine"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_error_instead_of_an_answer(process: EngineProcess, does: Behaviour, status: int) -> None:
    does.status = status
    event = ask(process).failed
    assert failure(event) == "remote_failed"
    assert str(status) in str(event.values["reason"])
    assert "说不出来" in str(event.values["reason"])
    does.status = 200
    assert ask(process).answer == "".join(WORDS)


def test_an_error_in_the_middle(process: EngineProcess, does: Behaviour) -> None:
    does.chunks = [piece(content="先说"), {"error": {"message": "out of memory", "code": 500}}]
    reply = ask(process)
    assert failure(reply.failed) == "remote_failed"
    assert reply.failed.values["reason"] == "out of memory"
    assert reply.answer == "先说"


def test_it_breaks_off_in_the_middle(process: EngineProcess, does: Behaviour) -> None:
    does.chunks, does.fault = [piece(reasoning_content="想"), piece(content="先说")], "cut"
    reply = ask(process)
    assert failure(reply.failed) == "remote_broke_off"
    assert (reply.thinking, reply.answer) == ("想", "先说")


def test_an_end_without_a_word_that_it_is_the_end(process: EngineProcess, does: Behaviour) -> None:
    does.chunks = [piece(content="先说")]
    reply = ask(process)
    assert failure(reply.failed) == "remote_broke_off"
    assert reply.answer == "先说"


@pytest.mark.parametrize(
    "line", ["data: {", "data: [1]", 'data: {"choices": 3}', "data: <html>", "data: \ud7ff{]"]
)
def test_garbage_in_the_stream(process: EngineProcess, does: Behaviour, line: str) -> None:
    does.chunks = [piece(content="先说"), line, piece(content="后说"), end()]
    reply = ask(process)
    assert failure(reply.failed) == "remote_garbage"
    assert reply.answer == "先说"


def test_a_line_without_an_end(process: EngineProcess, does: Behaviour) -> None:
    does.chunks = [piece(content="先说"), "data: " + "x" * 3_000_000]
    assert failure(ask(process).failed) in ("remote_broke_off", "remote_garbage")
    does.chunks = [piece(content="好"), end()]
    assert ask(process).answer == "好"


@pytest.mark.parametrize("fault", ["stall", "stall-early"])
def test_a_server_that_stalls_can_be_cancelled(process: EngineProcess, does: Behaviour, fault: str) -> None:
    does.chunks, does.fault = [piece(content="先说")], fault
    request = process.request(user(DIZZY))
    process.send(request)
    if fault == "stall":
        assert process.until(Delta)
    process.send(Cancel(request.id))
    finished = process.until(Finished, Failed)[-1]
    assert isinstance(finished, Finished)
    assert finished.finish_reason == "cancelled"
    if fault == "stall":
        # The server learns that nobody listens, and can stop computing.
        assert does.left.wait(30)
    does.go.set()
    does.fault, does.chunks = "", [piece(content="好"), end()]
    assert ask(process).answer == "好"


def test_a_redirect_is_not_followed(process: EngineProcess, does: Behaviour) -> None:
    """The reader was told one host."""
    does.fault = "moved"
    assert failure(ask(process).failed) == "remote_moved"


def test_an_answer_cannot_be_carried_on(process: EngineProcess, does: Behaviour) -> None:
    reply = process.ask(user(DIZZY), resume=Partial("想", "先"))
    assert failure(reply.failed) == "remote_no_resume"
    assert does.asked == []


def test_no_adapter(process: EngineProcess, tmp_path: Path) -> None:
    assert failure(process.set_adapter(tmp_path / "a.gguf")) == "remote_no_adapter"


# The key


@pytest.mark.parametrize("place", ["environment", "settings"])
def test_the_key_goes_to_the_server_and_nowhere_else(
    does: Behaviour, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    does.key = KEY
    if place == "environment":
        monkeypatch.setenv("DRKUN_REMOTE_KEY", KEY)
    else:
        settings.save(Settings(remote_key=KEY), paths.settings_file())
        assert paths.settings_file().stat().st_mode & 0o777 == 0o600
    log = tmp_path / "engine.log"
    with EngineProcess(log) as process:
        assert isinstance(load(process), Ready)
        assert ask(process).answer == "".join(WORDS)
        does.status, does.error = 400, {"error": {"message": f"no {KEY} here"}}
        assert ask(process).failed.values["reason"] == "400, no *** here"
        said = b"".join(process.lines)
    assert KEY.encode() not in said + log.read_bytes()
    assert does.heads[-1]["Authorization"] == f"Bearer {KEY}"


def test_a_password_for_the_host_is_not_sent_in_the_keys_place(
    process: EngineProcess, does: Behaviour, user_home: Path
) -> None:
    (user_home / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    ask(process)
    assert "Authorization" not in does.heads[-1]


# The address


@pytest.mark.parametrize(
    ("given", "url", "host", "local"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1", "127.0.0.1:8080", True),
        ("http://localhost/v1/", "http://localhost/v1", "localhost", True),
        ("http://[::1]:9/v1", "http://[::1]:9/v1", "[::1]:9", True),
        ("https://api.example.org/openai/v1", "https://api.example.org/openai/v1", "api.example.org", False),
        (" http://10.0.0.5:11434 ", "http://10.0.0.5:11434/v1", "10.0.0.5:11434", False),
    ],
)
def test_addresses(given: str, url: str, host: str, local: bool) -> None:
    server = remote.server(Settings(remote_url=given))
    assert server
    assert (server.url, server.host, server.local) == (url, host, local)
    assert host in server.notice
    assert ("离开本机" in server.notice) is not local


@pytest.mark.parametrize(
    "given", ["localhost:8080", "ftp://host", "http://", "http://me:secret@host/v1", "http://host:x", "//x"]
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(DrkunError) as caught:
        plan_load(Settings(profile="remote", remote_url=given))
    assert caught.value.kind == "remote_url"
    assert "secret" not in caught.value.message + caught.value.hint


def test_without_an_address_the_profile_cannot_be_chosen() -> None:
    with pytest.raises(DrkunError) as caught:
        plan_load(Settings(profile="remote"))
    assert (caught.value.kind, caught.value.exit_code) == ("profile_unavailable", 2)


def test_the_plan_names_who_answers(server: tuple[str, Behaviour]) -> None:
    url, _ = server
    plan = plan_load(Settings(profile="remote", remote_model="made-up"))
    assert plan.profile is Profile.REMOTE
    assert plan.load == Load(
        path=f"{url}/v1", context_length=0, threads=0, engine="openai", device="elsewhere", model="made-up"
    )
    assert plan.name == f"made-up@{url.removeprefix('http://')}"


# The command


def test_ask_says_where_the_question_goes(server: tuple[str, Behaviour]) -> None:
    url, does = server
    told = run("ask", "--profile", "remote", "--model", "another", "--json", DIZZY)
    assert told.code == 0
    assert told.json["answer"] == "".join(WORDS)
    assert told.json["thinking"] == "".join(THOUGHTS)
    assert (told.json["profile"], told.json["engine"]) == ("remote", "openai")
    assert url.removeprefix("http://") in told.err
    assert does.asked[-1]["model"] == "another"


def test_a_failed_command_is_one_line(server: tuple[str, Behaviour]) -> None:
    url, does = server
    does.status = 500
    told = run("ask", "--profile", "remote", DIZZY)
    assert told.code == 4
    assert url.removeprefix("http://") in told.failure


def test_time_is_measured_up_to_the_first_word(process: EngineProcess, does: Behaviour) -> None:
    began = time.perf_counter()
    timings = ask(process).finished.timings
    assert 0 < timings.ttft_s <= time.perf_counter() - began
