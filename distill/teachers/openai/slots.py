"""The one door through which requests go out: slots, rate limits, and the end of the run."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from distill.teachers.openai.limits import AdaptiveLimit, Attempt, Backpressure, Bucket, Outcome

# A timer may fire a little early by the clock that set it.
_SOON = 1e-6
# Seconds between the first requests, one for each slot. Sent all at once they come back all at
# once, wave after wave, and the client's time between two waves is lost: at 128 slots one part in
# ten. A server that refuses everybody is also found out before all have asked.
STAGGER = 0.0035


class _Waiting(NamedTuple):
    slot: asyncio.Future[Slot | None]
    tokens: float


class Slot(NamedTuple):
    """The right to have one request under way."""

    ticket: Attempt
    tokens: float


class RequestLimiter:
    """Lets attempts out one by one, as far as the server and the settings allow.

    cap: attempts under way at one time, at most; the limit adapts below it
    stagger: seconds between the first `cap` attempts
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
        self._latest = -math.inf
        self._load = AdaptiveLimit(cap)
        self._door = Backpressure()
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._waiting: deque[_Waiting] = deque()
        self._pauses: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._shut: Callable[[], Exception] | None = None

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
        """Attempts that wait for a slot, a rate limit or a retry."""
        return len(self._waiting) + len(self._pauses)

    async def enter(self, tokens: float = 0.0, *, again: bool = False) -> Slot:
        """A slot, to be given back with `leave`. Retries go first: they have waited longest.

        Raises what `shut` was given, as soon as it is.
        """
        self._raise_if_shut()
        waiting = _Waiting(asyncio.get_running_loop().create_future(), tokens)
        if again:
            self._waiting.appendleft(waiting)
        else:
            self._waiting.append(waiting)
        self._let_out()
        try:
            slot = await waiting.slot
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise
        if slot is None:
            self._raise_if_shut()
        assert slot is not None
        return slot

    def leave(
        self,
        slot: Slot,
        outcome: Outcome | None,
        *,
        retry_after: float | None = None,
        spent: float | None = None,
    ) -> None:
        """The attempt ended. spent: tokens that it took after all"""
        now = asyncio.get_running_loop().time()
        self._load.settle(slot.ticket, now, outcome)
        self._door.settle(slot.ticket, now, outcome, retry_after, self._load)
        if self._tokens and spent is not None:
            self._tokens.give_back(slot.tokens - spent)
        self._let_out()

    async def pause(self, seconds: float) -> None:
        """Wait without a slot. Raises what `shut` was given, as soon as it is."""
        self._raise_if_shut()
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, over)
        self._pauses.add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._pauses.discard(over)
        self._raise_if_shut()

    def shut(self, why: Callable[[], Exception]) -> None:
        """Nobody goes out any more: those that wait, and those that come, raise `why()`."""
        self._shut = self._shut or why
        self.rest()
        for waiting in self._waiting:
            _wake(waiting.slot)
        self._waiting.clear()
        for over in self._pauses:
            _wake(over)

    def rest(self) -> None:
        """Leave nothing behind in the event loop."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _raise_if_shut(self) -> None:
        if self._shut:
            raise self._shut()

    def _let_out(self) -> None:
        self.rest()
        loop = asyncio.get_running_loop()
        while self._waiting and self._load.in_flight < self._load.limit:
            if self._waiting[0].slot.done():
                self._waiting.popleft()  # cancelled, and not yet told
                continue
            now = loop.time()
            wait = self._wait(self._waiting[0].tokens, now)
            if wait > _SOON:
                self._timer = loop.call_later(wait, self._let_out)
                return
            waiting = self._waiting.popleft()
            for bucket, amount in ((self._requests, 1.0), (self._tokens, waiting.tokens)):
                if bucket:
                    bucket.take(amount, now)
            self._latest = now
            waiting.slot.set_result(Slot(self._load.start(now), waiting.tokens))

    def _wait(self, tokens: float, now: float) -> float:
        wait = self._door.opens - now
        if self._load.started < self._cap:
            wait = max(wait, self._latest + self._stagger - now)
        for bucket, amount in ((self._requests, 1.0), (self._tokens, tokens)):
            if bucket:
                wait = max(wait, bucket.wait(amount, now))
        return wait

    def _give_up(self, waiting: _Waiting) -> None:
        """Its task was cancelled, perhaps at the moment at which the slot came."""
        slot = None if waiting.slot.cancelled() else waiting.slot.result()
        if slot is not None:
            self.leave(slot, None, spent=0.0)
        elif waiting in self._waiting:
            self._waiting.remove(waiting)
            self._let_out()


def _wake(future: asyncio.Future[None] | asyncio.Future[Slot | None]) -> None:
    if not future.done():
        future.set_result(None)
