"""evaluate: every arm on gold and on the held-out split; on request, on any file of cases."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from distill.files import file_digest
from distill.records import Case, Example, Json
from distill.run import layout
from distill.run.folder import RunFolder
from distill.stages.stage import Context, Stage
from distill.stages.watcher import Watcher


def work(context: Context) -> Json:
    """Score every arm on the test split and on gold; the right-tool shares for the manifest."""
    from distill.evaluate.arms import score_arms
    from distill.evaluate.score import cases_of

    run, watcher = context.run, context.watcher
    run.record()
    datasets: dict[str, Sequence[Case]] = {}
    if run.workflow.gold:
        datasets["gold"] = run.workflow.gold
    datasets["test"] = cases_of(context.read(layout.SPLITS["test"], Example))
    kept = {name: cases for name, cases in datasets.items() if cases}
    for name in datasets:
        shutil.rmtree(run.path / layout.EVALUATE / name, ignore_errors=True)
    scores = score_arms(run, kept, watcher.progress, watcher.notice)
    return {name: {arm: one.tool_accuracy for arm, one in s.items()} for name, s in scores.items()}


def evaluate_cases(run: RunFolder, name: str, cases: Sequence[Case], watcher: Watcher) -> None:
    """Score every arm on cases, which are kept under `name`."""
    from distill.evaluate.arms import score_arms

    score_arms(run, {name: cases}, watcher.progress, watcher.notice)


def scored(run: RunFolder) -> list[str]:
    """The data sets that the finished stage has scored, gold first."""
    counts = run.manifest.stages[STAGE.name].counts
    return [name for name in ("gold", "test") if name in counts]


def dataset_name(path: Path) -> str:
    """The name under which a file's cases are kept."""
    stem = re.sub(r"[^\w-]+", "-", path.stem).strip("-") or "data"
    # Two files of one name are two data sets.
    return f"{stem}-{file_digest(path)[:8]}"


STAGE = Stage(
    name="evaluate",
    folder=layout.EVALUATE,
    settings=("train", "evaluate"),
    reads=(*layout.SPLITS.values(), layout.ADAPTER, layout.GATE_PREDICTIONS),
    writes=(f"{layout.EVALUATE}/test", f"{layout.EVALUATE}/gold"),
    work=work,
    version=2,
)
