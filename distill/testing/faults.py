"""Behaviours with state: random faults with a seed, and a server with limited capacity."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import replace

from distill.testing import behaviours
from distill.testing.behaviours import good
from distill.testing.responses import Behaviour, Body, Response


def faults(retry_after: float | None = None, delay: float = 1.0) -> dict[str, Behaviour]:
    """The faults of RandomFaults, by name.

    retry_after: of 429 and 503, in seconds; delay: seconds of the slow ones
    """
    return {
        "rate_limited": behaviours.rate_limited(retry_after),
        "unavailable": behaviours.unavailable(retry_after),
        "broken": behaviours.broken(500),
        "proxy_error": behaviours.proxy_error,
        "slow": behaviours.slow(delay),
        "trickling": behaviours.trickling(delay),
        "stalled": behaviours.stalled,
        "unanswered": behaviours.unanswered,
        "reset": behaviours.reset,
        "reset_halfway": behaviours.reset_halfway,
        "hung_up": behaviours.hung_up,
        "cut_short": behaviours.cut_short,
        "not_json": behaviours.not_json,
        "malformed": behaviours.malformed,
        "truncated": behaviours.truncated,
        "raw_newline": behaviours.raw_newline,
        "fenced": behaviours.fenced,
        "wrong_shape": behaviours.wrong_shape,
        "cut_off": behaviours.cut_off,
        "refused": behaviours.refused,
        "filtered": behaviours.filtered,
        "without_text": behaviours.without_text,
        "without_choices": behaviours.without_choices,
        "without_usage": behaviours.without_usage,
        "same_id": behaviours.same_id,
    }


class RandomFaults:
    """A fault for a share of the requests: `RandomFaults(seed=1, rate_limited=0.2, reset=0.02)`.

    The fault depends on the seed, the content of the request and how often it was seen before, not
    on the order of requests: under any concurrency, the same requests meet the same faults.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        default: Behaviour = good,
        retry_after: float | None = None,
        delay: float = 1.0,
        **shares: float,
    ) -> None:
        known = faults(retry_after, delay)
        if unknown := shares.keys() - known.keys():
            raise TypeError(f"there are no faults {', '.join(sorted(unknown))}")
        if min(shares.values(), default=0) < 0 or sum(shares.values()) > 1:
            raise ValueError(f"the shares must be from 0 to 1 together: {shares}")
        self.counts: Counter[str] = Counter()
        """How often each fault was injected, and "default"."""
        self._seed = seed
        self._default = default
        self._shares = {name: (share, known[name]) for name, share in shares.items()}
        self._seen: Counter[str] = Counter()
        # Servers with a thread each may share it.
        self._lock = threading.Lock()

    def __call__(self, body: Body) -> Response:
        digest = body.digest
        with self._lock:
            self._seen[digest] += 1
            name, behaviour = self._draw(f"{self._seed} {digest} {self._seen[digest]}")
            self.counts[name] += 1
        return behaviour(body)

    def _draw(self, seed: str) -> tuple[str, Behaviour]:
        left = random.Random(seed).random()
        for name, (share, behaviour) in self._shares.items():
            left -= share
            if left < 0:
                return name, behaviour
        return "default", self._default


class Overloaded:
    """Answers 429, at once, to requests beyond a capacity or a rate; behaves as `default` below it.

    capacity: requests in flight; rate: requests per second, in bursts of one second at most.
    Rejected requests count for neither.
    """

    def __init__(
        self,
        *,
        capacity: int | None = None,
        rate: float | None = None,
        retry_after: float | None = None,
        default: Behaviour = good,
    ) -> None:
        self.default = default
        self.rejected = 0
        self._capacity = capacity
        self._bucket = rate and _TokenBucket(rate)
        self._refusal = behaviours.rate_limited(retry_after)

    def __call__(self, body: Body) -> Response:
        full = self._capacity is not None and body.in_flight > self._capacity
        if full or (self._bucket and not self._bucket.take(body.arrived)):
            self.rejected += 1
            refused: Response = self._refusal(body)
            return replace(refused, immediate=True)
        return self.default(body)


class _TokenBucket:
    """Tokens at a rate per second, for bursts of one second at most."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._size = max(1.0, rate)
        self._tokens = self._size
        self._filled: float | None = None

    def take(self, now: float) -> bool:
        if self._filled is not None:
            earned = (now - self._filled) * self._rate
            self._tokens = min(self._size, self._tokens + earned)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
