"""validate: candidates that pass every check become examples."""

from __future__ import annotations

from distill.data.checks import validate
from distill.records import Candidate, Json
from distill.run import layout
from distill.stages.sieve import write_sifted
from distill.stages.stage import DATA, Context, Stage


def work(context: Context) -> Json:
    run, candidates = context.run, context.read(layout.CANDIDATES, Candidate)
    return write_sifted(context, "validate", validate(candidates, run.workflow, run.config.data))


STAGE = Stage(
    name="validate",
    folder=layout.VALIDATE,
    settings=DATA,
    reads=(layout.CANDIDATES,),
    writes=(layout.EXAMPLES["validate"], layout.REJECTED["validate"]),
    work=work,
)
