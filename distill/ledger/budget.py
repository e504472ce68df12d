"""A teacher whose requests are counted and held to a budget: each is paid for before it is sent.

The worst that a request can cost is reserved first: its prompt by the length of its text, its reply
by max_tokens. Spent and reserved together never pass the budget, so that a run stops before the
first request that does not fit, and not after it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from distill.config import Price, TeacherConfig
from distill.errors import BudgetError
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
)

# A first guess, on the safe side for text with JSON in it; what servers count corrects it upwards.
BYTES_PER_TOKEN = 3
# What a server's template puts around a message, as if it were text.
_AROUND = 24


class Claim(NamedTuple):
    """The worst that requests can take: their prompts in bytes, their replies in tokens."""

    requests: int = 0
    prompt_bytes: int = 0
    completion_tokens: int = 0


# What a waiting request is told: that it may go, or why it may not.
_Turn = asyncio.Future[Exception | None]


class Budget:
    """What a run may spend in all, and what it has spent and promised so far.

    usd, tokens: the limits; None for none
    price: what tokens cost from now on; one in USD needs it
    spent, spent_usd: what the run's earlier commands and stages took
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
        self._before = spent
        self._before_usd = cost(spent, self._price) if spent_usd is None else spent_usd
        self._now = UsageTotals()
        self._promised = Claim()
        self._tokens_per_byte = 1 / BYTES_PER_TOKEN
        # Above 1 for a server that does not hold max_tokens.
        self._overrun = 1.0
        self._waiting: deque[tuple[_Turn, Claim]] = deque()
        self._draining = False
        # What did not fit although nothing was under way: from then on nothing is sent.
        self._too_much: Claim | None = None

    @classmethod
    def of(cls, settings: TeacherConfig, entries: Iterable[LedgerEntry]) -> Budget:
        """The budget of a run whose ledger has `entries`.

        Raises UsageError for one in USD where a price is not known.
        """
        before = list(entries)
        price, usd = teacher_price(settings), settings.budget_usd
        if usd is not None and price is None:
            raise unknown_price_error(settings.model)
        spent_usd = 0.0
        for entry in before:
            entry_usd = entry_cost(entry, settings)
            if usd is not None and entry_usd is None:
                raise unknown_price_error(entry.model)
            spent_usd += entry_usd or 0.0
        spent = UsageTotals.total(before)
        return cls(usd, settings.budget_tokens, price, spent=spent, spent_usd=spent_usd)

    @property
    def spent(self) -> UsageTotals:
        """Requests and tokens of the run so far, earlier commands included."""
        return UsageTotals.total((self._before, self._now))

    @property
    def spent_usd(self) -> float:
        """USD of the run so far, earlier commands included."""
        return self._before_usd + cost(self._now, self._price)

    def note(self) -> list[str]:
        """For a progress bar: what is spent, of how much."""
        if self.usd is not None:
            return [f"{format_usd(self.spent_usd)} of {format_usd(self.usd)}"]
        if self.tokens is not None:
            return [f"{format_count(self.spent.tokens)} of {format_count(self.tokens)} tokens"]
        return [format_usd(self.spent_usd)] * (self._price != FREE)

    async def reserve(self, request: ChatRequest) -> Claim:
        """Wait until the worst of `request` fits, first come, first served; then it is promised.

        Raises BudgetError when it does not fit and nothing is under way that could turn out
        cheaper than promised, DrainingError after `drain`.
        """
        claim = self._claim(request)
        if self._draining:
            raise DrainingError
        if not self._promised.requests and not self._fits(claim):
            self._too_much = self._too_much or claim
        if self._too_much:
            raise self._error(self._too_much)
        if self._waiting or not self._fits(claim):
            await self._turn(claim)
        else:
            self._promise(claim, 1)
        return claim

    def settle(self, claim: Claim, usage: Usage | None) -> None:
        """Put what a request took in the place of what was promised to it; None: nothing."""
        self._promise(claim, -1)
        if usage is not None:
            self._now = self._now.plus(usage)
            self._learn(claim, usage)
        self._admit()

    def drain(self) -> None:
        """Promise nothing more: those that wait raise DrainingError."""
        self._draining = True
        self._refuse_all(DrainingError)

    async def _turn(self, claim: Claim) -> None:
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, claim))
        try:
            refusal = await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()
            elif turn.result() is None:
                self.settle(claim, None)
            raise
        if refusal is not None:
            raise refusal

    def _admit(self) -> None:
        """Let those that wait go, in their order, as far as the budget reaches."""
        while self._waiting:
            turn, claim = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif self._fits(claim):
                self._waiting.popleft()
                self._promise(claim, 1)
                turn.set_result(None)
            else:
                if not self._promised.requests:
                    # The others may be smaller, but the run ends here: it must find nothing under
                    # way that would be paid for and lost.
                    self._too_much = claim
                    self._refuse_all(partial(self._error, claim))
                return

    def _refuse_all(self, error: Callable[[], Exception]) -> None:
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(error())

    def _promise(self, claim: Claim, sign: int) -> None:
        self._promised = _sum(self._promised, claim, sign)

    def _claim(self, request: ChatRequest) -> Claim:
        if self.usd is None and self.tokens is None:
            return Claim(1)
        said = sum(len(_bytes(message.content)) + _AROUND for message in request.messages)
        # Servers put the schema into the prompt, or charge for it as if they did.
        schema = len(_bytes(canonical_json(request.reply_schema)))
        return Claim(1, said + schema, request.max_tokens)

    def _worst(self, claim: Claim) -> Usage:
        # Each request's prompt is rounded up by itself.
        prompt = math.ceil(claim.prompt_bytes * self._tokens_per_byte) + claim.requests
        completion = math.ceil(claim.completion_tokens * self._overrun)
        return Usage(prompt_tokens=prompt, completion_tokens=completion)

    def _fits(self, claim: Claim) -> bool:
        worst = self._worst(_sum(self._promised, claim, 1))
        if self.tokens is not None:
            tokens = self._before.tokens + self._now.tokens
            if tokens + worst.prompt_tokens + worst.completion_tokens > self.tokens:
                return False
        return self.usd is None or self.spent_usd + self._worst_cost(worst) <= self.usd

    def _worst_cost(self, worst: Usage) -> float:
        """USD where nothing, or everything, comes out of the cache."""
        cached = worst.model_copy(update={"cached_tokens": worst.prompt_tokens})
        return max(cost(worst, self._price), cost(cached, self._price))

    def _learn(self, claim: Claim, usage: Usage) -> None:
        if usage.estimated or not claim.prompt_bytes:
            return
        seen = usage.prompt_tokens / claim.prompt_bytes
        self._tokens_per_byte = max(self._tokens_per_byte, seen)
        self._overrun = max(self._overrun, usage.completion_tokens / claim.completion_tokens)

    def _error(self, claim: Claim) -> BudgetError:
        worst, spent = self._worst(claim), self.spent
        by_usd = self.usd is not None and self.spent_usd + self._worst_cost(worst) > self.usd
        if by_usd:
            place, so_far = (
                "--budget-usd",
                f"{format_usd(self.spent_usd)} of {format_usd(self.usd)}",
            )
            further = format_usd(self._worst_cost(worst))
        else:
            place, so_far = "--budget-tokens", f"{spent.tokens:,} of {self.tokens:,} tokens"
            further = f"{worst.prompt_tokens + worst.completion_tokens:,} tokens"
        return BudgetError(
            f"spent {so_far}: {format_usage(spent)}; the next request may take {further}",
            place=place,
            hint=f"raise {place}, then run the same command again: it goes on",
        )


