"""THE retry policy: which failed attempts are repeated, when, and how often.

An attempt that raises TransientError is repeated; any other error ends the request. Failures of the
server count against `attempts`. Rate limits do not, as the server says when to come back and
charges nothing: `patience` bounds the sum of their waits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from distill.records import FailureReason
from distill.teachers.base import Usage
from distill.teachers.openai.limits import Outcome

# Seconds. The first waits are short: most failures come alone, and a run's last minutes are spent
# on them. The longest are for a server that restarts.
FIRST_BACKOFF, MAX_BACKOFF = 0.25, 8.0
# A server that asks for more will not answer within this run.
MAX_RETRY_AFTER = 120.0


class TransientError(Exception):
    """An attempt failed, and the next one may succeed.

    rate_limited: refused for a rate limit, which is no failure of the server
    retry_after: seconds that the server asks to wait
    usage: what the server counts for the attempt all the same
    """

    def __init__(
        self,
        reason: FailureReason,
        detail: str,
        *,
        outcome: Outcome = Outcome.FAILED,
        rate_limited: bool = False,
        retry_after: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.outcome = outcome
        self.rate_limited = rate_limited
        self.retry_after = retry_after
        self.usage = usage
        super().__init__(detail)


def retry_policy(
    attempts: int,
    patience: float,
    *,
    sleep: Callable[[float], Awaitable[None]],
    first_backoff: float = FIRST_BACKOFF,
) -> AsyncRetrying:
    """The policy for one request; when it gives up, it raises the last TransientError.

    attempts: failures of the server, at most; patience: seconds of waiting for rate limits
    """
    history = _History(attempts, patience, first_backoff)
    return AsyncRetrying(
        retry=retry_if_exception(is_retryable),
        wait=history.wait,
        stop=history.stop,
        sleep=sleep,
        reraise=True,
    )


def is_retryable(error: BaseException) -> bool:
    """Whether the request may still be answered within the run."""
    if not isinstance(error, TransientError):
        return False
    return error.retry_after is None or error.retry_after <= MAX_RETRY_AFTER


class _History:
    """The failed attempts of one request, and the waits between them."""

    def __init__(self, attempts: int, patience: float, first_backoff: float) -> None:
        self._attempts, self._patience, self._first_backoff = attempts, patience, first_backoff
        self._failures = self._refusals = 0
        self._waited = 0.0

    def wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: what the server asks for, else exponential backoff."""
        error = _error(state)
        if not error.rate_limited:
            self._failures += 1
            return self._backoff(self._failures, error.retry_after)
        self._refusals += 1
        wait = self._backoff(self._refusals, error.retry_after)
        self._waited += wait
        return wait

    def stop(self, state: RetryCallState) -> bool:
        if _error(state).rate_limited:
            return self._waited > self._patience
        return self._failures >= self._attempts

    def _backoff(self, times: int, retry_after: float | None) -> float:
        """With jitter, so that requests that failed together do not come back together."""
        longest = min(MAX_BACKOFF, self._first_backoff * 2.0 ** min(times - 1, 30))
        if retry_after is None:
            return random.uniform(longest / 2, longest)
        # The minimum keeps a server that asks for no wait at all from being asked in a loop.
        return max(random.uniform(retry_after, 1.05 * retry_after), longest / 8)


def _error(state: RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientError)
    return error


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from a number or an HTTP date; None without one."""
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
