"""A budget in USD or tokens, and a teacher whose requests are metered and held to it.

Before a request is sent, an upper bound of its usage is reserved: the prompt by the length of its
text, the completion by max_tokens. Spent and reserved together never exceed the budget, so that a
run stops before the first request that does not fit, and not after it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from distill.config import Price, TeacherConfig
from distill.errors import BudgetError
from distill.files import encoded
from distill.ledger.ledger import Ledger, LedgerEntry, UsageTotals
from distill.ledger.prices import (
    FREE,
    cost,
    entry_cost,
    format_count,
    format_usage,
    format_usd,
    teacher_price,
    unknown_price_error,
)
from distill.records import canonical_json
from distill.teachers.base import (
    ChatReply,
    ChatRequest,
    DrainingError,
    ReplyError,
    Teacher,
    Usage,
    WrappedTeacher,
)

# A conservative guess for text with JSON in it; the usage that servers report corrects it upwards.
BYTES_PER_TOKEN = 3
# Bytes per message for the special tokens and role names of a chat template.
_MESSAGE_OVERHEAD = 24


class Reservation(NamedTuple):
    """The most that requests can use: prompts in bytes, completions in tokens."""

    requests: int = 0
    prompt_bytes: int = 0
    completion_tokens: int = 0

    def plus(self, other: Reservation, sign: int = 1) -> Reservation:
        return Reservation(*(a + sign * b for a, b in zip(self, other, strict=True)))


# Resolves to None when the request may be sent, else to the error that it raises.
_Waiter = asyncio.Future[Exception | None]


class Budget:
    """The limits of a run, and what it has spent and reserved so far.

    usd, tokens: the limits; None for none
    price: of the tokens from now on; a limit in USD needs it
    spent, spent_usd: by the run's earlier commands and stages
    """

    def __init__(
        self,
        usd: float | None = None,
        tokens: int | None = None,
        price: Price | None = None,
        *,
        spent: UsageTotals = UsageTotals(),
        spent_usd: float | None = None,
    ) -> None:
        if usd is not None and price is None:
            raise ValueError("a budget in USD needs a price")
        self.usd = usd
        self.tokens = tokens
        self._price = price or FREE
        self._spent_before = spent
        self._spent_before_usd = cost(spent, self._price) if spent_usd is None else spent_usd
        self._spent_now = UsageTotals()
        self._reserved = Reservation()
        self._tokens_per_byte = 1 / BYTES_PER_TOKEN
        # Above 1 for a server that writes more than max_tokens.
        self._overrun = 1.0
        self._waiting: deque[tuple[_Waiter, Reservation]] = deque()
        self._draining = False
        # What did not fit with nothing in flight: from then on nothing is sent.
        self._exceeding: Reservation | None = None

    @classmethod
    def of(cls, settings: TeacherConfig, entries: Iterable[LedgerEntry]) -> Budget:
        """The budget of a run whose ledger has `entries`.

        Raises UsageError for a budget in USD where a model has no known price.
        """
        entries = list(entries)
        price, usd = teacher_price(settings), settings.budget_usd
        if usd is not None and price is None:
            raise unknown_price_error(settings.model)
        spent_usd = 0.0
        for entry in entries:
            entry_usd = entry_cost(entry, settings)
            if usd is not None and entry_usd is None:
                raise unknown_price_error(entry.model)
            spent_usd += entry_usd or 0.0
        spent = UsageTotals.total(entries)
        return cls(usd, settings.budget_tokens, price, spent=spent, spent_usd=spent_usd)

    @property
    def spent(self) -> UsageTotals:
        """Requests and tokens of the run so far, earlier commands included."""
        return UsageTotals.total((self._spent_before, self._spent_now))

    @property
    def spent_usd(self) -> float:
        """USD of the run so far, earlier commands included."""
        return self._spent_before_usd + cost(self._spent_now, self._price)

    def progress_note(self) -> list[str]:
        """What is spent, and of how much, for a progress bar; empty where nothing costs."""
        if self.usd is not None:
            return [f"{format_usd(self.spent_usd)} of {format_usd(self.usd)}"]
        if self.tokens is not None:
            return [f"{format_count(self.spent.tokens)} of {format_count(self.tokens)} tokens"]
        return [format_usd(self.spent_usd)] * (self._price != FREE)

    async def reserve(self, request: ChatRequest) -> Reservation:
        """Wait, first in first out, until the most that `request` can use fits; reserve it.

        Raises BudgetError when it does not fit and nothing is in flight that may turn out cheaper
        than reserved, DrainingError after `drain`.
        """
        reservation = self._worst_case(request)
        if self._draining:
            raise DrainingError
        if not self._reserved.requests and not self._fits(reservation):
            self._exceeding = self._exceeding or reservation
        if self._exceeding:
            raise self._budget_error(self._exceeding)
        if self._waiting or not self._fits(reservation):
            await self._wait(reservation)
        else:
            self._reserved = self._reserved.plus(reservation)
        return reservation

    def settle(self, reservation: Reservation, usage: Usage | None) -> None:
        """Replace what was reserved for a request by what it used; None: nothing."""
        self._reserved = self._reserved.plus(reservation, -1)
        if usage is not None:
            self._spent_now = self._spent_now.plus(usage)
            self._calibrate(reservation, usage)
        self._admit_waiting()

    def drain(self) -> None:
        """Reserve nothing more: requests that wait raise DrainingError."""
        self._draining = True
        self._reject_all(DrainingError)

    async def _wait(self, reservation: Reservation) -> None:
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((waiter, reservation))
        try:
            refusal = await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._admit_waiting()
            elif waiter.result() is None:
                self.settle(reservation, None)
            raise
        if refusal is not None:
            raise refusal

    def _admit_waiting(self) -> None:
        """Reserve for the waiting requests, in their order, as far as the budget reaches."""
        while self._waiting:
            waiter, reservation = self._waiting[0]
            if waiter.cancelled():
                self._waiting.popleft()
            elif self._fits(reservation):
                self._waiting.popleft()
                self._reserved = self._reserved.plus(reservation)
                waiter.set_result(None)
            else:
                if not self._reserved.requests:
                    # Smaller requests behind it may fit, but the error ends the run, and would
                    # lose the replies of those in flight.
                    self._exceeding = reservation
                    self._reject_all(partial(self._budget_error, reservation))
                return

    def _reject_all(self, error: Callable[[], Exception]) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popleft()
            if not waiter.cancelled():
                waiter.set_result(error())

    def _worst_case(self, request: ChatRequest) -> Reservation:
        if self.usd is None and self.tokens is None:
            return Reservation(1)
        # Servers put the schema into the prompt, or charge for it as if they did.
        size = len(encoded(canonical_json(request.reply_schema)))
        size += sum(
            len(encoded(message.content)) + _MESSAGE_OVERHEAD for message in request.messages
        )
        return Reservation(1, size, request.max_tokens)

    def _usage_bound(self, reservation: Reservation) -> Usage:
        # One more token per request, whose prompt is rounded up by itself.
        prompt = math.ceil(reservation.prompt_bytes * self._tokens_per_byte) + reservation.requests
        completion = math.ceil(reservation.completion_tokens * self._overrun)
        return Usage(prompt_tokens=prompt, completion_tokens=completion)

    def _fits(self, reservation: Reservation) -> bool:
        worst = self._usage_bound(self._reserved.plus(reservation))
        if self.tokens is not None:
            tokens = self._spent_before.tokens + self._spent_now.tokens
            if tokens + worst.prompt_tokens + worst.completion_tokens > self.tokens:
                return False
        return self.usd is None or self.spent_usd + self._worst_cost(worst) <= self.usd

    def _worst_cost(self, worst: Usage) -> float:
        """USD with no or every prompt token cached, whichever is more."""
        cached = worst.model_copy(update={"cached_tokens": worst.prompt_tokens})
        return max(cost(worst, self._price), cost(cached, self._price))

    def _calibrate(self, reservation: Reservation, usage: Usage) -> None:
        if usage.estimated or not reservation.prompt_bytes:
            return
        seen = usage.prompt_tokens / reservation.prompt_bytes
        self._tokens_per_byte = max(self._tokens_per_byte, seen)
        self._overrun = max(self._overrun, usage.completion_tokens / reservation.completion_tokens)

    def _budget_error(self, reservation: Reservation) -> BudgetError:
        worst, spent = self._usage_bound(reservation), self.spent
        worst_usd = self._worst_cost(worst)
        if self.usd is not None and self.spent_usd + worst_usd > self.usd:
            place = "--budget-usd"
            so_far = f"{format_usd(self.spent_usd)} of {format_usd(self.usd)}"
            further = format_usd(worst_usd)
        else:
            place = "--budget-tokens"
            so_far = f"{spent.tokens:,} of {self.tokens:,} tokens"
            further = f"{worst.prompt_tokens + worst.completion_tokens:,} tokens"
        return BudgetError(
            f"spent {so_far}: {format_usage(spent)}; the next request may take {further}",
            place=place,
            hint=f"raise {place}, then run the same command again: it goes on",
        )


class MeteredTeacher(WrappedTeacher):
    """`inner`, with each request held to `budget` and charged to `stage` in the ledger.

    The usage of a request is charged before its reply is returned. A caller that stores the reply
    before it awaits anything else loses none that was paid for, whatever ends the run.
    """

    def __init__(self, inner: Teacher, ledger: Ledger, budget: Budget, stage: str) -> None:
        super().__init__(inner)
        self._ledger = ledger
        self._budget = budget
        self._stage = stage
        # A teacher is called `openai:gpt-5-mini`: prices go by the model.
        self._model = inner.name.partition(":")[2] or inner.name

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The inner teacher's reply, as soon as the budget covers the most that it can use.

        Raises BudgetError when the budget is spent, and what the inner teacher raises.
        """
        reservation = await self._budget.reserve(request)
        usage: Usage | None = None
        try:
            reply = await self._inner.complete(request)
            usage = reply.usage
            self._ledger.charge(self._stage, self._model, "reply", usage)
        except ReplyError as error:
            usage = error.usage
            if usage is not None:
                self._ledger.charge(self._stage, self._model, error.reason, usage)
            raise
        finally:
            self._budget.settle(reservation, usage)
        return reply

    def drain(self) -> None:
        """Send nothing more: requests that wait for the budget raise DrainingError too."""
        self._budget.drain()
        super().drain()
