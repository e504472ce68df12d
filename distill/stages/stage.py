"""What a stage is, how one is run, and how to tell where it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from distill.config import Config
from distill.files import iter_records, read_records, write_records
from distill.prompts import prompt_digest
from distill.records import Cell, Json, Record
from distill.run.folder import RunFolder
from distill.run.manifest import StageEntry, StageStatus, changes, flatten
from distill.stages.session import TeacherSession
from distill.stages.watcher import Watcher

R = TypeVar("R", bound=Record)
Section = Literal["workflow", "data", "teacher", "prompts", "routing", "train", "evaluate"]
DATA: tuple[Section, ...] = ("workflow", "data", "teacher", "prompts")
"""What training data follows from."""
TABLES = frozenset(Config.model_fields)
# What is said to a teacher that writes, and to one that routes.
WRITING = ("write", "batch", "again", "schema")
ROUTING = ("route", "again", "schema")


@dataclass(frozen=True)
class Context:
    """What a stage works with: the run, a watcher, and how many scenarios of each cell to plan."""

    run: RunFolder
    watcher: Watcher
    requested: Mapping[Cell, int] = field(default_factory=dict)
    session: TeacherSession | None = None
    """The teacher, for the stages that ask one."""

    @property
    def teacher(self) -> TeacherSession:
        """The session of a stage that asks a teacher."""
        assert self.session is not None
        return self.session

    def read(self, name: str, kind: type[R]) -> list[R]:
        return read_records(self.run.path / name, kind)

    def each(self, name: str, kind: type[R]) -> Iterator[R]:
        """`read`, one by one."""
        return iter_records(self.run.path / name, kind)

    def write(self, name: str, records: Iterable[Record]) -> int:
        """Write them as one file; how many they were."""
        return write_records(self.run.path / name, records)


def no_progress(run: RunFolder) -> str:
    return ""


@dataclass(frozen=True)
class Stage:
    """One step of the flow."""

    name: str
    folder: str
    """Its folder within the run."""
    settings: tuple[Section, ...]
    """The settings that its result follows from: when they change, it is stale."""
    reads: tuple[str, ...]
    """Files, or folders of files, within the run."""
    writes: tuple[str, ...]
    work: Callable[[Context], Json]
    """Does it, and returns the counts for the manifest."""
    progress: Callable[[RunFolder], str] = no_progress
    """What there is to show of it while it is unfinished; nothing when it has not begun."""
    version: int = 1
    """Raised when the same inputs and settings come to give another result."""


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
    sections: dict[Section, Json] = {
        "workflow": {"digest": run.workflow.fingerprint},
        "data": config.data.identity(),
        "teacher": config.teacher.identity(),
        "prompts": {f"{name} digest": prompt_digest(name) for name in WRITING},
        "routing": {f"{name} digest": prompt_digest(name) for name in ROUTING},
        "train": config.train.identity(),
        "evaluate": config.evaluate.identity(),
    }
    chosen: Json = {name: sections[name] for name in stage.settings}
    return flatten({**chosen, "version": stage.version})


def stage_status(stage: Stage, run: RunFolder) -> StageStatus:
    """Where a stage stands: missing, partial, done, stale or altered."""
    entry = run.manifest.stages.get(stage.name)
    if entry is None:
        started = stage.progress(run)
        return StageStatus(stage.name, "partial" if started else "missing", started)
    now = run.digests([name for name in entry.outputs if (run.path / name).is_file()])
    altered = [name for name, value in entry.outputs.items() if now.get(name) != value]
    if altered:
        return StageStatus(stage.name, "altered", ", ".join(altered))
    # A setting that came with a later version: the default is what was done before it.
    defaults = {name: getattr(Config(), name).identity() for name in TABLES & {*stage.settings}}
    stale = changes({**flatten(defaults), **entry.settings}, settings_of(stage, run))
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
