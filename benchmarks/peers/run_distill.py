"""distill: the stages plan and generate of a run, as `distill gen` does them."""

from __future__ import annotations

from pathlib import Path

from peer_task import MODEL, Task, read_task, report

from distill.config import Config
from distill.pipeline import GENERATE, PLAN
from distill.records import Json
from distill.run.asking import Asking
from distill.run.folder import RunFolder
from distill.run.stage import Context, run_stage
from distill.workflow.load import load_workflow


class Silent:
    """Nobody watches."""

    def begins(self, stage: str) -> None: ...

    def progress(self, done: int, total: int, note: str = "") -> None: ...

    def ends(self, stage: str, counts: Json, seconds: float) -> None: ...

    def notice(self, text: str) -> None:
        print(text)


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
    with Asking(run, Silent().notice) as asking:
        asked = {workflow.by_id[task.rule].cell: task.requests}
        context = Context(run, Silent(), asked, asking)
        for stage in (PLAN, GENERATE):
            run_stage(stage, context)
    counted = run.manifest.stages[GENERATE.name].counts["candidates"]
    assert isinstance(counted, int)
    return counted


if __name__ == "__main__":
    candidates = generated(read_task())
    report(valid=candidates, rows=candidates)
