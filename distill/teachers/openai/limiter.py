"""The limiter that every request passes: concurrency, rate limits, backpressure, and shutdown."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from distill.teachers.openai.limits import (
    AdaptiveLimit,
    Attempt,
    Backpressure,
    Outcome,
    TokenBucket,
)

# A timer may fire a little early by the clock that set it.
_TIMER_SLACK = 1e-6
# Seconds between the first requests, one for each slot. Sent all at once they come back all at
# once, and the client's time between two such waves is lost: at 128 slots one part in ten. A server
# that refuses every request is also found out before all slots have sent one.
STAGGER = 0.0035


class _Waiter(NamedTuple):
    slot: asyncio.Future[Slot | None]
    """None when the limiter was closed."""
    tokens: float


class Slot(NamedTuple):
    """The right to have one request in flight."""

    attempt: Attempt
    tokens: float


class RequestLimiter:
    """Hands out slots in turn, as fast as the server and the settings allow.

    cap: requests in flight, at most; the limit adapts below it
    stagger: seconds between the first `cap` requests
    """

    def __init__(
        self,
        cap: int,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        stagger: float = STAGGER,
    ) -> None:
        self._cap = cap
        self._stagger = stagger
        self._last_sent = -math.inf
        self._load = AdaptiveLimit(cap)
        self._backpressure = Backpressure()
        self._requests = TokenBucket(requests_per_minute) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute) if tokens_per_minute else None
        self._waiting: deque[_Waiter] = deque()
        self._sleeping: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed: Callable[[], Exception] | None = None

    @property
    def limit(self) -> int:
        return self._load.limit

    @property
    def in_flight(self) -> int:
        return self._load.in_flight

    @property
    def started(self) -> int:
        return self._load.started

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot, a rate limit or a retry."""
        return len(self._waiting) + len(self._sleeping)

    async def acquire(self, tokens: float = 0.0, *, retry: bool = False) -> Slot:
        """A slot, to be given back with `release`. Retries go first: they have waited longest.

        tokens: an estimate of what the request will use
        Raises the error of `close`, as soon as it is called.
        """
        self._raise_if_closed()
        waiter = _Waiter(asyncio.get_running_loop().create_future(), tokens)
        if retry:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        self._admit()
        try:
            slot = await waiter.slot
        except asyncio.CancelledError:
            self._cancel(waiter)
            raise
        if slot is None:
            self._raise_if_closed()
        assert slot is not None
        return slot

    def release(
        self,
        slot: Slot,
        outcome: Outcome | None,
        *,
        retry_after: float | None = None,
        used: float | None = None,
    ) -> None:
        """The request ended. used: tokens, where they are known; outcome: None if cancelled"""
        now = asyncio.get_running_loop().time()
        self._load.finish(slot.attempt, now, outcome)
        self._backpressure.finish(slot.attempt, now, outcome, retry_after, self._load)
        if self._tokens and used is not None:
            self._tokens.refund(slot.tokens - used)
        self._admit()

    async def sleep(self, seconds: float) -> None:
        """Wait without a slot. Raises the error of `close`, as soon as it is called."""
        self._raise_if_closed()
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, over)
        self._sleeping.add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._sleeping.discard(over)
        self._raise_if_closed()

    def close(self, error: Callable[[], Exception]) -> None:
        """Send nothing more: requests that wait, and later ones, raise `error()`."""
        self._closed = self._closed or error
        self.cancel_timer()
        for waiter in self._waiting:
            _wake(waiter.slot)
        self._waiting.clear()
        for over in self._sleeping:
            _wake(over)

    def cancel_timer(self) -> None:
        """Leave nothing behind in the event loop."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise self._closed()

    def _admit(self) -> None:
        """Give slots to those that wait, and set a timer for the first that has to wait longer."""
        self.cancel_timer()
        loop = asyncio.get_running_loop()
        while self._waiting and self._load.in_flight < self._load.limit:
            if self._waiting[0].slot.done():
                self._waiting.popleft()  # cancelled, and its task did not run yet
                continue
            now = loop.time()
            delay = self._delay(self._waiting[0].tokens, now)
            if delay > _TIMER_SLACK:
                self._timer = loop.call_later(delay, self._admit)
                return
            waiter = self._waiting.popleft()
            for bucket, amount in ((self._requests, 1.0), (self._tokens, waiter.tokens)):
                if bucket:
                    bucket.take(amount, now)
            self._last_sent = now
            waiter.slot.set_result(Slot(self._load.start(now), waiter.tokens))

    def _delay(self, tokens: float, now: float) -> float:
        delay = self._backpressure.resume_at - now
        if self._load.started < self._cap:
            delay = max(delay, self._last_sent + self._stagger - now)
        for bucket, amount in ((self._requests, 1.0), (self._tokens, tokens)):
            if bucket:
                delay = max(delay, bucket.delay(amount, now))
        return delay

    def _cancel(self, waiter: _Waiter) -> None:
        # The task may be cancelled at the moment at which the slot came.
        slot = None if waiter.slot.cancelled() else waiter.slot.result()
        if slot is not None:
            self.release(slot, None, used=0.0)
        elif waiter in self._waiting:
            self._waiting.remove(waiter)
            self._admit()


def _wake(future: asyncio.Future[None] | asyncio.Future[Slot | None]) -> None:
    if not future.done():
        future.set_result(None)
