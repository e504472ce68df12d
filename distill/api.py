"""distill from Python: what the commands do, in the words of a notebook.

Every function raises the errors of `distill.errors`, as the commands print them, and works inside
a running event loop. Settings are those of distill.toml: whole tables for data and teacher, which
say what is made (`data={"target": 500}`, `teacher={"kind": "openai", "model": "gpt-5-mini"}`), and
keywords for a student (`run.train(epochs=2)`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config import Config, overlaid
from distill.errors import DistillError, MissingExtraError, UsageError
from distill.files import given_path, read_records
from distill.ledger.budget import Budget
from distill.ledger.ledger import LedgerEntry
from distill.ledger.replies import ReplyStore
from distill.records import Case, Example, digest
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.run.manifest import StageStatus
from distill.sources import found_file, load_settings, personal_tables, set_by
from distill.stages import evaluate, pipeline, train
from distill.stages.stage import Stage
from distill.stages.watcher import LogWatcher, Watcher, progress_watcher
from distill.teachers.make import make_teacher
from distill.workflow.load import load_workflow as read_workflow
from distill.workflow.model import Workflow
from distill.workflow.own_rows import with_rows
from distill.workflow.scaffold import scaffold

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

    from distill.evaluate.route import Routed, Router
    from distill.evaluate.score import Scores
    from distill.report import Report

__all__ = [
    "DistillError",
    "Run",
    "Workflow",
    "load_workflow",
    "make_data",
    "open_run",
    "write_starter",
]

PathLike = str | os.PathLike[str]
Table = Mapping[str, Any]
Rows = Iterable[Mapping[str, Any]]
"""Rows of a gold file, as dictionaries of what JSON can hold."""
Settings = Mapping[str, Table]
"""Tables of distill.toml; a value of None leaves the setting as it is."""


def load_workflow(
    rules: PathLike,
    *,
    tools: PathLike | None = None,
    gold: PathLike | None = None,
    python: bool = True,
) -> Workflow:
    """The workflow of a rules.md, its tools and gold set; raises WorkflowError with every error.

    python: whether a tools.py, which is executed to read it, may be; False refuses it
    """
    return read_workflow(
        given_path(rules, "rules"),
        tools=None if tools is None else given_path(tools, "tools"),
        gold=None if gold is None else given_path(gold, "gold"),
        python=python,
    )


def write_starter(folder: PathLike) -> list[Path]:
    """Write a small commented workflow into `folder`, as `distill init` does; the paths written."""
    return scaffold(given_path(folder, "folder"))


def make_data(
    workflow: Workflow | PathLike,
    out: PathLike | None = None,
    *,
    data: Table | None = None,
    teacher: Table | None = None,
    train: Table | None = None,
    evaluate: Table | None = None,
    config: PathLike | None = None,
    redo: bool = False,
    progress: bool | Watcher | None = True,
) -> Run:
    """Generate, validate, deduplicate, balance and split training data, as `distill gen` does.

    workflow: a loaded one, or the path of its rules.md
    out: the run folder; runs/WORKFLOW where it is None. Data that are finished there are
        kept, an interrupted run goes on; settings for a student that are given here or in the file
        are recorded, and one that was trained with others is then stale.
    data, teacher, train, evaluate: tables of distill.toml, over those of the file; the latter two
        are what `train` and `evaluate` will use
    config: a distill.toml; None: the one beside rules.md, or in the working directory
    progress: a bar or lines on stderr, nothing but the logger `distill`, or a Watcher of one's own
    Raises GateError when the quotas cannot be met; `open_run` then has what was accepted.
    """
    if not isinstance(workflow, Workflow):
        rules = given_path(workflow, "workflow")
        with _watched(progress) as watcher:
            workflow = read_workflow(rules, notice=watcher.notice)
    tables = {"data": data, "teacher": teacher, "train": train, "evaluate": evaluate}
    for name, table in tables.items():
        if table is not None and not isinstance(table, Mapping):
            cause = f"is a table of settings, not {type(table).__name__}"
            raise UsageError(cause, place=name, hint='give a dictionary, as {"target": 500}')
    settings = {name: table for name, table in tables.items() if table}
    run = planned_run(workflow, out, config, settings)
    require_teacher(run)
    with locked(run.path, create=True), _watched(progress) as watcher:
        if note := teacher_note(run, settings):
            watcher.notice(note)
        for remark in run.workflow.remarks[len(workflow.remarks) :]:
            watcher.notice(str(remark))
        begun = RunFolder.create(run.path, run.workflow, run.config, anew=redo)
        pipeline.make_data(begun, watcher)
    return Run(begun)


def open_run(path: PathLike) -> Run:
    """The run folder at `path`. Raises RunError when there is none, or it cannot be used."""
    return Run(RunFolder.open(given_path(path, "path")))


class Run:
    """A run folder: its data, its student, and what that is worth."""

    def __init__(self, folder: RunFolder) -> None:
        # Where it is stays the same when the program goes elsewhere.
        folder.path = folder.path.absolute()
        self.folder = folder
        self._own = _own_tables(folder)
        """What this program gave of the settings that only the user may set."""
        self._router: Router | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def workflow(self) -> Workflow:
        return self.folder.workflow

    @property
    def config(self) -> Config:
        return self.folder.config

    def status(self) -> list[StageStatus]:
        """Where each stage stands: missing, partial, done, stale or altered, and why."""
        return pipeline.status(self.folder)

    def examples(self, split: str = "train") -> Dataset:
        """The rows of a split (train, dev, test) as a Hugging Face Dataset.

        Columns: id, rule, target, messages and tools, in the format that TRL's SFTTrainer and
        chat templates take. The last message is the label. Arguments keep their own keys and types
        (`datasets.Json`): Arrow does not merge them over the rows.
        Raises MissingExtraError without the package datasets.
        """
        from distill.data.chat import chat_row

        try:
            from datasets import Dataset, Features, Json, List, Value
        except ImportError:
            purpose = "reading examples as a Dataset"
            raise MissingExtraError.needing("datasets", "train", purpose) from None
        if split not in layout.SPLITS:
            known = ", ".join(layout.SPLITS)
            raise UsageError(f'there is no split "{split}"', hint=f"splits: {known}")
        pipeline.require_before(self.folder, train.STAGE)
        rows = read_records(self.path / layout.SPLITS[split], Example)
        text, objects = Value("string"), List(Json())
        columns = {"id": text, "rule": text, "target": text, "messages": objects, "tools": objects}
        return Dataset.from_list(
            [chat_row(row, self.workflow) for row in rows], features=Features(columns)
        )

    def train(
        self, *, redo: bool = False, progress: bool | Watcher | None = True, **settings: Any
    ) -> None:
        """Tune a student on the training split, as `distill train` does.

        settings: those of [train] in distill.toml, as `student="google/functiongemma-270m-it"`
        """
        self._router = None
        self.folder = run_stage_of(
            self.path, train.STAGE, {"train": settings, **self._own}, redo=redo, progress=progress
        )

    def evaluate(
        self,
        data: PathLike | Rows | None = None,
        *,
        teacher: Table | None = None,
        redo: bool = False,
        progress: bool | Watcher | None = True,
        **settings: Any,
    ) -> dict[str, dict[str, Scores]]:
        """Scores by data set (gold, test) and arm (base, tuned, baselines), as `distill eval`.

        data: a JSON Lines file of cases, or its rows as dictionaries, scored instead of gold and
            test; raises WorkflowError with every wrong row
        teacher: `vllm_command` and `vllm_args` for the backend vllm, where this is not the program
            that gave them to `make_data`; a run folder's own are not used
        settings: those of [evaluate] in distill.toml
        """
        from distill.evaluate.arms import read_scores

        self._own = overlaid(self._own, {"teacher": teacher or {}})
        tables = {"evaluate": settings, **self._own}
        names = score(self.path, data, tables, redo=redo, progress=progress)
        self.folder = RunFolder.open(self.path)
        return {name: read_scores(self.path, name) for name in names}

    def route(self, text: str, *, constrained: bool | None = None) -> Routed:
        """What the student, loaded once, does with a request; `constrained` beats the setting."""
        from distill.evaluate.route import Router

        if self._router is None:
            pipeline.require_trained(self.folder)
            self._router = Router(self.folder, LogWatcher().notice)
        return self._router.route(text, constrained=constrained)

    def report(self) -> Report:
        """Everything that report.json holds, from what the run has so far."""
        from distill.report import collect

        pipeline.require_current(self.folder)
        return collect(self.path)


def _own_tables(folder: RunFolder) -> dict[str, dict[str, Any]]:
    default, config = Config(), folder.config
    tables: dict[str, dict[str, Any]] = {}
    for setting in Config.personal_settings():
        section, name = setting
        if config.value(setting) != default.value(setting):
            tables.setdefault(section, {})[name] = config.value(setting)
    return tables


def planned_run(
    workflow: Workflow, out: PathLike | None, config: PathLike | None, settings: Settings
) -> RunFolder:
    """The run that the settings name, with nothing of it written."""
    given = None if config is None else given_path(config, "config")
    loaded = load_settings(given, found_file(workflow.sources[:1]), settings)
    if loaded.data.rows is not None:
        workflow = with_rows(workflow, loaded.data.rows)
    elif loaded.data.target == 0:
        raise UsageError(
            "is 0, and there are no rows of your own: nothing would be made",
            place="data.target",
            hint="give rows with --rows FILE, or a target",
        )
    return RunFolder.of(run_path(workflow, out), workflow, loaded)


def run_path(workflow: Workflow, out: PathLike | None) -> Path:
    """The run folder that `out` names, or the default one."""
    return Path("runs") / workflow.name if out is None else given_path(out, "out")


def reopened_run(path: Path, config: Path | None, settings: Settings) -> RunFolder:
    """The run as it was made, but for the [train] and [evaluate] of `config` and for `settings`."""
    run = RunFolder.open(path)
    tables: dict[str, Table] = {
        name: getattr(run.config, name).model_dump() for name in Config.model_fields
    }
    if config:
        given = Config.load(config)
        tables |= {"train": given.train.model_dump(), "evaluate": given.evaluate.model_dump()}
    own = personal_tables(config)
    loaded = Config.load(None, settings, beneath=overlaid(tables, own))
    return run.with_config(loaded, confirmed=set_by(own) | set_by(settings))


def run_stage_of(
    path: Path,
    stage: Stage,
    settings: Settings,
    *,
    config: Path | None = None,
    redo: bool = False,
    progress: bool | Watcher | None = True,
) -> RunFolder:
    """Run a stage of a run that has its data, unless it is done."""
    with locked(path), _watched(progress) as watcher:
        run = reopened_run(path, config, settings)
        if redo:
            pipeline.redo(run, stage)
        if not pipeline.run_stages(run, watcher, stage):
            watcher.notice(f"the stage {stage.name} is done: there is nothing to do")
        # Also where it was done with them before: what comes after it is to use them too.
        if run.settings != RunFolder.open(path).settings:
            run.record()
    return run


def score(
    path: Path,
    data: PathLike | Rows | None,
    settings: Settings,
    *,
    config: Path | None = None,
    redo: bool = False,
    progress: bool | Watcher | None = True,
) -> list[str]:
    """Evaluate every arm on gold and test, or on given rows; the names of the data sets scored."""
    if data is None:
        run = run_stage_of(
            path, evaluate.STAGE, settings, config=config, redo=redo, progress=progress
        )
        return evaluate.scored(run)
    from distill.workflow.cases import unscored_note

    with locked(path), _watched(progress) as watcher:
        run = reopened_run(path, config, settings)
        name, cases = _named_cases(data, run.workflow)
        pipeline.require_trained(run)
        if note := unscored_note(cases):
            watcher.notice(str(note))
        watcher.begins(evaluate.STAGE.name)
        evaluate.evaluate_cases(run, name, cases, watcher)
        return [name]


def _named_cases(data: PathLike | Rows, workflow: Workflow) -> tuple[str, tuple[Case, ...]]:
    """The cases in a file or of rows, and the name of their data set."""
    from distill.workflow.cases import cases_of_rows, read_cases

    if isinstance(data, str | os.PathLike):
        path = given_path(data, "data")
        cases = read_cases(path, tools=workflow.tools, rules=workflow.rules)
        return evaluate.dataset_name(path), cases
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        cause = f"is neither a path nor a list of rows, but {type(data).__name__}"
        hint = 'give a file, or rows as [{"user_content": "…", "tool_name": "…"}]'
        raise UsageError(cause, place="data", hint=hint)
    cases = cases_of_rows(data, tools=workflow.tools, rules=workflow.rules)
    return f"rows-{digest([case.id for case in cases])[:8]}", cases


def teacher_note(run: RunFolder, settings: Settings) -> str | None:
    """What the embedded teacher cannot do, for somebody who did not choose it."""
    kind = run.config.teacher.kind
    if kind != "grammar" or settings.get("teacher", {}).get("kind") or not run.config.data.target:
        return None
    from distill.teachers.grammar.teacher import LIMITS

    return f"no teacher was named. {LIMITS}"


def require_teacher(run: RunFolder) -> None:
    """A teacher or a budget that cannot be is said before anything of a run is written."""
    if not run.config.data.target:
        return
    make_teacher(run.config.teacher)
    Budget.of(run.config.teacher, spending(run))


def spending(run: RunFolder) -> list[LedgerEntry]:
    """What the run has spent so far, by stage."""
    path = run.path / layout.REPLIES
    if not path.exists():
        return []
    with ReplyStore(path) as replies:
        return replies.entries()


@contextmanager
def _watched(progress: bool | Watcher | None) -> Iterator[Watcher]:
    if isinstance(progress, Watcher):
        yield progress
    elif progress is not None and not isinstance(progress, bool):
        cause = f"is True, False or a Watcher, not {type(progress).__name__}"
        raise UsageError(cause, place="progress", hint="give True to see it, False for a log")
    elif progress:
        with progress_watcher() as watcher:
            yield watcher
    else:
        yield LogWatcher()
