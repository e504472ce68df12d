"""A pool of workers that ask a teacher about the items of one iterator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from distill.errors import TeacherError
from distill.records import FailureReason
from distill.teachers.base import DrainingError, ReplyError, Teacher

T = TypeVar("T")

# When this many requests failed and none ever succeeded, the teacher is at fault.
MAX_INITIAL_FAILURES = 10


class Pool:
    """Workers over one iterator, stopped by the first error and by a teacher of no use.

    teacher: drained when the pool stops
    unusable: makes the error of a teacher whose first MAX_INITIAL_FAILURES requests all failed
    """

    def __init__(self, teacher: Teacher, unusable: Callable[[], TeacherError]) -> None:
        self.failures: Counter[FailureReason] = Counter()
        self.last_failure: ReplyError | None = None
        self._teacher = teacher
        self._unusable = unusable
        self._blamed = 0
        self._succeeded = False
        self._was_of_use = False
        self._stopped = False

    def succeeded(self) -> None:
        """Record that the teacher is of use: failures from now on stop nothing."""
        self._succeeded = True

    def was_of_use(self) -> None:
        """Record a usable reply of an earlier run: from now on only a server that fails stops it.

        Of a rule that the teacher cannot write, nothing but that rule may be left to ask.
        """
        self._was_of_use = True

    def failed(self, error: ReplyError) -> None:
        """Record a failure. Raises `unusable()` for the last of the first failures."""
        self.failures[error.reason] += 1
        self.last_failure = error
        if self._succeeded or (self._was_of_use and not error.is_server_failure):
            return
        self._blamed += 1
        if self._blamed == MAX_INITIAL_FAILURES:
            raise self._unusable()

    async def run(
        self, items: Iterable[T], handle: Callable[[T], Awaitable[None]], *, workers: int
    ) -> None:
        """Handle each item once, `workers` of them at one time.

        When `handle` fails, or the caller is cancelled, nothing more is sent; requests in flight,
        which are paid for, are waited for, and the first error is raised. DrainingError ends a
        worker quietly: the item was not asked for.
        """
        # One iterator for all workers: no item waits for a batch of others, or as a task.
        shared = iter(items)
        tasks = [asyncio.create_task(self._work(shared, handle)) for _ in range(workers)]
        pending = set(tasks)
        try:
            _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            if pending:
                self._stop()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            if error is not None:
                raise error

    async def _work(self, items: Iterable[T], handle: Callable[[T], Awaitable[None]]) -> None:
        try:
            for item in items:
                await handle(item)
                # A teacher that never waits would otherwise keep an interrupt from being noticed.
                await asyncio.sleep(0)
                if self._stopped:
                    return
        except DrainingError:
            return
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        self._stopped = True
        self._teacher.drain()
