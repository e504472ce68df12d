"""How many requests a server is sent at one time, and how many a minute. Pure: time comes as data.

The limit on requests under way rises by addition and falls by multiplication, but a refusal alone
says little: some servers refuse one request in five whatever the load, and a client that gives way
to those ends with one request at a time. So the limit is lowered as an experiment. In epochs of
about one wave of requests, the share of overload signals and the goodput (answers per second) are
measured. Too large a share: the next epoch runs at what the server was seen to serve at one time
(Little's law: goodput times latency), half of the limit at least. If then the share falls by more
than chance explains, or the goodput stays, the server was the bottleneck, and the lower limit
stands. If not, the failures have another reason: the former limit comes back, their share is what
is normal here, and only more than that counts, for a number of epochs that doubles each time.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import NamedTuple

# Shares of overload signals: below the first the limit may rise, above the second it is tried
# lower. Between them is where a server that is just full is held.
CALM, CROWDED = 0.02, 0.10
# Attempts that an epoch has at least: fewer and chance would decide.
EPOCH, CALM_EPOCH = 32, 16
# Answers without which an epoch's goodput means nothing, unless it has lasted two latencies.
ANSWERS = 16
# How far one experiment goes, at most and at least.
DEEP, SHALLOW = 0.5, 0.95
# Goodput is noisy: only an experiment at least so deep is judged by it, and so much must stay.
TELLING, STAYED = 0.6, 0.85
# Standard errors by which a share must have fallen: one experiment in 160 is misjudged.
UNLIKELY = 2.5
# Parts of the limit at which trouble was met last, between which it is approached in small steps.
NEAR, PAST = 0.9, 1.25
# Epochs for which the share that was found to be independent of the load is taken as normal.
FIRST_HOLD, LONGEST_HOLD = 8, 32
# Refusals in a row, with none under way that may still be answered, that speak for all.
WAVE = 16
# Seconds' worth that a rate limit lets through at once after a rest.
BURST = 1.0


class Outcome(Enum):
    """What an attempt says about the server's load."""

    ANSWERED = auto()
    """The server did its work, or said why it never will."""
    OVERLOADED = auto()
    """Refused for the load, or no answer in time."""
    UNREACHABLE = auto()
    """The connection failed: a sign of overload as long as others are answered."""
    FAILED = auto()
    """An error that says nothing about load."""


class Attempt(NamedTuple):
    """One attempt that is under way."""

    number: int
    at: float


class _Epoch:
    def __init__(self, began: float) -> None:
        self.began = began
        self.attempts = 0
        self.answered = 0
        self.overloaded = 0
        self.unreachable = 0
        self.busy = 0.0
        self.peak = 0


class _Seen(NamedTuple):
    """What an epoch has shown."""

    limit: int
    attempts: int
    share: float
    goodput: float
    served: float
    """Requests that the server served at one time."""


