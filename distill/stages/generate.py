"""generate: the teacher writes for each scenario; what it never answered is owed.

The team's own rows join here: from now on they are candidates like any other.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain

from distill.data.generate import OnResult, generate
from distill.errors import DistillError
from distill.files import iter_records, record_line, write_lines
from distill.ledger.replies import ReplyStore
from distill.records import Candidate, Failure, Json, Scenario
from distill.run import layout
from distill.run.folder import RunFolder
from distill.run.spool import Spool
from distill.stages.answered import count_answered
from distill.stages.stage import DATA, Context, Stage
from distill.teachers.make import offline_teacher

FILES: tuple[tuple[type[Candidate] | type[Failure], str], ...] = (
    (Candidate, layout.CANDIDATES),
    (Failure, layout.FAILURES),
)


def work(context: Context) -> Json:
    run = context.run
    total = run.manifest.stages["plan"].counts["scenarios"]
    assert isinstance(total, int)
    reasons, own = Counter[str](), list(map(record_line, run.workflow.rows))
    with Spool(run.path / layout.OUTCOMES) as outcomes:

        def settle(number: int, outcome: Candidate | Failure) -> None:
            if isinstance(outcome, Failure):
                reasons[outcome.reason.value] += 1
            outcomes.put(type(outcome).__name__, number, outcome)
            context.watcher.progress(outcomes.counts.total(), total, context.teacher.note())

        if total:
            _ask(context, settle)
        for kind, name in FILES:
            rows = own if kind is Candidate else ()
            write_lines(run.path / name, chain(rows, outcomes.lines(kind.__name__)))
        written = outcomes.counts[Candidate.__name__]
    counts: Json = {"in": total, "candidates": written, "failures": dict(sorted(reasons.items()))}
    return {**counts, "own": len(own)} if own else counts


def _ask(context: Context, settle: OnResult) -> None:
    run, session = context.run, context.teacher
    session.wait(
        generate(
            context.each(layout.SCENARIOS, Scenario),
            run.workflow,
            session.metered("generate"),
            session.replies,
            run.config.teacher,
            settle,
        )
    )


def progress(run: RunFolder) -> str:
    replies, planned = run.path / layout.REPLIES, run.path / layout.SCENARIOS
    if not (replies.exists() and planned.exists()):
        return ""
    scenarios = list(iter_records(planned, Scenario))
    try:
        with ReplyStore(replies) as store:
            there = count_answered(run, offline_teacher(run.config.teacher), store, scenarios)
    except DistillError as error:
        return f"the replies {error.problems[0].cause}"
    return f"{there:,} of {len(scenarios):,} scenarios answered" if there else ""


STAGE = Stage(
    name="generate",
    folder=layout.GENERATE,
    settings=DATA,
    reads=(layout.SCENARIOS,),
    writes=(layout.CANDIDATES, layout.FAILURES),
    work=work,
    progress=progress,
)
