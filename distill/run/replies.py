"""What a teacher answered is paid for once: replies in SQLite, each durable before it is used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from distill.errors import DistillError, RunError, RunLockedError, WriteError
from distill.teachers.base import ChatReply

# "dist" in the file's header says that it is ours; the version says how it is laid out.
_APPLICATION = 0x64697374
_VERSION = 1
_TABLE = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY,
    text BLOB NOT NULL,
    model TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL
) WITHOUT ROWID
"""
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class ReplyStore:
    """Replies by key. Opened by `with`; made when it is missing.

    A process killed at any instant leaves every reply that `put` returned, and no torn one.
    Raises RunError when the file is damaged or not a store, WriteError when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._guarded():
            self._db = _connected(path)
        try:
            with self._guarded():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> ChatReply | None:
        """The reply kept under `key`."""
        with self._guarded():
            row = self._db.execute(
                "SELECT text, model, prompt_tokens, completion_tokens FROM replies WHERE key = ?",
                [key],
            ).fetchone()
        if row is None:
            return None
        text, model, prompt_tokens, completion_tokens = row
        return ChatReply(
            text=text.decode("utf-8", "surrogatepass"),
            model=model,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )

    def put(self, key: str, reply: ChatReply) -> ChatReply:
        """Keep `reply` unless the key has one, commit, and return the one that is kept.

        The first reply stands: whoever asks for one key twice at a time gets one answer.
        """
        # Lone surrogates are legal in a JSON reply and illegal in SQLite's text: hence the BLOB.
        text = reply.text.encode("utf-8", "surrogatepass")
        row = (key, text, reply.model, reply.prompt_tokens, reply.completion_tokens)
        with self._guarded():
            done = self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", row)
        return reply if done.rowcount else (self.get(key) or reply)

    def drop(self, keys: Iterable[str]) -> None:
        """Forget these, so that they are asked for again."""
        with self._guarded():
            self._db.executemany("DELETE FROM replies WHERE key = ?", [(key,) for key in keys])

    def count(self) -> int:
        """How many replies are kept."""
        with self._guarded():
            return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def _prepare(self) -> None:
        [application] = self._db.execute("PRAGMA application_id").fetchone()
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        [tables] = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables and not application:
            # One transaction, so that a kill leaves an empty file or a store.
            self._db.executescript(
                f"BEGIN; {_TABLE}; PRAGMA application_id = {_APPLICATION};"
                f"PRAGMA user_version = {_VERSION}; COMMIT;"
            )
        elif (application, version) != (_APPLICATION, _VERSION):
            raise self._unusable("is not a store of replies of this version of distill")
        # Appended to rather than rewritten: a commit costs microseconds and survives a kill.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")

    def _unusable(self, cause: str) -> RunError:
        return RunError(
            cause,
            place=self.path,
            hint="restore it, or move it away: what it held is then asked of the teacher again",
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from None
        except OSError as error:
            raise WriteError.from_os(error, self.path) from None

    def _translated(self, error: sqlite3.Error) -> DistillError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the bits say more
        if code in _UNWRITABLE:
            return WriteError.from_os(OSError(None, str(error)), self.path)
        if code in _BUSY:
            return RunLockedError(
                "another process is writing replies here",
                place=self.path,
                hint="wait until it is done, or choose another folder with --out",
            )
        return self._unusable(f"is damaged: {error}")


def _connected(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Autocommit: what `execute` returned from is committed.
    return sqlite3.connect(path, isolation_level=None)
