"""distill: the stages plan and generate of a run, as `distill gen` does them."""

from __future__ import annotations

from pathlib import Path

from peer_task import MODEL, Task, read_task, report

from distill.config import Config
from distill.run.folder import RunFolder
from distill.stages import generate, plan
from distill.stages.session import TeacherSession
from distill.stages.stage import Context, run_stage
from distill.stages.watcher import LogWatcher
from distill.workflow.load import load_workflow


def generated(task: Task) -> int:
    """Candidates in the end."""
    workflow = load_workflow(Path(task.rules))
    teacher = {
        "kind": "openai",
        "model": MODEL,
        "base_url": task.url,
        "concurrency": task.concurrency,
    }
    config = Config.load(None, {"teacher": teacher})
    run = RunFolder.create(task.folder / "run", workflow, config)
    with TeacherSession(run, LogWatcher().notice) as session:
        asked = {workflow.by_id[task.rule].cell: task.requests}
        context = Context(run, LogWatcher(), asked, session)
        for stage in (plan.STAGE, generate.STAGE):
            run_stage(stage, context)
    counted = run.manifest.stages[generate.STAGE.name].counts["candidates"]
    assert isinstance(counted, int)
    return counted


if __name__ == "__main__":
    candidates = generated(read_task())
    report(valid=candidates, rows=candidates)
