"""scenarios -> candidates and failures: each scenario is asked for, and ends as exactly one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from distill.asking.ask import ReplyCache, ask, reply_key
from distill.asking.pool import Pool
from distill.asking.writing import batch_request, read_reply, split_batch, write_request
from distill.config import TeacherConfig
from distill.errors import TeacherError
from distill.records import Candidate, Failure, FailureReason, Scenario
from distill.teachers.base import ChatRequest, ReplyError, Teacher, WriteTask
from distill.workflow.model import Workflow

# Workers per request that may be in flight: those that wait for a retry hold no slot.
WORKERS_PER_SLOT = 3

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
    await writer.pool.run(
        _chunks(scenarios, settings.batch),
        writer.write_chunk,
        workers=settings.concurrency * WORKERS_PER_SLOT,
    )


class _Writer:
    """Asks for scenarios chunk by chunk, and settles each."""

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
        self.pool = Pool(teacher, self._unusable)

    async def write_chunk(self, chunk: Sequence[Numbered]) -> None:
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
            if error.is_server_failure:
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
            if fresh:
                self.pool.succeeded()
            self.settle(each.number, candidate)

    def _fail(self, each: Numbered, error: ReplyError) -> None:
        failure = Failure(scenario=each.scenario, reason=error.reason, detail=error.detail)
        self.settle(each.number, failure)
        self.pool.failed(error)

    def _unusable(self) -> TeacherError:
        last = self.pool.last_failure
        assert last is not None
        reasons = self.pool.failures
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return TeacherError(
            f"the first {reasons.total()} scenarios all failed ({counted}); "
            f"the last: {last.detail}",
            place=self.teacher.name,
            hint=_WAYS_OUT[last.reason] + ", then run the same command again: it goes on",
        )


def _chunks(scenarios: Iterable[Scenario], size: int) -> Iterator[list[Numbered]]:
    """Up to `size` neighbours of one rule at a time."""
    numbered = (Numbered(number, scenario) for number, scenario in enumerate(scenarios))
    for _, group in groupby(numbered, key=lambda each: each.scenario.rule):
        while chunk := list(islice(group, size)):
            yield chunk


_WAYS_OUT = {
    FailureReason.MALFORMED: "choose a model that follows a JSON Schema, or a server that holds it",
    FailureReason.REFUSED: "choose a model that writes about this workflow, or reword the rules",
    FailureReason.EMPTY: "look into the server's log",
    FailureReason.TRUNCATED: "raise max_tokens in [teacher]; a model that thinks first needs more",
    FailureReason.TIMEOUT: "raise timeout or lower concurrency in [teacher]",
    FailureReason.SERVER: "check --base-url, and look into the server's log",
}
