"""gate: the teacher routes the gold set itself, before it may write."""

from __future__ import annotations

from distill.records import Json
from distill.run import layout
from distill.run.folder import RunFolder
from distill.stages.stage import Context, Stage


def is_due(run: RunFolder) -> bool:
    """Whether the teacher has to pass: where there is gold, and it can route and is to write."""
    settings = run.config.teacher
    can_route = settings.gate > 0 and settings.kind != "grammar"
    return can_route and run.config.data.target > 0 and bool(run.workflow.gold)


def work(context: Context) -> Json:
    from distill.evaluate.gate import run_gate

    run, session = context.run, context.teacher
    return session.wait(
        run_gate(run, session.metered("gate"), session.replies, context.watcher.progress)
    )


STAGE = Stage(
    name="gate",
    folder=layout.GATE,
    settings=("workflow", "teacher", "routing"),
    reads=(),
    writes=(layout.GATE_PREDICTIONS, layout.GATE_SCORES),
    work=work,
)
