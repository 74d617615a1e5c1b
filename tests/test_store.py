"""Conversations on disk: what is kept, what is found, and what a damaged or full disk says."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkun_tui import i18n
from drkun_tui.consult import schema
from drkun_tui.consult.conversation import Conversation, State, Turn, title_from
from drkun_tui.consult.store import Store
from drkun_tui.errors import DrkunError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def ask(
    store: Store, conversation: Conversation, question: str, answer: str = "", reasoning: str = ""
) -> Turn:
    """A finished turn."""
    turn = Turn(0, conversation.id, question, created_at=1_800_000_000.0)
    turn.id = store.add_turn(turn)
    turn.answer, turn.reasoning, turn.state = answer, reasoning, State.DONE
    store.save(turn)
    return turn


def kind_of(action: object) -> str:
    """The kind of the `DrkunError` that `action` raises."""
    assert callable(action)
    with pytest.raises(DrkunError) as raised:
        action()
    assert raised.value.message
    assert raised.value.hint
    assert "\n" not in raised.value.message + raised.value.hint
    return raised.value.kind


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What is kept


def test_a_turn_comes_back_as_it_was(store: Store, path: Path) -> None:
    conversation = store.create_conversation("你是一名医生。")
    turn = Turn(
        -1,
        conversation.id,
        "头晕三天了，怎么办？\n血压 150/95",
        red_flags=["stroke"],
        model="starter",
        demonstration=True,
        adapter="lora",
        profile="cpu",
        engine="llama_cpp",
        sampling={"temperature": 0.6, "seed": None, "think": True},
        created_at=1_800_000_000.25,
    )
    turn.id = store.add_turn(turn)
    turn.reasoning, turn.answer = "患者头晕……", "建议测量血压。"
    turn.state, turn.thinking_truncated = State.LENGTH, True
    turn.usage, turn.timings = {"answer_tokens": 7}, {"ttft_s": 0.25}
    turn.dropped_turns, turn.error = 2, "太长"
    store.save(turn)

    with contextlib.closing(Store(path)) as again:
        loaded = again.load(conversation.id)
    assert loaded.turns == [turn]
    assert (loaded.system, loaded.title) == ("你是一名医生。", "头晕三天了，怎么办")
    assert path.stat().st_mode & 0o077 == 0


def test_lone_surrogates_do_not_stop_a_question(store: Store) -> None:
    conversation = store.create_conversation()
    ask(store, conversation, "头晕\udce4", "好\ud800")
    [turn] = store.load(conversation.id).turns
    assert (turn.question, turn.answer) == ("头晕?", "好?")


def test_summaries_put_the_last_used_first(store: Store) -> None:
    first, second = store.create_conversation(), store.create_conversation()
    ask(store, second, "胃痛三天")
    ask(store, first, "头晕")
    ask(store, first, "还是头晕")
    assert [(s.id, s.title, s.turn_count) for s in store.summaries()] == [
        (first.id, "头晕", 2),
        (second.id, "胃痛三天", 1),
    ]
    assert len(store.summaries(limit=1)) == 1


def test_a_superseded_turn_is_hidden_and_kept(store: Store) -> None:
    conversation = store.create_conversation()
    old = ask(store, conversation, "头晕", "旧的回答")
    store.supersede(old.id)
    assert store.search("头晕") == []
    ask(store, conversation, "头晕", "新的回答")
    assert [turn.answer for turn in store.load(conversation.id).turns] == ["新的回答"]
    assert [hit.field for hit in store.search("回答")] == ["answer"]
    store.save(old)
    assert len(store.search("回答")) == 1
    assert store.recent_questions() == ["头晕"]
    assert store.summaries()[0].turn_count == 1


def test_the_title_follows_an_edited_first_question_but_not_a_chosen_name(store: Store) -> None:
    conversation = store.create_conversation()
    first = ask(store, conversation, "头晕")
    store.supersede(first.id)
    edited = ask(store, conversation, "胃痛")
    assert store.load(conversation.id).title == "胃痛"
    ask(store, conversation, "后来呢")
    assert store.load(conversation.id).title == "胃痛"
    store.rename(conversation.id, " 我的胃 ")
    store.supersede(edited.id)
    ask(store, conversation, "好些了")
    assert store.load(conversation.id).title == "我的胃"


def test_settings_of_a_conversation(store: Store) -> None:
    conversation = store.create_conversation("简短回答")
    ask(store, conversation, "头晕")
    store.set_context_start(conversation.id, 9)
    loaded = store.load(conversation.id)
    assert loaded.system == "简短回答"
    assert loaded.context_start == 1, "never beyond the turns there are"


def test_recent_questions_are_unique_and_newest_first(store: Store) -> None:
    conversation = store.create_conversation()
    for question in ("头晕", "胃痛", "头晕", "咳嗽"):
        ask(store, conversation, question)
    assert store.recent_questions() == ["咳嗽", "头晕", "胃痛"]
    assert store.recent_questions(2) == ["咳嗽", "头晕"]


def test_what_is_gone_is_said(store: Store) -> None:
    conversation = store.create_conversation()
    turn = ask(store, conversation, "头晕")
    store.delete_conversation(conversation.id)
    assert store.summaries() == []
    assert store.search("头晕") == []
    assert kind_of(lambda: store.load(conversation.id)) == "store_missing"
    assert kind_of(lambda: store.save(turn)) == "store_missing"
    assert kind_of(lambda: store.add_turn(turn)) == "store_missing"
    assert kind_of(lambda: store.rename(conversation.id, "x")) == "store_missing"


def test_a_deleted_conversation_leaves_no_words_on_disk(store: Store, path: Path) -> None:
    gone, kept = store.create_conversation(), store.create_conversation()
    ask(store, gone, "zyzzyva 秘密的病", "haematochromatosis", "quixotically")
    ask(store, kept, "头晕")
    store.delete_conversation(gone.id)
    left = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for word in ("zyzzyva", "秘密的病", "haematochromatosis", "quixotically"):
        assert word.encode() not in left


def test_many_threads_at_once(store: Store) -> None:
    conversation = store.create_conversation()

    def work(number: int) -> None:
        for step in range(10):
            ask(store, conversation, f"问题 {number}-{step}", "回答")
            store.search("问题", 3)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.load(conversation.id).turns) == 40


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("\n\n  头晕怎么办？\n详细……", "头晕怎么办"),
        ("医生你好，最近胃痛", "最近胃痛"),
        ("您好！", "您好"),
        ("Hello doctor, my head hurts", "my head hurts"),
        ("- # 咳嗽", "咳嗽"),
        ("？？？\n---\n发烧", "发烧"),
        ("一二三四五六七八九十一二三四五", "一二三四五六七八九十一…"),
        ("a\x1b[31mb", "a [31mb"),
        ("。。。", ""),
        ("", ""),
    ],
)
def test_titles(question: str, title: str) -> None:
    assert title_from(question) == title


# What is found


@pytest.fixture
def library(store: Store) -> Store:
    conversation = store.create_conversation()
    ask(
        store, conversation, "最近总是头晕，恶心。血压１５０", "可能是高血压，服用 Amlodipine 5mg", "心血管科"
    )
    ask(store, conversation, "胃痛三天", "可能是胃炎。\n头\n晕则要测血压")
    ask(store, conversation, "COVID-19 之后咳嗽 38℃", "多喝水")
    return store


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("头晕", ["最近总是头晕，恶心。血压１５０"]),
        ("晕", ["胃痛三天", "最近总是头晕，恶心。血压１５０"]),
        ("高血压", ["最近总是头晕，恶心。血压１５０"]),
        ("血压 胃", ["胃痛三天"]),
        ("头晕 5mg", ["最近总是头晕，恶心。血压１５０"]),
        ("头晕恶心", []),
        ("心血管", []),
        ("amlo", ["最近总是头晕，恶心。血压１５０"]),
        ("ＡＭＬＯＤＩＰＩＮＥ", ["最近总是头晕，恶心。血压１５０"]),
        ("lodipine", []),
        ("血压150", ["最近总是头晕，恶心。血压１５０"]),
        ("covid-19", ["COVID-19 之后咳嗽 38℃"]),
        ("vid", []),
        ("38°c", ["COVID-19 之后咳嗽 38℃"]),
        ('"头晕', []),
        ("头晕 OR 咳嗽", []),
        ("question:头晕", []),
        ("头晕*", []),
        ("-头晕", []),
        ("NEAR(头 晕)", []),
        ("？ ！", []),
        ("", []),
        ("\0", []),
        ("头晕\0 恶心", ["最近总是头晕，恶心。血压１５０"]),
        ("\ud800头晕", []),
    ],
)
def test_search(library: Store, query: str, found: list[str]) -> None:
    [conversation] = library.summaries()
    questions = {turn.id: turn.question for turn in library.load(conversation.id).turns}
    assert [questions[hit.turn_id] for hit in library.search(query)] == found


def test_a_hit_shows_the_original_text(library: Store) -> None:
    [hit] = library.search("AMLO")
    assert (hit.field, hit.snippet) == ("answer", "可能是高血压，服用 Amlodipine 5mg")
    assert hit.title == "最近总是头晕，恶心。血…"
    [hit] = library.search("１５０")
    assert hit.snippet == "最近总是头晕，恶心。血压１５０"
    assert len(library.search("血压", limit=1)) == 1


def test_a_long_text_is_cut_around_the_hit(store: Store) -> None:
    ask(store, store.create_conversation(), "㎎" * 50 + "头晕" + "很" * 100)
    [hit] = store.search("头晕")
    assert hit.snippet == "…" + "㎎" * 16 + "头晕" + "很" * 46 + "…"


def test_a_streaming_turn_is_found_when_it_has_ended(store: Store) -> None:
    turn = Turn(0, store.create_conversation().id, "头晕")
    turn.id = store.add_turn(turn)
    store.save(turn)
    assert store.search("头晕") == []
    turn.state = State.CANCELLED
    store.save(turn)
    assert len(store.search("头晕")) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.data())
def test_any_piece_of_a_chinese_text_is_found(text: str, data: st.DataObject) -> None:
    with contextlib.closing(Store(":memory:")) as store:
        question = "患者头晕伴恶心呕吐三天"
        ask(store, store.create_conversation(), text + question)
        start = data.draw(st.integers(0, len(question) - 1))
        end = data.draw(st.integers(start + 1, len(question)))
        assert len(store.search(question[start:end])) == 1
        # Whatever is typed into the search line, it is never an error.
        store.search(text)


# Programs that die


CHILD = """
import sys, time
from drkun_tui.consult.conversation import Turn
from drkun_tui.consult.store import Store
store = Store(sys.argv[1])
turn = Turn(0, store.create_conversation().id, "头晕怎么办", created_at=time.time())
turn.id = store.add_turn(turn)
for count in range(1, 1000000):
    turn.reasoning += "想"
    turn.answer += "答"
    store.save(turn)
    print(count, flush=True)
    time.sleep(0.002)
