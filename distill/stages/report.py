"""report: what the run holds so far, for people and for machines."""

from __future__ import annotations

from distill.records import Json
from distill.run import layout
from distill.stages.stage import Context, Stage


def work(context: Context) -> Json:
    from distill.report import write_report

    return write_report(context.run.path)


STAGE = Stage(
    name="report",
    folder=".",
    settings=(),
    reads=(layout.EVALUATE,),
    writes=(layout.REPORT_PAGE, layout.REPORT),
    work=work,
)
