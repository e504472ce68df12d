"""What a run has used of its teachers, in requests and tokens: money is worked out when looked at.

The ledger only grows. A reply that is dropped, or a run begun anew, was paid for all the same.
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
    """Requests and their tokens, added up."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts': those that the server had in its prefix cache."""
    completion_tokens: int = 0
    estimated: int = 0
    """Requests whose tokens the server did not tell."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, usage: Usage) -> UsageTotals:
        """The tally with one more request."""
        return UsageTotals(
            requests=self.requests + 1,
            prompt_tokens=self.prompt_tokens + usage.prompt_tokens,
            cached_tokens=self.cached_tokens + usage.cached_tokens,
            completion_tokens=self.completion_tokens + usage.completion_tokens,
            estimated=self.estimated + usage.estimated,
        )

    @classmethod
    def total(cls, tallies: Iterable[UsageTotals]) -> UsageTotals:
        """All of them in one."""
        several = list(tallies)
        return UsageTotals(
            **{
                name: sum(getattr(tally, name) for tally in several)
                for name in UsageTotals.model_fields
            }
        )


class LedgerEntry(UsageTotals):
    """What one model was asked by one stage with one outcome."""

    stage: str
    model: str
    outcome: str
    """`reply`, or the FailureReason of requests that were charged for all the same."""


class Ledger:
    """The ledger of a run. It is opened as a ReplyStore, in whose file it is."""

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
        """All entries in one."""
        return UsageTotals.total(self.entries())
