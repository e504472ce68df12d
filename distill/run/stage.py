"""What a stage is, how one is run, and how to tell where it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from distill.errors import DistillError
from distill.files import iter_records, read_records, write_records
from distill.prompts import prompt_digest
from distill.records import Cell, Json, Record, Scenario
from distill.run.asking import REPLIES, Asking
from distill.run.folder import RunFolder
from distill.run.manifest import StageEntry, StageStatus, changes, flatten
from distill.run.owed import answered
from distill.run.replies import ReplyStore
from distill.teachers.make import named_teacher

R = TypeVar("R", bound=Record)
# What is said to a teacher that writes, and to one that routes.
WRITING = ("write", "batch", "again", "schema")
ROUTING = ("route", "again", "schema")


class Watcher(Protocol):
    """Who is told how a run goes: the terminal, or nobody."""

    def begins(self, stage: str) -> None: ...

    def progress(self, done: int, total: int, note: str = "") -> None: ...

    def ends(self, stage: str, counts: Json, seconds: float) -> None: ...

    def notice(self, text: str) -> None: ...


@dataclass(frozen=True)
class Context:
    """What a stage works with: the run, who watches, and how many of each cell are asked for."""

    run: RunFolder
    watcher: Watcher
    asked: Mapping[Cell, int] = field(default_factory=dict)
    asking: Asking | None = None
    """The teacher, where a stage may need it."""

    def read(self, name: str, kind: type[R]) -> list[R]:
        return read_records(self.run.path / name, kind)

    def each(self, name: str, kind: type[R]) -> Iterator[R]:
        """`read`, one by one."""
        return iter_records(self.run.path / name, kind)

    def write(self, name: str, records: Iterable[Record]) -> int:
        """Write them as one file; how many they were."""
        return write_records(self.run.path / name, records)


class Stage(NamedTuple):
    """One step of the flow. `depends` names the settings that its result follows from."""

    name: str
    folder: str
    depends: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    work: Callable[[Context], Json]
    version: int = 1


def run_stage(stage: Stage, context: Context) -> None:
    """Do a stage's work, and remember what it was made from and what it wrote."""
    run = context.run
    context.watcher.begins(stage.name)
    began = time.monotonic()
    counts = stage.work(context)
    seconds = time.monotonic() - began
    entry = StageEntry(
        settings=settings_of(stage, run),
        inputs=run.digests(stage.reads),
        outputs=run.digests(stage.writes),
        counts=counts,
        seconds=round(seconds, 2),
    )
    run.remember(stage.name, entry)
    context.watcher.ends(stage.name, counts, seconds)


def settings_of(stage: Stage, run: RunFolder) -> Json:
    """The flat identity settings that a stage's result follows from."""
    config = run.config
    sections: dict[str, Json] = {
        "workflow": {"digest": run.workflow.fingerprint},
        "data": config.data.identity(),
        "teacher": config.teacher.identity(),
        "prompts": {f"{name} digest": prompt_digest(name) for name in WRITING},
        "routing": {f"{name} digest": prompt_digest(name) for name in ROUTING},
        "train": config.train.identity(),
        "evaluate": config.evaluate.identity(),
    }
    chosen: Json = {name: sections[name] for name in stage.depends}
    return flatten({**chosen, "version": stage.version})


def stage_status(stage: Stage, run: RunFolder) -> StageStatus:
    """Where a stage stands: missing, partial, done, stale or altered."""
    entry = run.manifest.stages.get(stage.name)
    if entry is None:
        started = _progress(stage, run)
        return StageStatus(stage.name, "partial" if started else "missing", started)
    now = run.digests([name for name in entry.outputs if (run.path / name).is_file()])
    altered = [name for name, value in entry.outputs.items() if now.get(name) != value]
    if altered:
        return StageStatus(stage.name, "altered", ", ".join(altered))
    stale = changes(entry.settings, settings_of(stage, run))
    stale += [
        f"{name} changed"
        for name, value in run.digests(stage.reads).items()
        if name in entry.inputs and entry.inputs[name] != value
    ]
    if stale:
        return StageStatus(stage.name, "stale", "; ".join(stale))
    return StageStatus(stage.name, "done", _outcome(entry))


def _outcome(entry: StageEntry) -> str:
    """What has to be known of a finished stage's result: what is owed, how a gate was passed."""
    counts = entry.counts
    failures = counts.get("failures")
    if isinstance(failures, dict) and failures:
        return f"owed: {', '.join(f'{count} {reason}' for reason, count in failures.items())}"
    return f"{counts['right']} of {counts['cases']} cases right" if "right" in counts else ""


def _progress(stage: Stage, run: RunFolder) -> str:
    """What an unfinished stage has to show so far, or nothing."""
    folder = run.path / stage.folder
    planned = run.path / "1-plan" / "scenarios.jsonl"
    if stage.name == "generate" and (run.path / REPLIES).exists() and planned.exists():
        scenarios = list(iter_records(planned, Scenario))
        try:
            with ReplyStore(run.path / REPLIES) as replies:
                there = answered(run, named_teacher(run.config.teacher), replies, scenarios)
        except DistillError as error:
            return f"the replies {error.problems[0].cause}"
        return f"{there:,} of {len(scenarios):,} scenarios answered" if there else ""
    if stage.name == "train" and any((folder / "checkpoints").glob("checkpoint-*")):
        return "checkpoints to go on from"
    return ""