class AdaptiveLimit:
    """The number of attempts that may be under way: from 1 to `cap`, where it starts."""

    def __init__(self, cap: int) -> None:
        self.limit = cap
        self.in_flight = 0
        self.started = 0
        self._cap = cap
        self._epoch = _Epoch(0.0)
        # A wave of the attempts numbered from here on, those started under the present limit,
        # passes before an epoch is measured.
        self._first, self._since = 0, 0.0
        self._to_settle, self._settling = cap, True
        self._latency = 0.0
        self._trial: _Seen | None = None
        self._normal = 0.0
        self._held, self._hold = 0, FIRST_HOLD
        # Where the server was too much in trouble last.
        self._trouble: int | None = None

    def start(self, now: float) -> Attempt:
        """An attempt begins."""
        ticket = Attempt(self.started, now)
        if not self.started:
            self._since = now
        self.started += 1
        self.in_flight += 1
        self._epoch.peak = max(self._epoch.peak, self.in_flight)
        return ticket

    def settle(self, ticket: Attempt, now: float, outcome: Outcome | None) -> None:
        """It ended; None: nobody waited for its end, which says nothing."""
        self.in_flight -= 1
        if outcome is None:
            return
        if self._settling:
            self._settle_in(ticket, now, outcome)
            return
        epoch = self._epoch
        epoch.attempts += 1
        match outcome:
            case Outcome.ANSWERED:
                epoch.answered += 1
                epoch.busy += now - ticket.at
            case Outcome.OVERLOADED:
                epoch.overloaded += 1
            case Outcome.UNREACHABLE:
                epoch.unreachable += 1
        if self._is_over(epoch, now):
            self._judge(epoch, now)

    def _settle_in(self, ticket: Attempt, now: float, outcome: Outcome) -> None:
        if outcome is Outcome.ANSWERED:
            took = now - ticket.at
            self._latency = 0.9 * self._latency + 0.1 * took if self._latency else took
        if ticket.number >= self._first:
            self._to_settle -= 1
        # Refusals come at once: a wave of them is over before the first answer.
        if self._to_settle <= 0 and 1.001 * (now - self._since) >= self._latency:
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._settling = False
        self._epoch = _Epoch(now)
        self._epoch.peak = self.in_flight

    def _is_over(self, epoch: _Epoch, now: float) -> bool:
        if epoch.answered == epoch.attempts and self._trial is None:
            return epoch.attempts >= max(self.limit, CALM_EPOCH)
        # Answers come in bursts, a latency apart: what is shorter has seen one or none of them.
        latency = epoch.busy / epoch.answered if epoch.answered else self._latency
        lasted, enough = 1.001 * (now - epoch.began), max(self.limit, EPOCH)
        if epoch.answered >= ANSWERS:
            return epoch.attempts >= enough and lasted >= latency
        return epoch.attempts >= 2 * enough and lasted >= 2 * latency

    def _judge(self, epoch: _Epoch, now: float) -> None:
        seen = self._summary(epoch, now)
        self._begin(now)
        if self._trial is not None:
            before, self._trial = self._trial, None
            if not _helped(before, seen):
                self._take_as_normal(before, seen, now)
                return
            self._normal, self._held, self._hold = 0.0, 0, FIRST_HOLD
            self._trouble = before.limit
        excess = seen.share - self._normal
        if excess > max(CROWDED, self._chance(seen)) and self.limit > 1:
            self._trial = seen
            lower = min(max(seen.served, DEEP * self.limit), SHALLOW * self.limit)
            self._set(max(1, int(lower)), now)
        elif excess < CALM and epoch.peak >= self.limit:
            self._set(min(self._cap, self._raised()), now)
        self._held = max(0, self._held - 1)
        self._normal = self._normal if self._held else 0.0

    def _summary(self, epoch: _Epoch, now: float) -> _Seen:
        lasted = max(now - epoch.began, 1e-9)
        if epoch.answered:
            self._latency = epoch.busy / epoch.answered
        # Where nobody is answered at all, the server is not there: that is no load.
        signals = epoch.overloaded + (epoch.unreachable if epoch.answered else 0)
        return _Seen(
            limit=self.limit,
            attempts=epoch.attempts,
            share=signals / epoch.attempts,
            goodput=epoch.answered / lasted,
            served=epoch.busy / lasted,
        )

    def _take_as_normal(self, before: _Seen, seen: _Seen, now: float) -> None:
        self._normal = (before.share + seen.share) / 2
        # Who refuses more than half is asked again soon: that is seldom chance.
        self._held = self._hold if self._normal < 0.5 else FIRST_HOLD
        self._hold = min(2 * self._hold, LONGEST_HOLD)
        self._trouble = None
        self._set(before.limit, now)

    def _chance(self, seen: _Seen) -> float:
        """How far a share may differ by chance from what is normal, itself known from one epoch."""
        variance = self._normal * (1 - self._normal) * 2 / seen.attempts
        return UNLIKELY * math.sqrt(variance)

    def _raised(self) -> int:
        """The next higher limit: in large steps, but in small ones where trouble was met last."""
        large, small = (max(1, self._cap // part) for part in (16, 64))
        trouble = self._trouble
        if trouble is None or self.limit > PAST * trouble:
            return self.limit + large
        return max(self.limit + small, min(self.limit + large, int(NEAR * trouble)))

    def _set(self, limit: int, now: float) -> None:
        if limit == self.limit:
            return
        self.limit = limit
        self._first, self._since = self.started, now
        self._to_settle, self._settling = limit, True


def _helped(before: _Seen, seen: _Seen) -> bool:
    """Whether the server was less in trouble, or as useful, under the lower limit."""
    depth = seen.limit / before.limit
    if depth <= TELLING and seen.goodput >= STAYED * before.goodput:
        return True
    total = before.attempts + seen.attempts
    share = (before.share * before.attempts + seen.share * seen.attempts) / total
    error = math.sqrt(share * (1 - share) * (1 / before.attempts + 1 / seen.attempts))
    return before.share - seen.share > UNLIKELY * error


class Backpressure:
    """Until when a server that turns everybody away wants to be left alone.

    One refusal in many is for that one request. Many in a row, while none that came before them is
    still under way, are for all.
    """

    def __init__(self) -> None:
        self.opens = 0.0
        """Nothing is to be sent before this time."""
        self._row = 0
        self._first = 0
        self._older = 0
        self._until = 0.0

    def settle(
        self,
        ticket: Attempt,
        now: float,
        outcome: Outcome | None,
        retry_after: float | None,
        load: AdaptiveLimit,
    ) -> None:
        """An attempt ended; `load` counts those that are still under way."""
        if outcome is Outcome.ANSWERED:
            self._row, self.opens, self._until = 0, 0.0, 0.0
            return
        if self._row and ticket.number < self._first:
            self._older -= 1
        if retry_after is None:
            return
        if not self._row:
            self._first, self._older = load.started, load.in_flight
        self._row += 1
        self._until = max(self._until, now + retry_after)
        if self._row >= WAVE and self._older <= 0:
            self.opens = self._until


class Bucket:
    """A rate limit: so many a minute, spread over it."""

    def __init__(self, per_minute: float) -> None:
        self._rate = per_minute / 60
        self._size = max(1.0, BURST * self._rate)
        self._level = self._size
        self._at: float | None = None

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so many may pass. More than a burst waits for a full bucket."""
        self._fill(now)
        return max(0.0, (min(amount, self._size) - self._level) / self._rate)

    def take(self, amount: float, now: float) -> None:
        """They pass. What is more than there is is owed."""
        self._fill(now)
        self._level -= amount

    def give_back(self, amount: float) -> None:
        """Fewer were needed than were taken; negative: more."""
        self._level = min(self._size, self._level + amount)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self._size, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now


class TokenEstimator:
    """How many tokens a request will use, prompt and reply, learned from those that ended."""

    # Of a text in most languages and vocabularies.
    CHARACTERS = 4
    _WEIGHT = 0.05

    def __init__(self) -> None:
        self._ratio: float | None = None

    def of(self, characters: int, max_tokens: int) -> float:
        """For a prompt of so many characters, and a reply of at most so many tokens."""
        if self._ratio is None:
            return characters / self.CHARACTERS + max_tokens
        return characters * self._ratio

    def learn(self, characters: int, tokens: int) -> None:
        """A request with so many characters took so many tokens in all."""
        ratio = tokens / max(1, characters)
        weight = 1.0 if self._ratio is None else self._WEIGHT
        self._ratio = (1 - weight) * (self._ratio or 0.0) + weight * ratio


def estimate_tokens(text: str) -> int:
    """An estimate, where the server does not count them."""
    return math.ceil(len(text) / TokenEstimator.CHARACTERS)
