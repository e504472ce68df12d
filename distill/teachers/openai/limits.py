"""Limits on requests in flight and per minute. Pure: the time is passed in.

The concurrency limit adapts by additive increase and multiplicative decrease, but a refusal alone
says little: some servers refuse one request in five whatever the load, and a client that backs off
from those ends with one request at a time. So a decrease is an experiment. In epochs of about as
many requests as the limit, the overload rate (the share of attempts with a sign of overload) and
the goodput (answers per second) are measured. When the overload rate is too high, the next epoch
runs at the concurrency that the server sustained (Little's law: goodput times latency), half of the
limit at least. If the rate then falls by more than chance explains, or the goodput stays, the
server was the bottleneck, and the lower limit stands. If not, the failures have another cause: the
former limit is restored, and their rate is the baseline above which overload counts, for a number
of epochs that doubles each time.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import NamedTuple

# Overload rates: below the first the limit may rise, above the second a decrease is tried. A server
# that is just saturated stays between them.
LOW_OVERLOAD, HIGH_OVERLOAD = 0.02, 0.10
# Attempts of an epoch, at least: with fewer, chance would decide. The second without any failure.
MIN_ATTEMPTS, MIN_CALM_ATTEMPTS = 32, 16
# Answers of an epoch, at least, for its goodput to count, unless it lasted two latencies.
MIN_ANSWERS = 16
# Bounds of the factor of one decrease.
MIN_FACTOR, MAX_FACTOR = 0.5, 0.95
# Goodput is noisy: it decides for decreases by this factor or more, when this share of it is left.
GOODPUT_FACTOR, GOODPUT_KEPT = 0.6, 0.85
# Standard errors by which the overload rate must fall: one experiment in 160 is misjudged.
Z_SCORE = 2.5
# Shares of the last overloaded limit between which the limit rises in small steps.
APPROACHED, PASSED = 0.9, 1.25
# Epochs for which an overload rate that did not depend on the load is the baseline.
FIRST_HOLD, MAX_HOLD = 8, 32
# Refusals in a row, with no earlier request in flight, after which all requests wait.
CONSECUTIVE_REFUSALS = 16
# Seconds' worth of a rate limit that may be sent at once after a pause.
BURST_SECONDS = 1.0


class Outcome(Enum):
    """What an attempt says about the server's load."""

    ANSWERED = auto()
    """The server did its work, or said why it never will."""
    OVERLOADED = auto()
    """Refused because of load, or not answered in time."""
    UNREACHABLE = auto()
    """The connection failed: a sign of overload as long as other attempts are answered."""
    FAILED = auto()
    """An error that says nothing about load."""


class Attempt(NamedTuple):
    """One attempt in flight: its number, from 0, and the time at which it was sent."""

    number: int
    sent_at: float


class _Epoch:
    def __init__(self, started_at: float, in_flight: int = 0) -> None:
        self.started_at = started_at
        self.attempts = 0
        self.answered = 0
        self.overloaded = 0
        self.unreachable = 0
        self.total_latency = 0.0
        self.max_in_flight = in_flight


class _EpochSummary(NamedTuple):
    limit: int
    attempts: int
    overload: float
    """The share of attempts with a sign of overload."""
    goodput: float
    """Answers per second."""
    concurrency: float
    """Requests that the server worked on at one time, on average."""


