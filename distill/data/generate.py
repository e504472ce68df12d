"""scenarios -> candidates and failures: each scenario is asked for, and ends as exactly one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from distill.asking.ask import ReplyCache, ask, finished, reply_key
from distill.asking.writing import batch_request, read_reply, split_batch, write_request
from distill.config import TeacherConfig
from distill.errors import TeacherError
from distill.records import Candidate, Failure, FailureReason, Scenario
from distill.teachers.base import ChatRequest, DrainingError, ReplyError, Teacher, WriteTask
from distill.workflow.model import Workflow

# When this many scenarios failed and none ever succeeded, the teacher is at fault.
HOPELESS = 10
# Scenarios under way for each request that may be: those that wait for a retry hold no place.
OVERLAP = 3

Settle = Callable[[int, Candidate | Failure], None]
"""Told what became of a scenario, by its number in the plan, as soon as it is known."""


class Numbered(NamedTuple):
    """A scenario and its place in the plan."""

    number: int
    scenario: Scenario


async def generate(
    scenarios: Iterable[Scenario],
    workflow: Workflow,
    teacher: Teacher,
    replies: ReplyCache,
    settings: TeacherConfig,
    settle: Settle,
) -> None:
    """Settle each scenario once, as a candidate or a failure, in the order in which replies come.

    Scenarios are taken one by one and none is held once it is settled. Each reply is kept before
    it is used, and what is kept is not asked again. Raises TeacherError when the teacher is
    unusable, or when the first scenarios asked for all fail; requests under way are then let
    finish first, as they are when the caller is cancelled: they are paid for.
    """
    writer = _Writer(workflow, teacher, replies, settings, settle)
    pending = _chunks(scenarios, settings.batch)
    count = settings.concurrency * OVERLAP
    workers = [asyncio.create_task(writer.work(pending)) for _ in range(count)]
    await finished(workers, writer.stop)


class _Writer:
    """Asks for scenarios chunk by chunk, and knows whether the teacher has ever been of use."""

    def __init__(
        self,
        workflow: Workflow,
        teacher: Teacher,
        replies: ReplyCache,
        settings: TeacherConfig,
        settle: Settle,
    ) -> None:
        self.workflow = workflow
        self.teacher = teacher
        self.replies = replies
        self.settings = settings
        self.settle = settle
        self.stopped = False
        self.proven = False
        self.failed: list[ReplyError] = []

    def stop(self) -> None:
        self.stopped = True
        self.teacher.drain()

    async def work(self, pending: Iterator[list[Numbered]]) -> None:
        # One iterator for all workers: nobody waits for a wave, and no scenario waits as a task.
        for chunk in pending:
            try:
                await self._chunk(chunk)
            except DrainingError:
                return
            except BaseException:
                self.stop()
                raise
            # A teacher that never waits would otherwise keep an interrupt from being noticed.
            await asyncio.sleep(0)
            if self.stopped:
                return

    async def _chunk(self, chunk: Sequence[Numbered]) -> None:
        asked = [write_request(each.scenario, self.workflow, self.settings) for each in chunk]
        try:
            await self._ask_together(asked)
        except ReplyError as error:
            for each in chunk:
                self._fail(each, error)
            return
        for each, one in zip(chunk, asked, strict=True):
            await self._ask(each, one)

    async def _ask_together(self, asked: Sequence[ChatRequest]) -> None:
        """Get what is owed of several scenarios into the store by one request."""
        owed = {reply_key(self.teacher, one): one for one in asked} if len(asked) > 1 else {}
        owed = {key: one for key, one in owed.items() if self.replies.get(key) is None}
        if len(owed) < 2:
            return
        try:
            reply = await self.teacher.complete(batch_request(list(owed.values())))
        except ReplyError as error:
            if error.reason in (FailureReason.SERVER, FailureReason.TIMEOUT):
                raise
            return  # what the model refuses or cuts short together, it may write one by one
        self.replies.put_all(zip(owed, split_batch(reply, len(owed)), strict=True))

    async def _ask(self, each: Numbered, asked: ChatRequest) -> None:
        task = asked.task
        assert isinstance(task, WriteTask)
        try:
            candidate, fresh = await ask(
                asked,
                self.teacher,
                self.replies,
                lambda text: read_reply(text, task, self.teacher.name),
            )
        except ReplyError as error:
            self._fail(each, error)
        else:
            self.proven = self.proven or fresh
            self.settle(each.number, candidate)

    def _fail(self, each: Numbered, error: ReplyError) -> None:
        failure = Failure(scenario=each.scenario, reason=error.reason, detail=error.detail)
        self.settle(each.number, failure)
        if self.proven:
            return
        self.failed.append(error)
        if len(self.failed) == HOPELESS:
            raise _hopeless(self.failed, self.teacher)


def _chunks(scenarios: Iterable[Scenario], size: int) -> Iterator[list[Numbered]]:
    """Up to `size` neighbours of one rule at a time."""
    numbered = (Numbered(number, scenario) for number, scenario in enumerate(scenarios))
    for _, group in groupby(numbered, key=lambda each: each.scenario.rule):
        while chunk := list(islice(group, size)):
            yield chunk


def _hopeless(failed: Sequence[ReplyError], teacher: Teacher) -> TeacherError:
    reasons = Counter(str(failure.reason) for failure in failed).most_common()
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
    last = failed[-1]
    return TeacherError(
        f"the first {len(failed)} scenarios all failed ({counted}); the last: {last.detail}",
        place=teacher.name,
        hint=_WAYS_OUT[last.reason] + ", then run the same command again: it goes on",
    )


_WAYS_OUT = {
    FailureReason.MALFORMED: "choose a model that follows a JSON Schema, or a server that holds it",
    FailureReason.REFUSED: "choose a model that writes about this workflow, or reword the rules",
    FailureReason.EMPTY: "look into the server's log",
    FailureReason.TRUNCATED: "raise max_tokens in [teacher]; a model that thinks first needs more",
    FailureReason.TIMEOUT: "raise timeout or lower concurrency in [teacher]",
    FailureReason.SERVER: "check --base-url, and look into the server's log",
}
