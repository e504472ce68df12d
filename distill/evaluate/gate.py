"""The teacher gate: does the teacher itself, with the rules in its prompt, route gold correctly?

What the teacher cannot do with the rules in its prompt, no student can learn from it. So it routes
gold once, before it writes. Its predictions and scores are stored in the format of an evaluation,
and do not depend on the threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distill.asking.ask import ReplyCache, ask
from distill.asking.pool import Pool
from distill.asking.routing import read_route, route_request
from distill.config import TeacherConfig
from distill.errors import GateError, TeacherError
from distill.evaluate.score import Scores, judge, score
from distill.evaluate.statistics import wilson
from distill.evaluate.tables import scores_json
from distill.files import read_records, write_json, write_records
from distill.records import Case, FailureReason, Json, Prediction
from distill.render import Parsed
from distill.run import layout
from distill.run.folder import RunFolder
from distill.teachers.base import DrainingError, ReplyError, Teacher
from distill.workflow.model import Workflow
from distill.workflow.problems import excerpt

ARM = "teacher"

MAX_RULES_SHOWN = 12
"""Rules in the gate's error message; the predictions file has the rest."""

Progress = Callable[[int, int, str], None]
"""Called with the cases done, their total, and the arm."""


async def run_gate(
    run: RunFolder, teacher: Teacher, replies: ReplyCache, progress: Progress
) -> Json:
    """Have the teacher route gold, and write predictions and scores; the counts for the manifest.

    Raises as `route_cases` does. `require_gate` compares the result with the threshold.
    """
    predictions = await route_cases(
        run.workflow.gold,
        run.workflow,
        teacher,
        replies,
        run.config.teacher,
        progress=progress,
    )
    scores = score(predictions)
    write_records(run.path / layout.GATE_PREDICTIONS, predictions)
    write_json(run.path / layout.GATE_SCORES, scores_json("gold", {ARM: scores}))
    right = sum(p.tool_correct for p in predictions)
    share = None if scores.tool_accuracy is None else round(scores.tool_accuracy, 4)
    return {"cases": scores.n, "right": right, "share": share}


def read_gate(run: RunFolder) -> list[Prediction]:
    """The teacher's predictions on gold; none before the stage `gate` is done."""
    done = "gate" in run.manifest.stages
    return read_records(run.path / layout.GATE_PREDICTIONS, Prediction) if done else []


async def route_cases(
    cases: Sequence[Case],
    workflow: Workflow,
    teacher: Teacher,
    replies: ReplyCache,
    settings: TeacherConfig,
    *,
    progress: Progress,
) -> list[Prediction]:
    """The teacher's prediction for each case, in order, as the arm `teacher`.

    An unusable reply is a malformed prediction. Raises TeacherError when cases got no reply, which
    says nothing about the teacher's routing, and whatever the teacher raises for the entire run.
    Requests in flight finish first, also when the caller is cancelled: they are paid for, and are
    cached for the next run.
    """
    router = _Router(cases, workflow, teacher, replies, settings, progress)
    # Twice what may be in flight: those that wait for a retry hold no slot.
    await router.pool.run(enumerate(cases), router.route, workers=2 * settings.concurrency)
    return router.ordered()


def require_gate(predictions: Sequence[Prediction], threshold: float, place: Path) -> None:
    """Raise GateError, with the wrong cases by rule, if tool accuracy is below `threshold`.

    threshold: the required share of cases with exactly the expected tools
    place: the run folder
    """
    right, n = sum(p.tool_correct for p in predictions), len(predictions)
    if not n or right / n >= threshold:
        return
    share, low, high, required = (
        f"{100 * value:.3g}%" for value in (right / n, *wilson(right, n), threshold)
    )
    summary = (
        f"the teacher routed {right} of {n} gold cases right ({share}, 95% interval {low} to "
        f"{high}); the gate is {required}"
    )
    hints = [*_hints(predictions, right), f"all cases: {place / layout.GATE_PREDICTIONS}"]
    raise GateError(
        "\n".join([summary, *_wrong_by_rule(predictions)]), place=place, hint="; ".join(hints)
    )


