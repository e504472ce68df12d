"""The ledger of a run: requests and tokens by stage, model and outcome.

It holds no costs: prices may change. It only grows: a dropped reply was paid for all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from distill.ledger.database import Database
from distill.records import Record
from distill.teachers.base import Usage

_CHARGE = """
INSERT INTO ledger VALUES (?, ?, ?, 1, ?, ?, ?, ?)
ON CONFLICT (stage, model, outcome) DO UPDATE SET
    requests = requests + 1,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    estimated = estimated + excluded.estimated
"""


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
        row = (
            stage,
            model,
            str(outcome),
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            usage.estimated,
        )
        with self._database.guarded():
            self._database.connection.execute(_CHARGE, row)

    def entries(self) -> list[LedgerEntry]:
        """Every entry, by stage, model and outcome."""
        with self._database.guarded():
            cursor = self._database.connection.execute(
                "SELECT * FROM ledger ORDER BY stage, model, outcome"
            )
            names = [column[0] for column in cursor.description]
            return [LedgerEntry(**dict(zip(names, row, strict=True))) for row in cursor]

    def spent(self) -> UsageTotals:
        """The total of all entries."""
        return UsageTotals.total(self.entries())