"""


@contextlib.contextmanager
def streaming_child(path: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def test_kill_9_in_mid_answer_loses_nothing_saved(path: Path) -> None:
    with streaming_child(path) as child:
        assert child.stdout is not None
        for _ in range(25):
            child.stdout.readline()
        with contextlib.closing(Store(path)) as beside:
            [summary] = beside.summaries()
            assert beside.load(summary.id).turns[0].state is State.STREAMING, "its writer lives"
            child.send_signal(signal.SIGKILL)
            said = [int(line) for line in child.stdout.read().split("\n") if line]
            # Dead, and still a zombie: its parent has not waited for it.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            [turn] = beside.load(summary.id).turns
    assert turn.state is State.INTERRUPTED
    assert len(turn.answer) >= max(said, default=25)
    assert len(turn.reasoning) == len(turn.answer)
    with contextlib.closing(Store(path)) as again:
        assert again.load(summary.id).turns == [turn]
        assert len(again.search("头晕")) == 1


@pytest.mark.parametrize(
    "writer",
    ["", f"{os.getpid()} another-boot:1", "999999999 x", "nonsense"],
    ids=["empty", "another boot", "nobody", "nonsense"],
)
def test_a_recycled_pid_is_not_the_writer(path: Path, writer: str) -> None:
    with contextlib.closing(Store(path)) as store:
        conversation = store.create_conversation()
        store.add_turn(Turn(0, conversation.id, "头晕"))
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE turns SET writer = ?", (writer,))
        assert store.load(conversation.id).turns[0].state is State.INTERRUPTED


def test_an_interrupted_answer_is_read_though_nothing_can_be_written(path: Path) -> None:
    with (
        contextlib.closing(Store(path, busy_s=0.01)) as store,
        contextlib.closing(sqlite3.connect(path)) as db,
    ):
        conversation = store.create_conversation()
        store.add_turn(Turn(0, conversation.id, "头晕"))
        db.execute("UPDATE turns SET writer = ''")  # Holds the lock: not committed.
        assert store.load(conversation.id).turns[0].state is State.STREAMING
        db.commit()
        db.execute("BEGIN IMMEDIATE")
        assert store.load(conversation.id).turns[0].state is State.INTERRUPTED


# Older files


VERSION_1 = """
    INSERT INTO conversations(id, title, system, context_start, created_at, updated_at)
    VALUES (1, '头晕', '你是医生', 0, 1.0, 2.0);
    INSERT INTO turns
        (id, conversation_id, state, created_at, question, reasoning, answer, sampling, superseded)
    VALUES (1, 1, 'done', 1.0, '头晕', '旧', '旧的回答', '{}', 1),
           (2, 1, 'done', 1.5, '头晕怎么办', '想', '测血压', '{"seed": 7}', 0),
           (3, 1, 'streaming', 2.0, '然后呢', '', '先', '{}', 0);
