"""The conversations' database file: opening it safely, and bringing an older one up to date.

A file is looked at before it is touched: one that is newer than this program, damaged, or somebody
else's stays byte for byte as it was. An older one is copied beside itself before its first step.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t

MEMORY = ":memory:"

APPLICATION_ID = 0x44724B75
"""``DrKu``: tells our files from another program's SQLite files."""

_SNIPPET_BEFORE, _SNIPPET_AFTER = 16, 48

_MAGIC = b"SQLite format 3\0"
# Compiled when it is first used, not when the program starts.
_SPACED = (
    "([\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff])"
)


def fold(text: str) -> str:
    """`text` as the search compares it: half and full width alike, upper and lower case alike."""
    return unicodedata.normalize("NFKC", text).casefold().replace("\0", " ")


def segment(text: str) -> str:
    """`text` as the full-text index holds it: folded, every CJK character a word of its own.

    SQLite's tokenizer takes a run of Chinese for one word, and its trigram tokenizer finds nothing
    shorter than three characters; most Chinese symptoms are written with two.
    """
    return re.sub(_SPACED, r" \1 ", fold(text))


def words_of(query: str) -> list[str]:
    """The words to look for, folded; what has no letter and no digit is not looked for."""
    return [word for word in fold(query).split() if any(char.isalnum() for char in word)]


def expression(words: list[str]) -> str:
    """The FTS5 query for all of `words`, each by its beginning.

    A quoted phrase has no syntax in it but the quote itself.
    """
    return " AND ".join('"{}"*'.format(segment(word).replace('"', '""')) for word in words)


def first_match(fields: dict[str, str], words: list[str]) -> tuple[str, str] | None:
    """Name and snippet of the field that holds the first of `words`, when all of them are truly there.

    The index also finds a Chinese word across a comma or a line's end; that is no match.
    """
    folded = {name: fold(text) for name, text in fields.items()}
    places = [{name: _find(text, word) for name, text in folded.items()} for word in words]
    if not all(max(place.values()) >= 0 for place in places):
        return None
    name = next(name for name in fields if places[0][name] >= 0)
    return name, _snippet(fields[name], places[0][name])


def _find(folded: str, word: str) -> int:
    """Where `word` is in `folded`, or -1. A Latin word must begin there, not go on."""
    start = folded.find(word)
    if re.match(_SPACED, word) or not word[0].isalnum():
        return start
    while start > 0 and folded[start - 1].isalnum() and not re.match(_SPACED, folded[start - 1]):
        start = folded.find(word, start + 1)
    return start


def _snippet(text: str, place: int) -> str:
    """One line of `text` around `place`, which counts characters of the folded text."""
    start = place
    if len(fold(text)) != len(text):
        # Folding made some characters longer (℃ is °C): walk the original up to the same place.
        start = walked = 0
        while start < len(text) and walked < place:
            walked += len(fold(text[start]))
            start += 1
    first, last = max(0, start - _SNIPPET_BEFORE), start + _SNIPPET_AFTER
    line = " ".join(text[first:last].split())
    return ("…" if first else "") + line + ("…" if last < len(text) else "")


def _first_tables(db: sqlite3.Connection) -> None:
    db.execute(
        """
        CREATE TABLE conversations (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL DEFAULT '',
            system TEXT NOT NULL DEFAULT '',
            context_start INTEGER NOT NULL DEFAULT 0,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL
        )"""
    )
    # `question` stands before the long columns, so that the prompt history reads no overflow pages.
    db.execute(
        """
        CREATE TABLE turns (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            conversation_id INTEGER NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
            state TEXT NOT NULL,
            writer TEXT NOT NULL DEFAULT '',
            superseded INTEGER NOT NULL DEFAULT 0,
            created_at REAL NOT NULL,
            question TEXT NOT NULL,
            reasoning TEXT NOT NULL DEFAULT '',
            answer TEXT NOT NULL DEFAULT '',
            thinking_truncated INTEGER NOT NULL DEFAULT 0,
            model TEXT NOT NULL DEFAULT '',
            profile TEXT NOT NULL DEFAULT '',
            engine TEXT NOT NULL DEFAULT '',
            sampling TEXT NOT NULL DEFAULT '{}',
            usage TEXT NOT NULL DEFAULT '{}',
            timings TEXT NOT NULL DEFAULT '{}',
            error TEXT NOT NULL DEFAULT ''
        )"""
    )
    db.execute("CREATE INDEX turns_of_conversation ON turns(conversation_id, superseded)")
    db.execute("CREATE INDEX turns_streaming ON turns(state) WHERE state = 'streaming'")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _full_text(db: sqlite3.Connection) -> None:
    db.execute(
        """
        CREATE VIRTUAL TABLE turn_text
        USING fts5(question, answer, tokenize = 'unicode61 remove_diacritics 0')"""
    )
    turns = db.execute("SELECT id, question, answer FROM turns WHERE NOT superseded AND state != 'streaming'")
    db.executemany(
        "INSERT INTO turn_text(rowid, question, answer) VALUES (?, ?, ?)",
        ((turn, segment(question), segment(answer)) for turn, question, answer in turns),
    )


