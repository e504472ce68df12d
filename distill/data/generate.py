"""scenarios -> candidates and failures: the teacher writes each scenario's conversation."""

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

# Workers per concurrent request. More than one, as a worker in backoff holds no request slot.
WORKERS_PER_SLOT = 3

OnResult = Callable[[int, Candidate | Failure], None]
"""Called once per scenario, with its position in the plan, as soon as its result is known."""


class NumberedScenario(NamedTuple):
    """A scenario and its position in the plan."""

    number: int
    scenario: Scenario


async def generate(
    scenarios: Iterable[Scenario],
    workflow: Workflow,
    teacher: Teacher,
    replies: ReplyCache,
    settings: TeacherConfig,
    on_result: OnResult,
) -> None:
    """Call `on_result` once per scenario, with a candidate or a failure, as replies arrive.

    Scenarios are streamed: none is held in memory after its result. Each reply is stored in
    `replies` before it is used, and a stored reply is not requested again.

    Raises TeacherError when the teacher is unusable or the first requests all fail. Requests in
    flight are awaited first, as on cancellation, because they are paid for.
    """
    writer = _Writer(workflow, teacher, replies, settings, on_result)
    await writer.pool.run(
        _batches(scenarios, settings.batch),
        writer.write_batch,
        workers=settings.concurrency * WORKERS_PER_SLOT,
    )


class _Writer:
    def __init__(
        self,
        workflow: Workflow,
        teacher: Teacher,
        replies: ReplyCache,
        settings: TeacherConfig,
        on_result: OnResult,
    ) -> None:
        self.workflow = workflow
        self.teacher = teacher
        self.replies = replies
        self.settings = settings
        self.on_result = on_result
        self.pool = Pool(teacher, self._unusable)

    async def write_batch(self, batch: Sequence[NumberedScenario]) -> None:
        requests = [write_request(item.scenario, self.workflow, self.settings) for item in batch]
        try:
            await self._request_batch(requests)
        except ReplyError as error:
            for item in batch:
                self._fail(item, error)
            return
        for item, request in zip(batch, requests, strict=True):
            await self._request_one(item, request)

    async def _request_batch(self, requests: Sequence[ChatRequest]) -> None:
        """Store the replies that are missing for several scenarios, by one request for all.

        Does nothing where fewer than two are missing. Raises ReplyError for a server failure.
        """
        if len(requests) < 2:
            return
        missing = {reply_key(self.teacher, request): request for request in requests}
        missing = {key: one for key, one in missing.items() if self.replies.get(key) is None}
        if len(missing) < 2:
            return
        try:
            reply = await self.teacher.complete(batch_request(list(missing.values())))
        except ReplyError as error:
            if error.is_server_failure:
                raise
            return  # a batch that the model refuses or truncates may succeed one by one
        self.replies.put_all(zip(missing, split_batch(reply, len(missing)), strict=True))

    async def _request_one(self, item: NumberedScenario, request: ChatRequest) -> None:
        task = request.task
        assert isinstance(task, WriteTask)
        try:
            candidate, fresh = await ask(
                request,
                self.teacher,
                self.replies,
                lambda text: read_reply(text, task, self.teacher.name),
            )
        except ReplyError as error:
            self._fail(item, error)
        else:
            if fresh:
                self.pool.succeeded()
            else:
                self.pool.was_of_use()
            self.on_result(item.number, candidate)

    def _fail(self, item: NumberedScenario, error: ReplyError) -> None:
        failure = Failure(scenario=item.scenario, reason=error.reason, detail=error.detail)
        self.on_result(item.number, failure)
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
            hint=_HINTS[last.reason] + ", then run the same command again: it goes on",
        )


def _batches(scenarios: Iterable[Scenario], size: int) -> Iterator[list[NumberedScenario]]:
    """Batches of up to `size` consecutive scenarios of one rule."""
    numbered = (NumberedScenario(number, scenario) for number, scenario in enumerate(scenarios))
    for _, group in groupby(numbered, key=lambda item: item.scenario.rule):
        while batch := list(islice(group, size)):
            yield batch


_HINTS = {
    FailureReason.MALFORMED: "choose a model that follows a JSON Schema, or a server that holds it",
    FailureReason.REFUSED: "choose a model that writes about this workflow, or reword the rules",
    FailureReason.EMPTY: "look into the server's log",
    FailureReason.TRUNCATED: "raise max_tokens in [teacher], or turn the model's thinking off",
    FailureReason.TIMEOUT: "raise timeout or lower concurrency in [teacher]",
    FailureReason.SERVER: "check --base-url, and look into the server's log",
}
