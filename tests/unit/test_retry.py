"""The retry policy by itself: how long, how often, for what."""

from __future__ import annotations

import random
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.virtual_time import run_virtually

from distill.records import FailureReason
from distill.teachers.openai.retry import (
    MAX_BACKOFF,
    MAX_RETRY_AFTER,
    TransientError,
    is_retryable,
    parse_retry_after,
    retry_policy,
)


def failing(errors: list[Exception], attempts: int = 8, patience: float = 600.0) -> list[float]:
    """The waits of a request that meets these errors, the last of them for ever."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def attempt() -> None:
        raise errors[min(len(waits), len(errors) - 1)]

    async def main() -> None:
        with pytest.raises(type(errors[-1])):
            await retry_policy(attempts, patience, sleep=sleep)(attempt)

    run_virtually(main())
    return waits


def failure(wait: float | None = None) -> TransientError:
    return TransientError(FailureReason.SERVER, "broken", retry_after=wait)


def limit(wait: float | None = None) -> TransientError:
    return TransientError(FailureReason.SERVER, "slow down", rate_limited=True, retry_after=wait)


@pytest.mark.parametrize("seed", range(3))
def test_waits_grow_with_jitter_and_stay_bounded(seed: int) -> None:
    random.seed(seed)
    waits = failing([failure()], attempts=20)
    assert len(waits) == 19
    assert waits[0] <= 0.25
    assert all(MAX_BACKOFF / 2 <= wait <= MAX_BACKOFF for wait in waits[-10:])


@given(st.integers(1, 12), st.integers(0, 20))
def test_failures_are_bounded_whatever_limits_come_between(attempts: int, limits: int) -> None:
    waits = failing([*[limit()] * limits, failure()], attempts=attempts)
    assert len(waits) == limits + attempts - 1


@given(
    st.floats(0, 1000),
    st.lists(st.none() | st.floats(0, MAX_RETRY_AFTER), min_size=1, max_size=9),
)
def test_waits_for_limits_stay_within_the_patience(
    patience: float, asked: list[float | None]
) -> None:
    waits = failing([limit(wait) for wait in asked], patience=patience)
    assert sum(waits) <= patience
    for wait, wanted in zip(waits, asked, strict=False):
        assert wait >= (wanted or 0)


def test_a_server_that_asks_for_no_wait_is_not_asked_in_a_circle() -> None:
    assert len(failing([limit(0.0)], patience=600)) < 700


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e9, MAX_RETRY_AFTER + 1])
def test_senseless_waits_are_not_waited(seconds: float) -> None:
    assert not is_retryable(limit(seconds))
    assert failing([limit(seconds)]) == []


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("no")])
def test_other_errors_end_the_request_at_once(error: Exception) -> None:
    assert failing([error]) == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2), ("0.5", 0.5), ("-3", 0), ("nan", 0), ("Fri, 01 Jan 2016 00:00:00 GMT", 0)],
)
def test_retry_after_is_read_as_seconds_or_date(value: str, seconds: float) -> None:
    assert parse_retry_after({"retry-after": value}) == seconds


def test_a_date_is_a_wait_from_now() -> None:
    seconds = parse_retry_after({"retry-after": formatdate(time.time() + 3600)})
    assert seconds is not None
    assert 3000 <= seconds <= 3600


@pytest.mark.parametrize("value", [None, "soon", "", "Fri, 99 Jan 2016 00:00:00 GMT"])
def test_other_retry_afters_are_ignored(value: str | None) -> None:
    assert parse_retry_after({} if value is None else {"retry-after": value}) is None