def _safety_and_context(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE turns ADD COLUMN red_flags TEXT NOT NULL DEFAULT '[]'")
    db.execute("ALTER TABLE turns ADD COLUMN dropped_turns INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE turns ADD COLUMN adapter TEXT")
    db.execute("ALTER TABLE turns ADD COLUMN demonstration INTEGER NOT NULL DEFAULT 0")


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first_tables, _full_text, _safety_and_context)
"""``STEPS[n]`` takes a database from version n to n + 1. A released step is never edited, only followed."""

VERSION = len(STEPS)


def connect(path: Path | str, busy_s: float) -> sqlite3.Connection:
    """Open the database at `path`, made or migrated where needed.

    Raises:
        DrkunError: ``store_newer``, ``store_corrupt``, ``store_full``, ``store_readonly``,
            ``store_locked`` or ``store_failed``; the file is then as it was.
    """
    with translated(path):
        if path == MEMORY:
            old_version = 0
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Medical text: for its owner's eyes. SQLite gives the same mode to the files beside it.
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT, 0o600))
            if not _writable(path):
                # SQLite would open it for reading, and fail at the first question.
                raise PermissionError("not writable")
            old_version = _look(path, busy_s)
        db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            if 0 < old_version < VERSION:
                _keep_copy(db, Path(path), old_version)
            # Asked first, because setting it wants a lock that a program streaming beside us may hold.
            if db.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
                db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            # A deleted consultation is overwritten, not only unlinked.
            db.execute("PRAGMA secure_delete = ON")
            migrate(db)
        except BaseException:
            db.close()
            raise
    return db


def migrate(db: sqlite3.Connection, to: int = VERSION) -> None:
    """Take the steps that `db` lacks, each in a transaction of its own."""
    while (version := _version(db)) < to:
        with transaction(db):
            # Asked again under the lock: another program may have taken the step meanwhile.
            if _version(db) == version:
                STEPS[version](db)
                db.execute(f"PRAGMA user_version = {version + 1}")
    if version > VERSION:
        raise _newer(version)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block's writes, or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn what SQLite and the file system raise in the block into a `DrkunError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        what = _what_went_wrong(error, path)
        raise DrkunError(
            f"store_{what}",
            t(f"store.{what}", path=path, error=" ".join(str(error).split())),
            t(f"store.{what}_hint", path=path),
        ) from error


def _what_went_wrong(error: sqlite3.Error | OSError, path: Path | str) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    certain = {
        sqlite3.SQLITE_FULL: "full",
        sqlite3.SQLITE_READONLY: "readonly",
        sqlite3.SQLITE_PERM: "readonly",
        sqlite3.SQLITE_BUSY: "locked",
        sqlite3.SQLITE_LOCKED: "locked",
        sqlite3.SQLITE_CORRUPT: "corrupt",
        sqlite3.SQLITE_NOTADB: "corrupt",
    }
    if code in certain:
        return certain[code]
    if path != MEMORY and (
        code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) or isinstance(error, OSError)
    ):
        # SQLite gives a general error when it cannot make or grow the files beside the database.
        folder = next(parent for parent in Path(path).absolute().parents if parent.exists())
        if shutil.disk_usage(folder).free < 64 * 1024:
            return "full"
        if isinstance(error, PermissionError) or not _writable(folder):
            return "readonly"
    return "failed"


def _writable(path: Path | str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _look(path: Path | str, busy_s: float) -> int:
    """The version of an existing file, 0 for an empty one; nothing is written.

    The connection is read-only, because an ordinary one that closes last moves a write-ahead log
    left by a killed program into the file.
    """
    with Path(path).open("rb") as file:
        start = file.read(len(_MAGIC))
    if not start:
        return 0
    if start != _MAGIC:
        raise _corrupt(path)
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=busy_s)) as db:
        version = _version(db)
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        owner = db.execute("PRAGMA application_id").fetchone()[0]
    if tables and owner != APPLICATION_ID:
        raise _corrupt(path)
    if version > VERSION:
        raise _newer(version)
    return version


def _keep_copy(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the database beside itself, whole or not at all."""
    copy = path.with_name(f"{path.name}.v{version}.bak")
    descriptor, name = tempfile.mkstemp(prefix=f"{copy.name}.", dir=path.parent)
    os.close(descriptor)
    part = Path(name)
    try:
        with contextlib.closing(sqlite3.connect(part)) as target:
            db.backup(target)
            is_as_seen = _version(target) == version
        # Otherwise another program has migrated meanwhile, and has kept the copy.
        if is_as_seen:
            part.replace(copy)
    finally:
        part.unlink(missing_ok=True)


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _newer(version: int) -> DrkunError:
    message = t("store.newer", version=version, known=VERSION)
    return DrkunError("store_newer", message, t("store.newer_hint"))


def _corrupt(path: Path | str) -> DrkunError:
    message = t("store.corrupt", path=path, error="")
    return DrkunError("store_corrupt", message, t("store.corrupt_hint", path=path))
