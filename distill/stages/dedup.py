"""dedup: exact and near duplicates go, and whatever is like the gold set."""

from __future__ import annotations

from distill.data.dedup import dedup
from distill.records import Example, Json
from distill.run import layout
from distill.stages.sieve import write_sifted
from distill.stages.stage import DATA, Context, Stage


def work(context: Context) -> Json:
    run, examples = context.run, context.read(layout.EXAMPLES["validate"], Example)
    return write_sifted(context, "dedup", dedup(examples, run.workflow.gold, run.config.data))


STAGE = Stage(
    name="dedup",
    folder=layout.DEDUP,
    settings=DATA,
    reads=(layout.EXAMPLES["validate"],),
    writes=(layout.EXAMPLES["dedup"], layout.REJECTED["dedup"]),
    work=work,
)
