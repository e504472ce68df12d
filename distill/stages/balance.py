"""balance: as many examples per cell as its quota asks for."""

from __future__ import annotations

from distill.data.balance import balance
from distill.data.plan import open_quotas
from distill.records import Example, Json
from distill.run import layout
from distill.stages.sieve import write_sifted
from distill.stages.stage import DATA, Context, Stage


def work(context: Context) -> Json:
    run, examples = context.run, context.read(layout.EXAMPLES["dedup"], Example)
    own = (example for example in examples if example.is_own)
    wanted = open_quotas(run.workflow, run.config.data.target, own)
    return write_sifted(context, "balance", balance(examples, wanted, run.config.data.seed))


STAGE = Stage(
    name="balance",
    folder=layout.BALANCE,
    settings=DATA,
    reads=(layout.EXAMPLES["dedup"],),
    writes=(layout.EXAMPLES["balance"], layout.REJECTED["balance"]),
    work=work,
)