class AdaptiveLimit:
    """The number of attempts that may be in flight: from 1 to `cap`, where it starts."""

    def __init__(self, cap: int) -> None:
        self.limit = cap
        self.in_flight = 0
        self.started = 0
        self._cap = cap
        self._epoch = _Epoch(0.0)
        # After a change of the limit, as many attempts as it allows end before an epoch begins.
        # Those numbered from `_first_attempt` on were sent under the new limit.
        self._warming_up, self._warmup_left = True, cap
        self._first_attempt, self._changed_at = 0, 0.0
        self._latency = 0.0
        # The epoch before a decrease that is being tried.
        self._before_decrease: _EpochSummary | None = None
        self._baseline = 0.0
        self._baseline_epochs, self._hold = 0, FIRST_HOLD
        self._overloaded_limit: int | None = None

    def start(self, now: float) -> Attempt:
        """Count an attempt that is sent now."""
        attempt = Attempt(self.started, now)
        if not self.started:
            self._changed_at = now
        self.started += 1
        self.in_flight += 1
        self._epoch.max_in_flight = max(self._epoch.max_in_flight, self.in_flight)
        return attempt

    def finish(self, attempt: Attempt, now: float, outcome: Outcome | None) -> None:
        """Count the end of an attempt; None: it was cancelled, which says nothing about load."""
        self.in_flight -= 1
        if outcome is None:
            return
        if self._warming_up:
            self._warm_up(attempt, now, outcome)
            return
        epoch = self._epoch
        epoch.attempts += 1
        match outcome:
            case Outcome.ANSWERED:
                epoch.answered += 1
                epoch.total_latency += now - attempt.sent_at
            case Outcome.OVERLOADED:
                epoch.overloaded += 1
            case Outcome.UNREACHABLE:
                epoch.unreachable += 1
        if self._is_over(epoch, now):
            self._adapt(epoch, now)

    def _warm_up(self, attempt: Attempt, now: float, outcome: Outcome) -> None:
        if outcome is Outcome.ANSWERED:
            took = now - attempt.sent_at
            self._latency = 0.9 * self._latency + 0.1 * took if self._latency else took
        if attempt.number >= self._first_attempt:
            self._warmup_left -= 1
        # Refusals come at once: as many as the limit may be over before the first answer.
        if self._warmup_left <= 0 and 1.001 * (now - self._changed_at) >= self._latency:
            self._begin_epoch(now)

    def _begin_epoch(self, now: float) -> None:
        self._warming_up = False
        self._epoch = _Epoch(now, self.in_flight)

    def _is_over(self, epoch: _Epoch, now: float) -> bool:
        if epoch.answered == epoch.attempts and self._before_decrease is None:
            return epoch.attempts >= max(self.limit, MIN_CALM_ATTEMPTS)
        # Answers come in bursts, a latency apart: a shorter epoch has seen one burst or none.
        latency = epoch.total_latency / epoch.answered if epoch.answered else self._latency
        lasted, enough = 1.001 * (now - epoch.started_at), max(self.limit, MIN_ATTEMPTS)
        if epoch.answered >= MIN_ANSWERS:
            return epoch.attempts >= enough and lasted >= latency
        return epoch.attempts >= 2 * enough and lasted >= 2 * latency

    def _adapt(self, epoch: _Epoch, now: float) -> None:
        """Decide at the end of an epoch: keep, undo or try a decrease, or increase the limit."""
        seen = self._summary(epoch, now)
        self._begin_epoch(now)
        if self._before_decrease is not None:
            before, self._before_decrease = self._before_decrease, None
            if not _decrease_helped(before, seen):
                self._undo_decrease(before, seen, now)
                return
            self._baseline, self._baseline_epochs, self._hold = 0.0, 0, FIRST_HOLD
            self._overloaded_limit = before.limit
        excess = seen.overload - self._baseline
        if excess > max(HIGH_OVERLOAD, self._noise(seen)) and self.limit > 1:
            self._before_decrease = seen
            lower = min(max(seen.concurrency, MIN_FACTOR * self.limit), MAX_FACTOR * self.limit)
            self._set_limit(max(1, int(lower)), now)
        elif excess < LOW_OVERLOAD and epoch.max_in_flight >= self.limit:
            self._set_limit(min(self._cap, self._increased()), now)
        self._baseline_epochs = max(0, self._baseline_epochs - 1)
        self._baseline = self._baseline if self._baseline_epochs else 0.0

    def _summary(self, epoch: _Epoch, now: float) -> _EpochSummary:
        lasted = max(now - epoch.started_at, 1e-9)
        if epoch.answered:
            self._latency = epoch.total_latency / epoch.answered
        # Where no attempt is answered at all, the server is down, which is no load.
        signs = epoch.overloaded + (epoch.unreachable if epoch.answered else 0)
        return _EpochSummary(
            limit=self.limit,
            attempts=epoch.attempts,
            overload=signs / epoch.attempts,
            goodput=epoch.answered / lasted,
            concurrency=epoch.total_latency / lasted,
        )

    def _undo_decrease(self, before: _EpochSummary, seen: _EpochSummary, now: float) -> None:
        self._baseline = (before.overload + seen.overload) / 2
        # A server that refuses more than half is tried again soon: that is seldom chance.
        self._baseline_epochs = self._hold if self._baseline < 0.5 else FIRST_HOLD
        self._hold = min(2 * self._hold, MAX_HOLD)
        self._overloaded_limit = None
        self._set_limit(before.limit, now)

    def _noise(self, seen: _EpochSummary) -> float:
        """How far a rate may be from the baseline by chance, where both are of one epoch."""
        variance = self._baseline * (1 - self._baseline) * 2 / seen.attempts
        return Z_SCORE * math.sqrt(variance)

    def _increased(self) -> int:
        """The next higher limit: in large steps, but in small ones near the overloaded limit."""
        large, small = (max(1, self._cap // part) for part in (16, 64))
        overloaded = self._overloaded_limit
        if overloaded is None or self.limit > PASSED * overloaded:
            return self.limit + large
        return max(self.limit + small, min(self.limit + large, int(APPROACHED * overloaded)))

    def _set_limit(self, limit: int, now: float) -> None:
        if limit == self.limit:
            return
        self.limit = limit
        self._first_attempt, self._changed_at = self.started, now
        self._warming_up, self._warmup_left = True, limit


def _decrease_helped(before: _EpochSummary, after: _EpochSummary) -> bool:
    """Whether the server was less overloaded, or as useful, under the lower limit."""
    factor = after.limit / before.limit
    if factor <= GOODPUT_FACTOR and after.goodput >= GOODPUT_KEPT * before.goodput:
        return True
    # A two-proportion z-test.
    total = before.attempts + after.attempts
    pooled = (before.overload * before.attempts + after.overload * after.attempts) / total
    error = math.sqrt(pooled * (1 - pooled) * (1 / before.attempts + 1 / after.attempts))
    return before.overload - after.overload > Z_SCORE * error


class Backpressure:
    """Holds all requests back while the server refuses every one with a Retry-After.

    One refusal among answers concerns that one request. CONSECUTIVE_REFUSALS in a row, while no
    earlier request is in flight, concern all.
    """

    def __init__(self) -> None:
        self.resume_at = 0.0
        """Nothing is to be sent before this time."""
        self._refusals = 0
        # Requests numbered below this one were sent before the first refusal of the row.
        self._first_attempt = 0
        self._earlier_in_flight = 0
        self._retry_at = 0.0

    def finish(
        self,
        attempt: Attempt,
        now: float,
        outcome: Outcome | None,
        retry_after: float | None,
        load: AdaptiveLimit,
    ) -> None:
        """Count the end of an attempt; `load` has counted it already."""
        if outcome is Outcome.ANSWERED:
            self._refusals, self.resume_at, self._retry_at = 0, 0.0, 0.0
            return
        if self._refusals and attempt.number < self._first_attempt:
            self._earlier_in_flight -= 1
        if retry_after is None:
            return
        if not self._refusals:
            self._first_attempt, self._earlier_in_flight = load.started, load.in_flight
        self._refusals += 1
        self._retry_at = max(self._retry_at, now + retry_after)
        if self._refusals >= CONSECUTIVE_REFUSALS and self._earlier_in_flight <= 0:
            self.resume_at = self._retry_at


class TokenBucket:
    """A rate limit per minute, with bursts of BURST_SECONDS."""

    def __init__(self, per_minute: float) -> None:
        self._rate = per_minute / 60
        self._capacity = max(1.0, BURST_SECONDS * self._rate)
        self._level = self._capacity
        self._filled_at: float | None = None

    def delay(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; more than a burst waits for a full bucket."""
        self._fill(now)
        return max(0.0, (min(amount, self._capacity) - self._level) / self._rate)

    def take(self, amount: float, now: float) -> None:
        """Take `amount`; the level falls below zero for more than there is."""
        self._fill(now)
        self._level -= amount

    def refund(self, amount: float) -> None:
        """Put back what was taken and not used; negative: more was used than taken."""
        self._level = min(self._capacity, self._level + amount)

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            added = max(0.0, now - self._filled_at) * self._rate
            self._level = min(self._capacity, self._level + added)
        self._filled_at = now


class TokenEstimator:
    """The tokens that a request will use, prompt and completion, learned from earlier ones."""

    # Of a text in most languages and vocabularies.
    CHARACTERS_PER_TOKEN = 4
    _WEIGHT = 0.05

    def __init__(self) -> None:
        self._tokens_per_character: float | None = None

    def estimate(self, characters: int, max_tokens: int) -> float:
        """For a prompt of `characters`, and a completion of at most `max_tokens`."""
        if self._tokens_per_character is None:
            return characters / self.CHARACTERS_PER_TOKEN + max_tokens
        return characters * self._tokens_per_character

    def update(self, characters: int, tokens: int) -> None:
        """Learn that a request with a prompt of `characters` used `tokens` in all."""
        ratio = tokens / max(1, characters)
        weight = 1.0 if self._tokens_per_character is None else self._WEIGHT
        self._tokens_per_character = (1 - weight) * (
            self._tokens_per_character or 0.0
        ) + weight * ratio


def estimate_tokens(text: str) -> int:
    """The tokens of a text by its length, where the server does not count them."""
    return math.ceil(len(text) / TokenEstimator.CHARACTERS_PER_TOKEN)
