"""The teacher gate: does the teacher itself, with the rules in its prompt, route gold right?

What it cannot do with the rules before it, no student can learn from it. So it is asked once,
before it writes; what it said to each gold case, and what that is worth, is kept in the format of
an evaluation's. What the gate is set to changes neither.
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
from distill.workflow.problems import start_of

ARM = "teacher"

# Rules that the gate's message tells about; the predictions hold the rest.
MOST_RULES = 12

Progress = Callable[[int, int, str], None]
"""Called with cases done, cases in all, and the arm."""


async def run_gate(
    run: RunFolder, teacher: Teacher, replies: ReplyCache, progress: Progress
) -> Json:
    """Have the teacher route gold, and write what it said; the counts for the manifest.

    Raises what `route_cases` raises; whether it is good enough is for `require_gate`.
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
    """What the teacher made of gold, once the stage `gate` is done; before that, nothing."""
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
    """What the teacher makes of each case, in order, as the arm `teacher`.

    A reply that cannot be used is a malformed prediction. Raises TeacherError when cases got no
    reply, which says nothing of the teacher, and what the teacher raises for the whole run.
    Requests under way are then let finish first, as they are when the caller is cancelled: they
    are paid for, and serve the next run.
    """
    router = _Router(cases, workflow, teacher, replies, settings, progress)
    # Twice what may be in flight: those that wait for a retry hold no slot.
    await router.pool.run(enumerate(cases), router.route, workers=2 * settings.concurrency)
    return router.ordered()


def require_gate(predictions: Sequence[Prediction], threshold: float, place: Path) -> None:
    """Raise GateError, with the rules that went wrong, when too few cases were routed right.

    threshold: the share of cases that must get the right tools, or rightly none
    place: the run folder
    """
    right, n = sum(p.tool_correct for p in predictions), len(predictions)
    if not n or right / n >= threshold:
        return
    low, high = wilson(right, n)
    counted = (
        f"the teacher routed {right} of {n} gold cases right ({_percent(right / n)}, 95% interval "
        f"{_percent(low)} to {_percent(high)}); the gate is {_percent(threshold)}"
    )
    raise GateError(
        "\n".join([counted, *_wrong_by_rule(predictions)]),
        place=place,
        hint="; ".join(
            [*_ways_out(predictions, right), f"all cases: {place / layout.GATE_PREDICTIONS}"]
        ),
    )


def teacher_arm(run: RunFolder, dataset: str, cases: Sequence[Case]) -> dict[str, Scores]:
    """The teacher as one more arm on `dataset`, where the gate had the same cases."""
    copy = run.path / layout.predictions(dataset, ARM)
    copy.unlink(missing_ok=True)
    predictions = read_gate(run)
    asked = [prediction.case for prediction in predictions]
    if not asked or asked != [case.id for case in cases]:
        return {}
    write_records(copy, predictions)
    return {ARM: score(predictions)}


class _Router:
    """Asks for the route of one case at a time, and collects the predictions."""

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
        self.teacher = teacher
        self.replies = replies
        self.settings = settings
        self.progress = progress
        self.verdicts: dict[int, Prediction] = {}
        self.pool = Pool(teacher, self._no_reply)

    def ordered(self) -> list[Prediction]:
        """The verdicts, in the order of the cases; raises when one is missing."""
        if self.pool.failures:
            raise self._no_reply()
        if len(self.verdicts) < self.total:
            raise DrainingError
        return [self.verdicts[at] for at in range(self.total)]

    async def route(self, numbered: tuple[int, Case]) -> None:
        """Ask for one case; a reply that cannot be used is a malformed prediction."""
        at, case = numbered
        try:
            self.verdicts[at] = await self._verdict(case)
        except ReplyError as error:
            if error.is_server_failure:
                self.pool.failed(error)
                return
            unusable = Parsed(malformed=True, detail=f"{error.reason}: {error.detail}")
            self.verdicts[at] = judge(case, unusable, ARM, raw="")
        self.pool.succeeded()
        self.progress(len(self.verdicts), self.total, ARM)

    async def _verdict(self, case: Case) -> Prediction:
        def read(text: str) -> Prediction:
            return judge(case, read_route(text, case, self.workflow), ARM, raw=text)

        asked = route_request(case, self.workflow, self.settings)
        verdict, _ = await ask(asked, self.teacher, self.replies, read)
        return verdict

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
    """A line for each rule with a wrong case, those with the most first, with one of them."""
    asked = Counter(p.rule for p in predictions)
    wrong: dict[str | None, list[Prediction]] = {}
    for prediction in predictions:
        if not prediction.tool_correct:
            wrong.setdefault(prediction.rule, []).append(prediction)
    worst = sorted(wrong, key=lambda rule: (-len(wrong[rule]), asked[rule], rule or ""))
    for rule in worst[:MOST_RULES]:
        counted = f"{len(wrong[rule])} of {asked[rule]} wrong"
        yield f"  {f'rule {rule}' if rule else '(no rule)'}: {counted}; {_shown(wrong[rule][0])}"
    if len(worst) > MOST_RULES:
        yield f"  and {len(worst) - MOST_RULES} more rules"


def _shown(wrong: Prediction) -> str:
    tools = " and ".join(call.name for call in wrong.expected)
    chosen = " and ".join(call.name for call in wrong.calls) or "no tool"
    if wrong.malformed:
        chosen = "no usable reply"
    detail = f" ({start_of(wrong.detail, 160)})" if wrong.detail else ""
    expected = tools or f"no tool ({wrong.kind})"
    return f'"{start_of(wrong.prompt)}": expected {expected}, got {chosen}{detail}'


def _ways_out(predictions: Sequence[Prediction], right: int) -> Iterator[str]:
    yield "reword those rules, correct gold where it is wrong, or choose a stronger model"
    if any(p.detail.startswith(FailureReason.TRUNCATED) for p in predictions):
        yield "where replies were cut short, raise max_tokens in [teacher]"
    if passes := 20 * right // len(predictions):
        yield f"to go on with this teacher as it is: --gate {passes / 20:g}"
    yield "to go on without asking it: --gate 0"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