"""


@pytest.mark.parametrize("version", range(1, schema.VERSION + 1))
def test_every_older_file_migrates_with_its_data(path: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db, to=1)
        db.executescript(VERSION_1)
        schema.migrate(db, to=version)
    before = fingerprint(path)

    with contextlib.closing(Store(path)) as store:
        loaded = store.load(1)
        assert [(turn.question, turn.answer) for turn in loaded.turns] == [
            ("头晕怎么办", "测血压"),
            ("然后呢", "先"),
        ]
        assert loaded.turns[0].sampling == {"seed": 7}
        assert loaded.turns[0].red_flags == []
        assert loaded.turns[0].adapter is None
        assert loaded.turns[1].state is State.INTERRUPTED
        assert [hit.turn_id for hit in store.search("血压")] == [2]
        assert [hit.turn_id for hit in store.search("头晕")] == [2]
        assert [hit.turn_id for hit in store.search("然后")] == [3]
        ask(store, loaded, "新的问题")

    copies = [file.name for file in path.parent.iterdir() if file != path]
    if version == schema.VERSION:
        assert copies == []
    else:
        [name] = copies
        assert name == f"conversations.db.v{version}.bak"
        with contextlib.closing(sqlite3.connect(path.with_name(name))) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (version,)
            assert db.execute("SELECT count(*) FROM turns").fetchone() == (3,)
        assert path.with_name(name).stat().st_mode & 0o077 == 0
    assert fingerprint(path) != before


def test_a_step_that_fails_leaves_the_version_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db, to=1)
        db.executescript(VERSION_1)
    first, full_text, last = schema.STEPS

    def dies_at_its_end(db: sqlite3.Connection) -> None:
        full_text(db)
        raise sqlite3.OperationalError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(schema, "STEPS", (first, dies_at_its_end, last))
        assert kind_of(lambda: Store(path)) == "store_failed"
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'turn_text'").fetchone() == (0,)
    with contextlib.closing(Store(path)) as store:
        assert len(store.search("血压")) == 1


@pytest.mark.parametrize("version", [0, 1])
def test_programs_that_open_at_once(path: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db, to=version)
    opened: list[Store] = []
    threads = [threading.Thread(target=lambda: opened.append(Store(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    conversation = opened[0].create_conversation()
    for store in opened:
        ask(store, conversation, "头晕")
    assert len(opened[0].load(conversation.id).turns) == 6
    for store in opened:
        store.close()
    if version:
        with contextlib.closing(sqlite3.connect(f"{path}.v1.bak")) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (1,)


# Files that are not ours, not whole or not writable


def test_a_newer_file_is_left_alone(path: Path) -> None:
    with contextlib.closing(Store(path)) as store:
        store.create_conversation()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = fingerprint(path)
    assert kind_of(lambda: Store(path)) == "store_newer"
    assert fingerprint(path) == before
    assert not list(path.parent.glob("*.bak"))


def test_a_newer_file_with_an_unfinished_log_is_left_alone(path: Path) -> None:
    writing = Store(path)
    writing._db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    # As a killed program leaves it: the newest pages only in the log.
    other = path.with_name("killed.db")
    for suffix in ("", "-wal"):
        other.with_name(other.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    writing.close()
    before = fingerprint(other)
    assert kind_of(lambda: Store(other)) == "store_newer"
    assert fingerprint(other) == before


def damaged_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.db"
        with contextlib.closing(Store(path)) as store:
            for number in range(40):
                ask(store, store.create_conversation(), f"头晕 {number}" * 50)
        whole = path.read_bytes()
        path.unlink()
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE bookmarks (url TEXT)")
        foreign = path.read_bytes()
    return {
        "text": "头晕怎么办\n".encode() * 100,
        "zeros": bytes(8192),
        "header only": whole[:100],
        "half": whole[: len(whole) // 2],
        "first page gone": whole[:100] + b"\xff" * 3996 + whole[4096:],
        "another program's": foreign,
    }


@pytest.mark.parametrize(
    "name", ["text", "zeros", "header only", "half", "first page gone", "another program's"]
)
def test_a_damaged_or_foreign_file_is_left_alone(path: Path, name: str) -> None:
    path.write_bytes(damaged_files()[name])
    before = fingerprint(path)
    assert kind_of(lambda: Store(path)) == "store_corrupt"
    assert fingerprint(path) == before


def test_damage_found_later_is_said(path: Path) -> None:
    with contextlib.closing(Store(path)) as store:
        conversation = store.create_conversation()
        for number in range(40):
            ask(store, conversation, f"头晕 {number}" * 200)
    whole = bytearray(path.read_bytes())
    for page in range(12, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    path.write_bytes(bytes(whole))
    with contextlib.closing(Store(path)) as store:
        assert kind_of(lambda: store.load(conversation.id)) == "store_corrupt"


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    with contextlib.closing(Store(path)) as store:
        assert store.summaries() == []


def test_a_full_disk_is_said_and_the_store_goes_on(store: Store) -> None:
    conversation = store.create_conversation()
    turn = Turn(0, conversation.id, "头晕")
    turn.id = store.add_turn(turn)
    turn.answer = "先测血压。"
    store.save(turn)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    turn.answer = "很长的回答" * 10_000
    turn.state = State.DONE
    assert kind_of(lambda: store.save(turn)) == "store_full"
    assert store.load(conversation.id).turns[0].answer == "先测血压。"
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.save(turn)
    assert store.load(conversation.id).turns[0].answer == turn.answer
    assert len(store.search("回答")) == 1


def test_general_errors_on_a_full_disk_are_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says "disk I/O error" when it cannot grow the files beside the database."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE

    def fail() -> None:
        with schema.translated(path):
            raise error

    assert kind_of(fail) == "store_failed"
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=0))
    assert kind_of(fail) == "store_full"


@contextlib.contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder of our own, and no right to write where its mode forbids it (root may write anywhere)."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if is_root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o700)


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_file_that_cannot_be_written(mode: int) -> None:
    with unprivileged() as folder:
        path = folder / "conversations.db"
        with contextlib.closing(Store(path)) as store:
            store.create_conversation()
        path.chmod(mode)
        assert kind_of(lambda: Store(path)) == "store_readonly"


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_cannot_be_written(exists: bool) -> None:
    with unprivileged() as folder:
        path = folder / "conversations.db"
        if exists:
            Store(path).close()
        folder.chmod(0o500)
        assert kind_of(lambda: Store(path)) == "store_readonly"
        assert kind_of(lambda: Store(folder / "new" / "conversations.db")) == "store_readonly"


def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    assert kind_of(lambda: Store(tmp_path)) == "store_failed"


def test_a_locked_file_is_said(path: Path) -> None:
    with (
        contextlib.closing(Store(path, busy_s=0.05)) as store,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        assert kind_of(store.create_conversation) == "store_locked"
        assert store.summaries() == []
        other.execute("COMMIT")
        store.create_conversation()


def test_both_languages_have_every_line() -> None:
    lines = [{key for key in i18n.catalogue(code) if key.startswith("store.")} for code in i18n.LANGUAGES]
    assert lines[0] == lines[1]
