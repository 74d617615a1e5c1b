"""Conversations on disk: written while they stream, searched in Chinese and English.

Every method is safe to call from any thread, and none returns before its write is committed, so a
program killed at any moment loses only what it had not saved yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drkun_tui.consult import schema
from drkun_tui.consult.conversation import Conversation, Hit, State, Summary, Turn, title_from
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.jobs import processes

__all__ = ["Hit", "Store"]

_LONGEST_QUERY = 200

# fmt: off
_SAVED = (
    "reasoning", "answer", "state", "thinking_truncated", "red_flags", "model", "demonstration", "adapter",
    "profile", "engine", "sampling", "usage", "timings", "dropped_turns", "error",
)
# fmt: on
"""What of a `Turn` changes after it was asked; its fields and the table's columns have the same names."""

_SAVE = f"UPDATE turns SET writer = :writer, {', '.join(f'{n} = :{n}' for n in _SAVED)} WHERE id = :id"  # noqa: S608


class Store:
    """The conversations in one database file, or in ``":memory:"``.

    Raises:
        DrkunError: from every method, with kind ``store_full``, ``store_readonly``, ``store_locked``,
            ``store_corrupt``, ``store_missing`` or ``store_failed``; from opening also ``store_newer``.
            The store stays usable: what failed can be tried again.
    """

    def __init__(self, path: Path | str, *, busy_s: float = 3.0) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._db = schema.connect(path, busy_s)
        self._db.row_factory = sqlite3.Row
        try:
            with self._reading():
                self._interrupt_orphans()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file. The store is of no use afterwards."""
        with self._reading():
            self._db.close()

    # Conversations

    def create_conversation(self, system: str = "") -> Conversation:
        """An empty conversation; its title comes with the first question."""
        now = time.time()
        with self._writing() as db:
            row = db.execute(
                "INSERT INTO conversations(system, created_at, updated_at) VALUES (?, ?, ?) RETURNING id",
                (_storable(system), now, now),
            ).fetchone()
        return Conversation(row["id"], system=system, created_at=now, updated_at=now)

    def summaries(self, limit: int = 200) -> list[Summary]:
        """The conversations, the one that was last used first."""
        with self._reading() as db:
            rows = db.execute(
                """
                SELECT id, title, updated_at, (
                    SELECT count(*) FROM turns WHERE conversation_id = conversations.id AND NOT superseded
                ) AS turn_count
                FROM conversations ORDER BY updated_at DESC, id DESC LIMIT ?""",
                (limit,),
            ).fetchall()
        return [Summary(**dict(row)) for row in rows]

    def load(self, conversation_id: int) -> Conversation:
        """A conversation with the turns that are shown."""
        with self._reading() as db:
            self._interrupt_orphans()
            row = db.execute("SELECT * FROM conversations WHERE id = ?", (conversation_id,)).fetchone()
            if row is None:
                raise _missing()
            turns = db.execute(
                "SELECT * FROM turns WHERE conversation_id = ? AND NOT superseded ORDER BY id",
                (conversation_id,),
            ).fetchall()
        conversation = Conversation(**dict(row), turns=[_turn(turn) for turn in turns])
        conversation.context_start = min(conversation.context_start, len(turns))
        return conversation

    def rename(self, conversation_id: int, title: str) -> None:
        """Give a conversation a title of the reader's own."""
        self._change(
            "UPDATE conversations SET title = ? WHERE id = ?", _storable(title.strip()), conversation_id
        )

    def set_context_start(self, conversation_id: int, context_start: int) -> None:
        """Remember that the turns before this index no longer go to the model."""
        self._change(
            "UPDATE conversations SET context_start = ? WHERE id = ?", context_start, conversation_id
        )

    def delete_conversation(self, conversation_id: int) -> None:
        """Delete a conversation for good, its words in the full-text index included."""
        with self._writing() as db:
            db.execute(
                "DELETE FROM turn_text WHERE rowid IN (SELECT id FROM turns WHERE conversation_id = ?)",
                (conversation_id,),
            )
            db.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
            # FTS5 keeps deleted words in its segments until they are merged.
            db.execute("INSERT INTO turn_text(turn_text) VALUES ('optimize')")
        with self._reading() as db:
            # Otherwise the text lives on in the write-ahead log. A reader beside us may hold that up.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    # Turns

    def add_turn(self, turn: Turn) -> int:
        """Keep a question whose answer is about to stream, and say which id it has now."""
        with self._writing() as db:
            conversation = db.execute(
                "SELECT title FROM conversations WHERE id = ?", (turn.conversation_id,)
            ).fetchone()
            if conversation is None:
                raise _missing()
            title = conversation["title"]
            if not title or self._was_automatic(turn.conversation_id, title):
                title = _storable(title_from(turn.question))
            db.execute(
                "UPDATE conversations SET title = ?, updated_at = ? WHERE id = ?",
                (title, turn.created_at, turn.conversation_id),
            )
            row = db.execute(
                """
                INSERT INTO turns(conversation_id, question, state, created_at)
                VALUES (?, ?, ?, ?) RETURNING id""",
                (turn.conversation_id, _storable(turn.question), turn.state, turn.created_at),
            ).fetchone()
            turn_id: int = row["id"]
            self._update(turn, turn_id)
            if turn.state is not State.STREAMING:
                self._index(turn_id)
        return turn_id

    def save(self, turn: Turn) -> None:
        """Keep what a turn holds now. Cheap enough for twice a second while it streams."""
        with self._writing() as db:
            self._update(turn, turn.id)
            if turn.state is not State.STREAMING:
                self._index(turn.id)
                now = time.time()
                db.execute(
                    "UPDATE conversations SET updated_at = ? WHERE id = ?", (now, turn.conversation_id)
                )

    def supersede(self, turn_id: int) -> None:
        """Hide a turn that was asked again or edited. It is kept, but neither shown nor found."""
        with self._writing() as db:
            db.execute("UPDATE turns SET superseded = 1 WHERE id = ?", (turn_id,))
            db.execute("DELETE FROM turn_text WHERE rowid = ?", (turn_id,))

    # Looking back

    def search(self, query: str, limit: int = 50) -> list[Hit]:
        """Turns with every word of `query` in their question or answer, newest first.

        A Chinese word is found wherever it stands, a Latin word by its beginning.
        """
        words = schema.words_of(query[:_LONGEST_QUERY])
        if not words:
            return []
        hits: list[Hit] = []
        with self._reading() as db:
            rows = db.execute(
                """
                SELECT turns.id AS turn_id, conversation_id, title, turns.question, turns.answer,
                    turns.created_at AS created_at
                FROM turn_text JOIN turns ON turns.id = turn_text.rowid
                JOIN conversations ON conversations.id = conversation_id
                WHERE turn_text MATCH ? ORDER BY turn_text.rowid DESC""",
                (_storable(schema.expression(words)),),
            )
            for row in rows:
                if len(hits) >= limit:
                    break
                values = dict(row)
                fields = {name: values.pop(name) for name in ("question", "answer")}
                if found := schema.first_match(fields, words):
                    hits.append(Hit(**values, field=found[0], snippet=found[1]))
        return hits

    def recent_questions(self, limit: int = 100) -> list[str]:
        """What was asked, newest first, each once: the history of the prompt."""
        recent: dict[str, None] = {}
        with self._reading() as db:
            for row in db.execute("SELECT question FROM turns ORDER BY id DESC"):
                if len(recent) >= limit:
                    break
                recent.setdefault(row["question"])
        return list(recent)

    # Within

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, schema.translated(self._path):
            yield self._db

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db, schema.transaction(db):
            yield db

    def _change(self, statement: str, value: str | int, conversation_id: int) -> None:
        with self._writing() as db:
            if db.execute(statement, (value, conversation_id)).rowcount == 0:
                raise _missing()

    def _update(self, turn: Turn, turn_id: int) -> None:
        values = {name: _stored(getattr(turn, name)) for name in _SAVED}
        writer = processes.signature(os.getpid()) if turn.state is State.STREAMING else ""
        if self._db.execute(_SAVE, {**values, "writer": writer, "id": turn_id}).rowcount == 0:
            raise _missing()

    def _index(self, turn_id: int) -> None:
        self._db.execute("DELETE FROM turn_text WHERE rowid = ?", (turn_id,))
        row = self._db.execute(
            "SELECT question, answer FROM turns WHERE id = ? AND NOT superseded", (turn_id,)
        ).fetchone()
        if row is not None:
            self._db.execute(
                "INSERT INTO turn_text(rowid, question, answer) VALUES (?, ?, ?)",
                (turn_id, schema.segment(row["question"]), schema.segment(row["answer"])),
            )

    def _was_automatic(self, conversation_id: int, title: str) -> bool:
        """Whether `title` came from a first question that has been edited away since."""
        turns = self._db.execute(
            "SELECT question, superseded FROM turns WHERE conversation_id = ?", (conversation_id,)
        )
        past = turns.fetchall()
        return all(row["superseded"] for row in past) and title in (
            title_from(row["question"]) for row in past
        )

    def _interrupt_orphans(self) -> None:
        """Mark the turns whose program died while they streamed.

        What cannot be written now is written another time: `_turn` reads it as interrupted anyway, and
        a full disk must not keep anyone from reading.
        """
        streaming = self._db.execute("SELECT id, writer FROM turns WHERE state = 'streaming'").fetchall()
        orphans = [row for row in streaming if not processes.is_alive(row["writer"])]
        if not orphans:
            return
        with contextlib.suppress(sqlite3.OperationalError), schema.transaction(self._db):
            for turn_id, writer in orphans:
                self._db.execute(
                    "UPDATE turns SET state = ?, writer = '' WHERE id = ? AND writer = ?",
                    (State.INTERRUPTED, turn_id, writer),
                )
                self._index(turn_id)


def _turn(row: sqlite3.Row) -> Turn:
    values: dict[str, Any] = {key: row[key] for key in row.keys() if key not in ("writer", "superseded")}  # noqa: SIM118
    for name in ("sampling", "usage", "timings", "red_flags"):
        values[name] = json.loads(values[name])
    values["state"] = State(values["state"])
    if values["state"] is State.STREAMING and not processes.is_alive(row["writer"]):
        values["state"] = State.INTERRUPTED
    for name in ("thinking_truncated", "demonstration"):
        values[name] = bool(values[name])
    return Turn(**values)


def _stored(value: object) -> object:
    if isinstance(value, str):
        return _storable(value)
    return json.dumps(value, default=str) if isinstance(value, (list, dict)) else value


def _storable(text: str) -> str:
    """`text` without the lone surrogates of undecodable input, which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _missing() -> DrkunError:
    return DrkunError("store_missing", t("store.missing"), t("store.missing_hint"))
