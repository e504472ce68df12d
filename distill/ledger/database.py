"""The SQLite file of a run: what teachers answered, and what that took.

Every statement outside of a transaction is committed when it returns. A process killed at any
instant leaves what was committed, and no half of a transaction.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from distill.errors import DistillError, RunError, RunLockedError, WriteError

# "dist" in the file's header says that it is ours; the version says how it is laid out.
_APPLICATION = 0x64697374
_VERSION = 2
# With row numbers, texts are appended one after the other, and looking for a key reads no text.
_REPLIES = """
CREATE TABLE replies (
    key TEXT NOT NULL PRIMARY KEY,
    text BLOB NOT NULL,
    model TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL
)
"""
_LEDGER = """
CREATE TABLE ledger (
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    PRIMARY KEY (stage, model, outcome)
) WITHOUT ROWID
"""
_NEW = (_REPLIES, _LEDGER)
_FROM_1 = (
    "ALTER TABLE replies RENAME TO replies_1",
    _REPLIES,
    "INSERT INTO replies SELECT key, text, model, prompt_tokens, 0, completion_tokens, 0"
    " FROM replies_1",
    "DROP TABLE replies_1",
    _LEDGER,
    # Version 1 kept no ledger: what its replies took is what is known to be spent.
    "INSERT INTO ledger SELECT 'generate', model, 'reply', count(*), sum(prompt_tokens), 0,"
    " sum(completion_tokens), 0 FROM replies GROUP BY model",
)
# Pages, 64 MB of them: what is appended goes into its place while everything waits for the disk.
_CHECKPOINT = 16_000
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class _Layout(NamedTuple):
    application: int
    version: int
    tables: int


class Database:
    """An open run database, made when it is missing and brought to this version when it is older.

    Raises RunError when the file is damaged or not one of ours, WriteError when it cannot be
    written, RunLockedError when another process keeps it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: what `execute` returned from is committed.
            # One thread at a time uses it, but not always the one that opened it (LoopRunner).
            self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            with self.guarded():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What SQLite and the operating system refuse, as errors with a way out."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from None
        except OSError as error:
            raise WriteError.from_os(error, self.path) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside, or none of it."""
        with self.guarded():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            finally:
                # SQLite may have rolled back by itself, as on a full disk.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def _prepare(self) -> None:
        if not self._is_current():
            with self.transaction() as connection:
                # Another process may have been quicker.
                if not self._is_current():
                    for statement in self._steps():
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
        # Appended to rather than rewritten: a commit costs microseconds and survives a kill.
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")

    def _is_current(self) -> bool:
        return self._layout()[:2] == (_APPLICATION, _VERSION)

    def _steps(self) -> tuple[str, ...]:
        match self._layout():
            case _Layout(0, _, 0):
                return _NEW
            case _Layout(application, 1, _) if application == _APPLICATION:
                return _FROM_1
        raise self._unusable("is not a store of replies of this version of distill")

    def _layout(self) -> _Layout:
        [application] = self.connection.execute("PRAGMA application_id").fetchone()
        [version] = self.connection.execute("PRAGMA user_version").fetchone()
        [tables] = self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return _Layout(application, version, tables)

    def _unusable(self, cause: str) -> RunError:
        return RunError(
            cause,
            place=self.path,
            hint="restore it, or move it away: what it held is then asked of the teacher again",
        )

    def _translated(self, error: sqlite3.Error) -> DistillError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the bits say more
        if code in _UNWRITABLE:
            number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else None
            return WriteError.from_os(OSError(number, str(error)), self.path)
        if code in _BUSY:
            return RunLockedError(
                "another process is writing replies here",
                place=self.path,
                hint="wait until it is done, or choose another folder with --out",
            )
        return self._unusable(f"is damaged: {error}")
