"""The store of replies in SQLite: each is durable before it is used, and so is paid for once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from distill.ledger.database import Database, checksum_of
from distill.ledger.ledger import Ledger
from distill.teachers.base import ChatReply, Usage

_COLUMNS = "text, model, prompt_tokens, cached_tokens, completion_tokens, estimated, checksum"
_GET = f"SELECT {_COLUMNS} FROM replies WHERE key = ?"
# The first reply wins: two requests in flight for one key end with the same reply.
_PUT = f"INSERT OR IGNORE INTO replies (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class ReplyStore(Ledger):
    """Replies by key, and the ledger, in one database that is created when it is missing.

    A context manager. A process killed at any instant leaves every reply that `put` returned.
    Raises RunError when the file is damaged or not a store, WriteError when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(Database(path))
        self.path = path
        self._db = self._database.connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def get(self, key: str) -> ChatReply | None:
        """The reply stored under `key`. Raises RunError where it is not what was stored."""
        with self._database.guarded():
            row = self._db.execute(_GET, (key,)).fetchone()
            if row is None:
                return None
            *columns, checksum = row
            self._database.checked([key, *columns], checksum)
        try:
            return _reply(columns)
        except (ValueError, TypeError, AttributeError) as error:
            # Only what was damaged before it had a checksum.
            raise self._database.unusable(f"is damaged: {error}") from None

    def put(self, key: str, reply: ChatReply) -> ChatReply:
        """Store `reply` unless the key has one, commit, and return the stored one."""
        with self._database.guarded():
            done = self._db.execute(_PUT, _row(key, reply))
        return reply if done.rowcount else (self.get(key) or reply)

    def put_all(self, replies: Iterable[tuple[str, ChatReply]]) -> None:
        """`put` for several, all of them or none."""
        rows = [_row(key, reply) for key, reply in replies]
        with self._database.transaction() as connection:
            connection.executemany(_PUT, rows)

    def drop(self, keys: Iterable[str]) -> None:
        """Delete these replies, all or none. What they used stays in the ledger."""
        rows = [(key,) for key in keys]
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM replies WHERE key = ?", rows)

    def keys(self) -> set[str]:
        """The keys of all replies."""
        with self._database.guarded():
            return {key for (key,) in self._db.execute("SELECT key FROM replies")}

    def count(self) -> int:
        """The number of replies."""
        with self._database.guarded():
            return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])


def _row(key: str, reply: ChatReply) -> tuple[object, ...]:
    usage = reply.usage
    row = (
        key,
        # Lone surrogates are legal in a JSON reply and illegal in SQLite's text: hence the BLOB.
        reply.text.encode("utf-8", "surrogatepass"),
        reply.model,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        int(usage.estimated),
    )
    return (*row, checksum_of(row))


def _reply(row: Sequence[Any]) -> ChatReply:
    text, model, prompt_tokens, cached_tokens, completion_tokens, estimated = row
    return ChatReply(
        text=text.decode("utf-8", "surrogatepass"),
        model=model,
        usage=Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=completion_tokens,
            estimated=bool(estimated),
        ),
    )