def teacher_arm(run: RunFolder, dataset: str, cases: Sequence[Case]) -> dict[str, Scores]:
    """The teacher's scores as an arm on `dataset`, if the gate had exactly the same cases."""
    copy = run.path / layout.predictions(dataset, ARM)
    copy.unlink(missing_ok=True)
    predictions = read_gate(run)
    routed = [prediction.case for prediction in predictions]
    if not routed or routed != [case.id for case in cases]:
        return {}
    write_records(copy, predictions)
    return {ARM: score(predictions)}


class _Router:
    """Has the teacher route one case at a time, and collects the predictions."""

    def __init__(
        self,
        cases: Sequence[Case],
        workflow: Workflow,
        teacher: Teacher,
        replies: ReplyCache,
        settings: TeacherConfig,
        progress: Progress,
    ) -> None:
        self.total = len(cases)
        self.workflow = workflow
        self.tools = [tool.openai() for tool in workflow.tools]
        self.teacher = teacher
        self.replies = replies
        self.settings = settings
        self.progress = progress
        self.predictions: dict[int, Prediction] = {}
        self.pool = Pool(teacher, self._no_reply)

    def ordered(self) -> list[Prediction]:
        """The predictions, in the order of the cases; raises if one is missing."""
        if self.pool.failures:
            raise self._no_reply()
        if len(self.predictions) < self.total:
            raise DrainingError
        return [self.predictions[index] for index in range(self.total)]

    async def route(self, indexed: tuple[int, Case]) -> None:
        """Route one case; an unusable reply is a malformed prediction."""
        index, case = indexed

        def read(text: str) -> Prediction:
            parsed = read_route(text, case, self.workflow)
            return judge(case, parsed, ARM, raw=text, tools=self.tools)

        request = route_request(case, self.workflow, self.settings)
        try:
            self.predictions[index], _ = await ask(request, self.teacher, self.replies, read)
        except ReplyError as error:
            if error.is_server_failure:
                self.pool.failed(error)
                return
            unusable = Parsed(malformed=True, detail=f"{error.reason}: {error.detail}")
            self.predictions[index] = judge(case, unusable, ARM, raw="")
        self.pool.succeeded()
        self.progress(len(self.predictions), self.total, ARM)

    def _no_reply(self) -> TeacherError:
        last = self.pool.last_failure
        assert last is not None
        return TeacherError(
            f"{self.pool.failures.total()} of {self.total} gold cases got no reply; "
            f"the last: {last.detail}",
            place=self.teacher.name,
            hint="look into the server's log, then run the same command again: it goes on; "
            "or go on without asking for gold: --gate 0",
        )


def _wrong_by_rule(predictions: Sequence[Prediction]) -> Iterator[str]:
    """A line for each rule with wrong cases, the most first: their number, and one of them."""
    totals = Counter(p.rule for p in predictions)
    wrong: dict[str | None, list[Prediction]] = {}
    for prediction in predictions:
        if not prediction.tool_correct:
            wrong.setdefault(prediction.rule, []).append(prediction)
    worst = sorted(wrong, key=lambda rule: (-len(wrong[rule]), totals[rule], rule or ""))
    for rule in worst[:MAX_RULES_SHOWN]:
        name = f"rule {rule}" if rule else "(no rule)"
        cases = wrong[rule]
        yield f"  {name}: {len(cases)} of {totals[rule]} wrong; {_describe(cases[0])}"
    if len(worst) > MAX_RULES_SHOWN:
        yield f"  and {len(worst) - MAX_RULES_SHOWN} more rules"


def _describe(wrong: Prediction) -> str:
    tools = " and ".join(call.name for call in wrong.expected)
    chosen = " and ".join(call.name for call in wrong.calls) or "no tool"
    if wrong.malformed:
        chosen = "no usable reply"
    detail = f" ({excerpt(wrong.detail, 160)})" if wrong.detail else ""
    expected = tools or f"no tool ({wrong.kind})"
    return f'"{excerpt(wrong.prompt)}": expected {expected}, got {chosen}{detail}'


def _hints(predictions: Sequence[Prediction], right: int) -> Iterator[str]:
    yield "reword those rules, correct gold where it is wrong, or choose a stronger model"
    if any(p.detail.startswith(FailureReason.TRUNCATED) for p in predictions):
        yield "where replies were cut short, raise max_tokens in [teacher]"
    # The share of correct cases, rounded down to a multiple of 5%.
    if twentieths := 20 * right // len(predictions):
        yield f"to go on with this teacher as it is: --gate {twentieths / 20:g}"
    yield "to go on without asking it: --gate 0"
