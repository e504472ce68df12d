"""THE retry policy: what is tried again, when, and how often.

What may pass is a `TransientError`; whatever else an attempt raises ends the request. Failures of
the server count against `attempts`. Rate limits do not, as they say when to come back and cost
nothing: their waits together are bounded by `patience`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from distill.records import FailureReason
from distill.teachers.openai.limits import Outcome

# Seconds. The first waits are short, since most failures are alone, and a run's last minutes are
# spent on them; the longest are for a server that starts again.
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
# A server that wants longer than this is not going to answer this run.
LONGEST_RETRY_AFTER = 120.0


class TransientError(Exception):
    """An attempt failed in a way that the next may not.

    limited: refused for a rate limit, which is no failure of the server
    retry_after: seconds that the server asks to wait
    """

    def __init__(
        self,
        reason: FailureReason,
        detail: str,
        *,
        outcome: Outcome = Outcome.FAILED,
        limited: bool = False,
        retry_after: float | None = None,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.outcome = outcome
        self.limited = limited
        self.retry_after = retry_after
        super().__init__(detail)


def retries(
    attempts: int,
    patience: float,
    *,
    sleep: Callable[[float], Awaitable[None]],
    first_wait: float = FIRST_WAIT,
) -> AsyncRetrying:
    """The policy for one request: the last TransientError is raised when it gives up.

    attempts: failures of the server, at most; patience: seconds of waiting for rate limits
    """
    course = _Course(attempts, patience, first_wait)
    return AsyncRetrying(
        retry=retry_if_exception(is_retryable),
        wait=course.wait,
        stop=course.stop,
        sleep=sleep,
        reraise=True,
    )


def is_retryable(error: BaseException) -> bool:
    """Whether the same request may be answered within the run."""
    wait = error.retry_after if isinstance(error, TransientError) else None
    return isinstance(error, TransientError) and (wait is None or wait <= LONGEST_RETRY_AFTER)


class _Course:
    """How one request has fared so far."""

    def __init__(self, attempts: int, patience: float, first_wait: float) -> None:
        self._attempts, self._patience, self._first_wait = attempts, patience, first_wait
        self._failures = self._refusals = 0
        self._waited = 0.0

    def wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: what the server asks for, else exponential, jittered."""
        error = _error(state)
        if not error.limited:
            self._failures += 1
            return self._backoff(self._failures, error.retry_after)
        self._refusals += 1
        wait = self._backoff(self._refusals, error.retry_after)
        self._waited += wait
        return wait

    def stop(self, state: RetryCallState) -> bool:
        if _error(state).limited:
            return self._waited > self._patience
        return self._failures >= self._attempts

    def _backoff(self, times: int, asked: float | None) -> float:
        longest = min(LONGEST_WAIT, self._first_wait * 2.0 ** min(times - 1, 30))
        if asked is None:
            return random.uniform(longest / 2, longest)
        # A server that asks for no time at all, again and again, must not be asked in a circle.
        return max(random.uniform(asked, 1.05 * asked), longest / 8)


def _error(state: RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientError)
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from a number or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
