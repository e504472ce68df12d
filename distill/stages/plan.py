"""plan: the coverage grid becomes scenarios, each with its label."""

from __future__ import annotations

from distill.data.plan import scenarios
from distill.records import Json
from distill.run import layout
from distill.stages.stage import DATA, Context, Stage


def work(context: Context) -> Json:
    run = context.run
    planned = scenarios(run.workflow, run.config.data, context.requested)
    return {"scenarios": context.write(layout.SCENARIOS, planned)}


STAGE = Stage(
    name="plan",
    folder=layout.PLAN,
    settings=DATA,
    reads=(),
    writes=(layout.SCENARIOS,),
    work=work,
)
