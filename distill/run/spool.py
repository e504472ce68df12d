"""Records that come in any order, to be written in the order of their numbers, kept on disk."""

from __future__ import annotations

import errno
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from distill.errors import WriteError
from distill.files import encoded, record_line
from distill.records import Record


class Spool:
    """A sorter whose memory does not grow with what is put into it. Opened by `with`.

    It stands in one file at `path` while it is open. Raises WriteError when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.counts: Counter[str] = Counter()
        """Records put so far, by lane."""

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        # One thread at a time uses it, but not always the one that opened it (LoopRunner).
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        # It outlives nothing: what a killed process leaves is made again.
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE lines (lane TEXT, number INTEGER, line BLOB, PRIMARY KEY (lane, number))"
            " WITHOUT ROWID"
        )
        self._db.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        with suppress(OSError):
            self._path.unlink()

    def put(self, lane: str, number: int, record: Record) -> None:
        """Add a record to one of the orders that are kept apart."""
        try:
            self._db.execute(
                "INSERT INTO lines VALUES (?, ?, ?)", (lane, number, encoded(record_line(record)))
            )
        except sqlite3.OperationalError as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            code = errno.ENOSPC if full else None
            raise WriteError.from_os(OSError(code, str(error)), self._path) from None
        self.counts[lane] += 1

    def lines(self, lane: str) -> Iterator[str]:
        """A lane's records as lines of JSON Lines, by their numbers."""
        found = self._db.execute("SELECT line FROM lines WHERE lane = ? ORDER BY number", [lane])
        for (line,) in found:
            yield line.decode("utf-8")
