"""A run's SQLite database: the replies of teachers, and the ledger of what they used.

Every statement outside of a transaction is committed when it returns. A process killed at any
instant leaves what was committed, and no half of a transaction. Each row holds a checksum of the
others of its columns, which SQLite lacks: a byte that a disk or a copy changed is found when the
row is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.errors import DistillError, RunError, RunLockedError, WriteError

# "dist": the application id in the header of the file.
_APPLICATION_ID = 0x64697374
_SCHEMA_VERSION = 3
_WITHOUT_CHECKSUMS = 2
# A table with row ids: texts are appended one after the other, and the index on the key holds none.
_CREATE_REPLIES = """
CREATE TABLE replies (
    key TEXT NOT NULL PRIMARY KEY,
    text BLOB NOT NULL,
    model TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    checksum BLOB
)
"""
_CREATE_LEDGER = """
CREATE TABLE ledger (
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    checksum BLOB,
    PRIMARY KEY (stage, model, outcome)
) WITHOUT ROWID
"""
# In pages, 64 MB: requests wait for the disk while a checkpoint moves the log into the database.
_WAL_CHECKPOINT = 16_000
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)
_OTHER_VERSION = "is not a store of replies of this version of distill"
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Database:
    """An open run database, created when it is missing.

    Raises RunError when the file is damaged, foreign or of another version, WriteError when it
    cannot be written, RunLockedError when another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.guarded():
            read_only = path.exists() and not (
                os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: what `execute` returned from is committed.
            # One thread at a time uses it, but not always the one that opened it (LoopRunner).
            self.connection = sqlite3.connect(
                _read_only_uri(path) if read_only else path,
                uri=read_only,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with self.guarded():
                if not read_only:
                    self._prepare()
                elif self._version() == _WITHOUT_CHECKSUMS:
                    self._copy_to_memory()
                elif self._version() != _SCHEMA_VERSION:
                    raise self.unusable(_OTHER_VERSION)
                self._check_ledger()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Errors of SQLite and of the operating system are raised as DistillErrors."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from None
        except (UnicodeDecodeError, OverflowError) as error:  # of the names in a damaged schema
            raise self.unusable(f"is damaged: {error}") from None
        except OSError as error:
            raise WriteError.from_os(error, self.path) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit everything that is done inside, or roll all of it back."""
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
        if self._version() != _SCHEMA_VERSION:
            with self.transaction() as connection:
                # Asked again, with the lock held: another process may have created it since.
                version = self._version()
                if version == _WITHOUT_CHECKSUMS:
                    _add_checksums(connection)
                elif version != _SCHEMA_VERSION:
                    self._create(connection)
        # With a write-ahead log, a commit takes microseconds and survives a kill.
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_CHECKPOINT}")

    def _create(self, connection: sqlite3.Connection) -> None:
        has_tables = connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None
        if has_tables or self._pragma("application_id"):
            raise self.unusable(_OTHER_VERSION)
        connection.execute(_CREATE_REPLIES)
        connection.execute(_CREATE_LEDGER)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _copy_to_memory(self) -> None:
        """Read a store of the version before from a copy, as it cannot get its checksums."""
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.connection.backup(copy)
        self.connection.close()
        self.connection = copy
        with self.transaction():
            _add_checksums(copy)

    def _check_ledger(self) -> None:
        """A ledger of which SQLite cannot find every row would be too small."""
        found = self.connection.execute("PRAGMA quick_check(ledger)").fetchone()[0]
        if found != "ok":
            raise self.unusable(f"is damaged: {found}")

    def _version(self) -> int | None:
        """The version of the store; None for another file, and for an empty one."""
        ours = self._pragma("application_id") == _APPLICATION_ID
        return self._pragma("user_version") if ours else None

    def _pragma(self, name: str) -> int:
        return int(self.connection.execute(f"PRAGMA {name}").fetchone()[0])

    def checked(self, row: Sequence[Any], checksum: object) -> None:
        """Raise RunError unless `checksum` is that of the row's other columns."""
        if checksum != checksum_of(row):
            raise self.unusable("is damaged: a row in it is not what was stored")

    def unusable(self, cause: str) -> RunError:
        return RunError(
            cause,
            place=self.path,
            hint="restore it, or move it away: what it held is then asked of the teacher again",
        )

    def _translated(self, error: sqlite3.Error) -> DistillError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended code
        if code in _UNWRITABLE:
            number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else None
            return WriteError.from_os(OSError(number, str(error)), self.path)
        if code in _BUSY:
            return RunLockedError(
                "another process is writing replies here",
                place=self.path,
                hint="wait until it is done, or choose another folder with --out",
            )
        return self.unusable(f"is damaged: {error}")


def checksum_of(row: Sequence[Any]) -> bytes:
    """The checksum of a row's columns: key columns, text and numbers."""
    # As ASCII literals, which are told apart by type, and are the same in every version of Python.
    return hashlib.blake2b(ascii(tuple(row)).encode("ascii"), digest_size=16).digest()


def _add_checksums(connection: sqlite3.Connection) -> None:
    """Turn a store of version 2 into one of version 3. Call it in a transaction."""
    for table, key in (("replies", ("key",)), ("ledger", ("stage", "model", "outcome"))):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum BLOB")
        where = " AND ".join(f"{name} = ?" for name in key)
        update = f"UPDATE {table} SET checksum = ? WHERE {where}"
        # By keys, which fit the memory; a cursor would meet the rows that it changes.
        for found in connection.execute(f"SELECT {', '.join(key)} FROM {table}").fetchall():
            *row, _ = connection.execute(f"SELECT * FROM {table} WHERE {where}", found).fetchone()
            connection.execute(update, (checksum_of(row), *found))
    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")


def _read_only_uri(path: Path) -> str:
    """Of a folder that cannot be written; a log there, as a killed run leaves it, is read too."""
    log = path.with_name(f"{path.name}-wal")
    whole = not log.exists() or log.stat().st_size == 0
    return f"{path.absolute().as_uri()}?mode=ro" + "&immutable=1" * whole