class MeteredTeacher:
    """`inner`, with each request held to `budget` and charged to `stage` in the ledger.

    What a request took is charged before its reply is returned. A caller that keeps the reply
    before it waits for anything else loses none that was paid for, whatever ends the run.
    """

    def __init__(self, inner: Teacher, ledger: Ledger, budget: Budget, stage: str) -> None:
        self._inner = inner
        self._ledger = ledger
        self._budget = budget
        self._stage = stage
        # A teacher is called `openai:gpt-5-mini`: prices go by the model.
        self._model = inner.name.partition(":")[2] or inner.name

    def __getattr__(self, name: str) -> Any:
        # What only some teachers have, as `messages_only`.
        return getattr(self._inner, name)

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The inner teacher's reply, as soon as the budget allows for the worst of it.

        Raises BudgetError when the budget is spent, and what the inner teacher raises.
        """
        claim = await self._budget.reserve(request)
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
            self._budget.settle(claim, usage)
        return reply

    def drain(self) -> None:
        """Send nothing more: what waits for the budget raises DrainingError too."""
        self._budget.drain()
        self._inner.drain()

    async def close(self) -> None:
        await self._inner.close()


def _sum(one: Claim, other: Claim, sign: int) -> Claim:
    return Claim(*(a + sign * b for a, b in zip(one, other, strict=True)))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
