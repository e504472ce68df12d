"""The ledger of a run: requests and tokens by stage, model and outcome.

It holds no costs: prices may change. It only grows: a dropped reply was paid for all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from distill.ledger.database import Database, checksum_of
from distill.records import Record
from distill.teachers.base import Usage

_COLUMNS = (
    "stage, model, outcome, requests, prompt_tokens, cached_tokens, completion_tokens, estimated"
)
_FIND = f"SELECT {_COLUMNS}, checksum FROM ledger WHERE (stage, model, outcome) = (?, ?, ?)"
_ALL = f"SELECT {_COLUMNS}, checksum FROM ledger ORDER BY stage, model, outcome"
_PUT = f"INSERT OR REPLACE INTO ledger ({_COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class UsageTotals(Record):
    """A number of requests and the sums of their tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    completion_tokens: int = 0
    estimated: int = 0
    """Requests without usage from the server: their tokens are estimates."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, usage: Usage) -> UsageTotals:
        """The totals with one more request."""
        return UsageTotals(
            requests=self.requests + 1,
            prompt_tokens=self.prompt_tokens + usage.prompt_tokens,
            cached_tokens=self.cached_tokens + usage.cached_tokens,
            completion_tokens=self.completion_tokens + usage.completion_tokens,
            estimated=self.estimated + usage.estimated,
        )

    @classmethod
    def total(cls, totals: Iterable[UsageTotals]) -> UsageTotals:
        """The sum of several totals."""
        several = list(totals)
        return UsageTotals(
            **{
                name: sum(getattr(each, name) for each in several)
                for name in UsageTotals.model_fields
            }
        )


class LedgerEntry(UsageTotals):
    """The requests of one stage to one model that had one outcome."""

    stage: str
    model: str
    outcome: str
    """`reply`, or the FailureReason of requests that were charged for all the same."""


class Ledger:
    """The ledger of a run; a ReplyStore opens it, in the file of the replies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def charge(self, stage: str, model: str, outcome: str, usage: Usage) -> None:
        """Add one request; it is committed when this returns."""
        key = (stage, model, str(outcome))
        with self._database.transaction() as connection:
            found = connection.execute(_FIND, key).fetchone()
            totals = self._entry(found) if found else UsageTotals()
            more = totals.plus(usage)
            row = (*key, *(getattr(more, name) for name in UsageTotals.model_fields))
            connection.execute(_PUT, (*row, checksum_of(row)))

    def entries(self) -> list[LedgerEntry]:
        """Every entry, by stage, model and outcome."""
        with self._database.guarded():
            return [self._entry(row) for row in self._database.connection.execute(_ALL)]

    def _entry(self, row: Sequence[Any]) -> LedgerEntry:
        """Raises RunError where the row is not what was stored."""
        *columns, checksum = row
        self._database.checked(columns, checksum)
        try:
            return LedgerEntry(**dict(zip(_COLUMNS.split(", "), columns, strict=True)))
        except ValidationError:
            # Only what was damaged before it had a checksum.
            raise self._database.unusable("is damaged: a row of the ledger is none") from None

    def spent(self) -> UsageTotals:
        """The total of all entries."""
        return UsageTotals.total(self.entries())
