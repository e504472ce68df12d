"""How many requests are sent at one time: against servers in virtual time, always the same."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.virtual_time import run_virtually

from distill.records import FailureReason
from distill.teachers.openai.limiter import RequestLimiter, Slot
from distill.teachers.openai.limits import (
    BURST_SECONDS,
    AdaptiveLimit,
    Attempt,
    Outcome,
    TokenBucket,
    TokenEstimator,
    estimate_tokens,
)
from distill.teachers.openai.retry import TransientError, retry_policy

LATENCY, REFUSAL = 0.5, 0.02


def now() -> float:
    return asyncio.get_running_loop().time()


class Server:
    """A model of one: what it cannot take it refuses at once.

    capacity: requests at one time; rate: requests per second; failing: share refused at random,
    `slowly` after the time of an answer; until: refuses everybody before this time
    """

    def __init__(
        self,
        *,
        capacity: float = 1e9,
        rate: float = 1e9,
        failing: float = 0.0,
        slowly: bool = False,
        until: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.capacity, self.failing, self.slowly, self.until = capacity, failing, slowly, until
        self.jitter = jitter
        self.answered: list[float] = []
        self.arrived: list[float] = []
        self._rng = random.Random(seed)
        self._rate, self._tokens, self._filled = rate, rate, 0.0
        self._busy = 0

    async def answers(self) -> bool:
        self.arrived.append(now())
        latency = LATENCY * self._rng.uniform(1 - self.jitter, 1 + self.jitter)
        if now() < self.until or self._busy >= self.capacity or not self._takes():
            await asyncio.sleep(REFUSAL)
            return False
        if self._rng.random() < self.failing:
            await asyncio.sleep(latency if self.slowly else REFUSAL)
            return False
        self._busy += 1
        await asyncio.sleep(latency)
        self._busy -= 1
        self.answered.append(now())
        return True

    def _takes(self) -> bool:
        self._tokens = min(self._rate, self._tokens + (now() - self._filled) * self._rate)
        self._filled = now()
        takes = self._tokens >= 1
        self._tokens -= takes
        return takes


class Trace(NamedTuple):
    """How a run went."""

    limits: list[tuple[float, int]]
    server: Server

    def mean_limit(self, begin: float, end: float) -> float:
        times = [time for time, _ in self.limits]
        steps = 1000
        moments = (begin + (end - begin) * (step + 0.5) / steps for step in range(steps))
        return sum(self.limits[bisect_right(times, at) - 1][1] for at in moments) / steps

    def goodput(self, begin: float, end: float) -> float:
        return sum(begin < at <= end for at in self.server.answered) / (end - begin)


def driven(
    server: Server,
    cap: int,
    seconds: float,
    retry_after: float | None = None,
    change: Callable[[Server], None] = lambda server: None,
) -> Trace:
    """A run of four requests to a slot; half way through the server changes."""
    random.seed(7)
    limits = [(0.0, cap)]

    async def main() -> None:
        limiter = RequestLimiter(cap, stagger=0)

        async def attempt(slot: Slot) -> None:
            limits.append((now(), limiter.limit))
            if await server.answers():
                limiter.release(slot, Outcome.ANSWERED)
                return
            limiter.release(slot, Outcome.OVERLOADED, retry_after=retry_after)
            raise TransientError(
                FailureReason.SERVER, "", rate_limited=True, retry_after=retry_after
            )

        async def work() -> None:
            while now() < seconds:
                try:
                    async for tried in retry_policy(8, 600, sleep=limiter.sleep):
                        with tried:
                            retry = tried.retry_state.attempt_number > 1
                            await attempt(await limiter.acquire(retry=retry))
                except TransientError:
                    continue

        async def turn() -> None:
            await asyncio.sleep(seconds / 2)
            change(server)

        await asyncio.gather(turn(), *(work() for _ in range(4 * cap)))

    run_virtually(main())
    return Trace(limits, server)


@pytest.mark.parametrize(("retry_after", "jitter"), [(None, 0.0), (1.0, 0.3)])
@pytest.mark.parametrize(("capacity", "cap"), [(8, 16), (8, 64), (24, 48)])
def test_the_limit_finds_a_servers_capacity(
    capacity: int, cap: int, retry_after: float | None, jitter: float
) -> None:
    trace = driven(Server(capacity=capacity, jitter=jitter), cap, 30, retry_after)
    assert 0.5 * capacity <= trace.mean_limit(15, 30) <= 1.5 * capacity
    assert trace.goodput(15, 30) >= 0.85 * capacity / LATENCY


@pytest.mark.parametrize(("retry_after", "jitter"), [(None, 0.0), (1.0, 0.3)])
@pytest.mark.parametrize(("rate", "cap"), [(16, 32), (40, 32)])
def test_the_limit_finds_a_servers_rate(
    rate: int, cap: int, retry_after: float | None, jitter: float
) -> None:
    trace = driven(Server(rate=rate, jitter=jitter), cap, 30, retry_after)
    assert 0.5 * rate * LATENCY <= trace.mean_limit(15, 30) <= 1.5 * rate * LATENCY
    assert trace.goodput(15, 30) >= 0.85 * rate


@pytest.mark.parametrize("slowly", [False, True])
@pytest.mark.parametrize("failing", [0.2, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_failures_at_random_do_not_lower_the_limit(failing: float, slowly: bool, seed: int) -> None:
    cap = 48
    trace = driven(Server(failing=failing, slowly=slowly, jitter=0.3, seed=seed), cap, 40)
    possible = cap / LATENCY * ((1 - failing) if slowly else 1)
    assert trace.mean_limit(0, 40) >= 0.85 * cap
    assert trace.goodput(0, 40) >= 0.85 * possible


def test_a_server_without_trouble_is_used_to_the_full() -> None:
    trace = driven(Server(), 32, 10)
    assert {limit for _, limit in trace.limits} == {32}
    assert trace.goodput(0, 10) >= 0.99 * 32 / LATENCY


def changed(capacity: float) -> Callable[[Server], None]:
    return lambda server: setattr(server, "capacity", capacity)


def test_a_server_that_grows_is_followed() -> None:
    trace = driven(Server(capacity=8, jitter=0.3), 32, 60, change=changed(1e9))
    assert trace.mean_limit(20, 30) <= 12
    assert trace.mean_limit(50, 60) >= 0.85 * 32


def test_a_server_that_shrinks_is_followed() -> None:
    trace = driven(Server(jitter=0.3), 32, 60, change=changed(8))
    assert trace.mean_limit(0, 29) == 32
    assert 4 <= trace.mean_limit(50, 60) <= 12


def test_a_server_that_fails_at_random_may_still_become_overloaded() -> None:
    trace = driven(Server(failing=0.2, jitter=0.3), 32, 100, change=changed(8))
    assert trace.mean_limit(20, 49) >= 0.85 * 32
    assert trace.mean_limit(80, 100) <= 16


# --- events, one by one ---


def settled(limit: AdaptiveLimit, outcomes: list[Outcome], at: float = 0.0) -> float:
    """Waves of attempts that end so, a latency each; returns the time."""
    left = list(outcomes)
    while left:
        wave = [limit.start(at) for _ in range(min(limit.limit, len(left)))]
        at += LATENCY
        for attempt in wave:
            limit.finish(attempt, at, left.pop(0))
    return at


@given(st.integers(1, 200), st.lists(st.sampled_from([*Outcome, None]), max_size=600))
def test_the_limit_stays_between_one_and_the_cap(cap: int, outcomes: list[Outcome | None]) -> None:
    limit = AdaptiveLimit(cap)
    at = 0.0
    for outcome in outcomes:
        attempt = limit.start(at)
        at += 0.1
        limit.finish(attempt, at, outcome)
        assert 1 <= limit.limit <= cap
        assert limit.in_flight == 0
    assert limit.started == len(outcomes)


def test_a_server_that_answers_nobody_in_time_is_asked_by_fewer() -> None:
    limit = AdaptiveLimit(64)
    settled(limit, [Outcome.OVERLOADED] * 2000)
    assert limit.limit < 8


@pytest.mark.parametrize("outcome", [Outcome.UNREACHABLE, Outcome.FAILED])
def test_a_server_that_is_not_there_says_nothing_about_load(outcome: Outcome) -> None:
    limit = AdaptiveLimit(64)
    settled(limit, [outcome] * 2000)
    assert limit.limit == 64


def test_attempts_that_were_given_up_say_nothing() -> None:
    limit = AdaptiveLimit(64)
    for _ in range(1000):
        limit.finish(limit.start(0.0), 1.0, None)
    assert limit.limit == 64


# --- the limiter ---


def test_refusals_in_a_row_hold_all_requests_back() -> None:
    server = Server(until=30.0)
    driven(server, 32, 40, retry_after=30.0)
    between = [at for at in server.arrived if 0.1 < at < 30.0]
    assert between == []
    assert len(server.arrived) > 32, "then they are sent"


@pytest.mark.parametrize("refused", [1, 5])
def test_a_few_refusals_do_not_stop_the_others(refused: int) -> None:
    async def main() -> float:
        limiter = RequestLimiter(8, stagger=0)
        for number in range(100):
            slot = await limiter.acquire()
            wait = 60.0 if number % 20 < refused else None
            limiter.release(
                slot, Outcome.OVERLOADED if wait else Outcome.ANSWERED, retry_after=wait
            )
        return now()

    assert run_virtually(main()) == 0.0


def test_nothing_is_held_back_while_an_earlier_request_may_be_answered() -> None:
    async def main() -> float:
        limiter = RequestLimiter(8, stagger=0)
        earlier = await limiter.acquire()
        for _ in range(100):
            limiter.release(await limiter.acquire(), Outcome.OVERLOADED, retry_after=60.0)
        limiter.release(earlier, Outcome.ANSWERED)
        await limiter.acquire()
        return now()

    assert run_virtually(main()) == 0.0


def test_retries_go_first() -> None:
    async def main() -> list[str]:
        limiter, order = RequestLimiter(1, stagger=0), []

        async def one(name: str, retry: bool) -> None:
            slot = await limiter.acquire(retry=retry)
            order.append(name)
            await asyncio.sleep(1)
            limiter.release(slot, Outcome.ANSWERED)

        await asyncio.gather(one("first", False), one("second", False), one("retry", True))
        return order

    assert run_virtually(main()) == ["first", "retry", "second"]


def test_a_closed_limiter_wakes_every_waiter() -> None:
    async def main() -> list[type[object]]:
        limiter = RequestLimiter(1, requests_per_minute=60, stagger=0)
        slot = await limiter.acquire()
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        tasks.append(asyncio.create_task(limiter.sleep(3600)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert limiter.waiting == 4
        limiter.close(KeyError)
        ends = await asyncio.gather(
            *tasks, limiter.acquire(), limiter.sleep(1), return_exceptions=True
        )
        limiter.release(slot, Outcome.ANSWERED)
        assert (limiter.waiting, limiter.in_flight, now()) == (0, 0, 0.0)
        return [type(end) for end in ends]

    assert run_virtually(main()) == [KeyError] * 6


def test_a_slot_that_comes_as_its_task_is_cancelled_is_passed_on() -> None:
    async def main() -> None:
        limiter = RequestLimiter(1, stagger=0)
        slot = await limiter.acquire()
        task = asyncio.create_task(limiter.acquire())
        other = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        limiter.release(slot, Outcome.ANSWERED)
        task.cancel()
        limiter.release(await other, Outcome.ANSWERED)
        assert task.cancelled()
        assert (limiter.waiting, limiter.in_flight) == (0, 0)

    run_virtually(main())


# --- rate limits ---


def sent(
    count: int, tokens: float = 0.0, used: float | None = None, **limits: float
) -> list[float]:
    """When each of `count` requests goes out, where slots are no matter."""

    async def main() -> list[float]:
        limiter, times = RequestLimiter(1000, stagger=0, **limits), []

        async def one() -> None:
            slot = await limiter.acquire(tokens)
            times.append(now())
            await asyncio.sleep(LATENCY)
            limiter.release(slot, Outcome.ANSWERED, used=used)

        await asyncio.gather(*(one() for _ in range(count)))
        return times

    return run_virtually(main())


def most_in_a_minute(times: list[float]) -> int:
    return max(bisect_right(times, at + 60) - index for index, at in enumerate(times))


@pytest.mark.parametrize("per_minute", [6.0, 60.0, 600.0, 90.5])
def test_requests_per_minute_are_held_and_used(per_minute: float) -> None:
    count = int(3 * per_minute)
    times = sent(count, requests_per_minute=per_minute)
    burst = max(1.0, BURST_SECONDS * per_minute / 60)
    assert most_in_a_minute(times) <= per_minute + burst + 1
    assert times[-1] <= count / (per_minute / 60) + 1e-3
    assert sum(at == 0 for at in times) <= burst


@pytest.mark.parametrize("used", [None, 100.0, 50.0, 200.0])
def test_tokens_per_minute_are_held_and_corrected(used: float | None) -> None:
    times = sent(300, tokens=100.0, used=used, tokens_per_minute=6000.0)
    each = used or 100.0
    # A request is corrected when it ends: those sent within its latency go by the guess.
    assert most_in_a_minute(times) * each <= 6000 + 3 * each * max(1.0, each / 100)
    assert times[-1] == pytest.approx(300 * each / 100, rel=0.05, abs=2)


def test_a_request_larger_than_a_burst_passes_and_is_owed() -> None:
    times = sent(3, tokens=6000.0, tokens_per_minute=6000.0)
    assert times == pytest.approx([0, 60, 120], abs=1.1)


@given(
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e4)), max_size=50),
)
def test_a_bucket_never_gives_more_than_its_rate(
    per_minute: float, steps: list[tuple[float, float]]
) -> None:
    bucket, at, taken = TokenBucket(per_minute), 0.0, 0.0
    burst = max(1.0, BURST_SECONDS * per_minute / 60)
    for rest, amount in steps:
        at += rest
        at += bucket.delay(amount, at)
        bucket.take(amount, at)
        # What is larger than a burst is let through at a full bucket, and owed.
        assert taken <= burst + at * per_minute / 60 + 1e-3 * (1 + taken)
        taken += amount


@given(st.integers(1, 10_000), st.integers(1, 5_000))
def test_the_estimate_is_what_requests_were_seen_to_use(characters: int, tokens: int) -> None:
    estimator = TokenEstimator()
    assert estimator.estimate(400, 50) == 150
    for _ in range(200):
        estimator.update(characters, tokens)
    assert estimator.estimate(characters, 50) == pytest.approx(tokens)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("four", 1), ("fives", 2)])
def test_tokens_of_a_text(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_attempts_are_numbered() -> None:
    limit = AdaptiveLimit(4)
    assert [limit.start(1.0), limit.start(2.0)] == [Attempt(0, 1.0), Attempt(1, 2.0)]


def test_the_first_requests_go_out_one_by_one_and_the_others_at_once() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        limiter, times = RequestLimiter(4, stagger=0.5), list[float]()

        async def attempt() -> None:
            slot = await limiter.acquire()
            times.append(loop.time())
            await asyncio.sleep(10)
            limiter.release(slot, Outcome.ANSWERED)

        await asyncio.gather(*(attempt() for _ in range(8)))
        return [time - times[0] for time in times]

    assert run_virtually(main()) == pytest.approx([0, 0.5, 1, 1.5, 10, 10.5, 11, 11.5])


def test_a_slot_that_comes_free_passes_those_that_were_cancelled() -> None:
    async def main() -> tuple[int, int]:
        limiter = RequestLimiter(1, stagger=0)
        held = await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        limiter.release(held, Outcome.ANSWERED)
        limiter.release(await waiting[2], Outcome.ANSWERED)
        await asyncio.gather(*waiting, return_exceptions=True)
        return limiter.in_flight, limiter.waiting

    assert run_virtually(main()) == (0, 0)
