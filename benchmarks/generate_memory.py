"""Peak memory of the generate stage, for two numbers of scenarios, and what one more costs.

    python benchmarks/generate_memory.py        # 10,000 and 100,000 scenarios

The stage is the one of `distill gen`, on a real run folder in a temporary place, with a store of
replies that is empty at first. The teacher answers at once, in this process and with one text, so
that what is measured is distill's own. Each size is a process of its own, planned by another, as
the high-water mark of a process never falls.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from distill.config import Config
from distill.data.plan import quotas
from distill.records import Cell
from distill.run.folder import RunFolder
from distill.stages import generate, plan
from distill.stages.session import TeacherSession
from distill.stages.stage import Context, Stage, run_stage
from distill.stages.watcher import LogWatcher
from distill.teachers.base import ChatReply, ChatRequest, WriteTask
from distill.workflow.load import load_workflow

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "schemas" / "knowledge_router" / "rules.md"
MEBIBYTE = 2**20


class InstantTeacher:
    """Calls what the rule calls, in words that are always the same."""

    name = "instant"
    fingerprint = "instant"
    messages_only = True

    async def complete(self, request: ChatRequest) -> ChatReply:
        assert isinstance(request.task, WriteTask)
        words = "vacation days carry over to the next year"
        tool = request.task.rule.then.calls[0].tool
        reply = {"user": words, "calls": [{"name": tool, "arguments": {"query": words}}]}
        return ChatReply(text=json.dumps(reply), model="instant")

    def drain(self) -> None: ...

    async def close(self) -> None: ...


def do(stage: Stage, folder: Path, count: int) -> dict[str, Any]:
    """One stage of a run for so many scenarios, and what it took."""
    workflow = load_workflow(RULES)
    teacher = {"kind": "openai", "model": "instant", "concurrency": 128, "gate": 0}
    run = RunFolder.create(folder, workflow, Config.load(None, {"teacher": teacher}))
    asked: Mapping[Cell, int] = quotas(workflow, count)
    began = time.monotonic()
    with TeacherSession(run, LogWatcher().notice) as session:
        # In the place of the teacher that the settings would make.
        vars(session)["teacher"] = InstantTeacher()
        before = high_water()
        run_stage(stage, Context(run, LogWatcher(), asked, session))
    counts = run.manifest.stages[stage.name].counts
    return {
        "seconds": time.monotonic() - began,
        "before": before,
        "peak": high_water(),
        "counts": counts,
    }


def high_water() -> float:
    """The most memory that this process ever had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not that of getrusage, which counts what the parent had before exec.
        lines = status.read_text("utf-8").split("\n")
        return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1.0 if sys.platform == "darwin" else 1024.0)


def in_child(stage: Stage, folder: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", stage.name, str(folder), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def measured(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        in_child(plan.STAGE, folder, count)
        took = in_child(generate.STAGE, folder, count)
        if took["counts"]["candidates"] != count:
            raise click.ClickException(f"{took['counts']}: not every scenario became a candidate")
        return {"scenarios": count, **took}


def slope(few: Mapping[str, Any], many: Mapping[str, Any]) -> float:
    """Bytes of peak memory for one scenario more."""
    more = many["scenarios"] - few["scenarios"]
    return (many["peak"] - few["peak"]) / more if more else math.nan


@click.command()
@click.option("--few", default=10_000, show_default=True, type=click.IntRange(1))
@click.option("--many", default=100_000, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON.")
@click.option("--child", type=(str, click.Path(path_type=Path), int), hidden=True)
def main(few: int, many: int, as_json: bool, child: tuple[str, Path, int] | None) -> None:
    """Measure the memory of the generate stage."""
    if child:
        name, folder, count = child
        stage = next(stage for stage in (plan.STAGE, generate.STAGE) if stage.name == name)
        click.echo(json.dumps(do(stage, folder, count)))
        return
    found = [measured(count) for count in (few, many)]
    bytes_each = slope(*found)
    if as_json:
        sizes = [{k: v for k, v in one.items() if k != "counts"} for one in found]
        click.echo(json.dumps({"sizes": sizes, "bytes_per_scenario": bytes_each}, indent=2))
        return
    for one in found:
        click.echo(
            f"{one['scenarios']:>9,} scenarios: peak {one['peak'] / MEBIBYTE:.0f} MB "
            f"({one['before'] / MEBIBYTE:.0f} MB before the first), {one['seconds']:.0f} s"
        )
    click.echo(f"{bytes_each:.0f} bytes for each scenario more")


if __name__ == "__main__":
    main()
