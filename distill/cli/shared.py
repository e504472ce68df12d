"""What the commands have in common: opening a run, going on with it, showing what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.cli import terminal
from distill.config import Config
from distill.ledger.budget import Budget
from distill.ledger.ledger import LedgerEntry
from distill.ledger.prices import spending_line
from distill.ledger.replies import ReplyStore
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.teachers.make import make_teacher, named_teacher
from distill.workflow.model import Workflow

if TYPE_CHECKING:
    from distill.stages.forecast import Forecast
    from distill.stages.stage import Stage


def generate(
    workflow: Workflow,
    rules: Path,
    out: Path | None,
    config: Path | None,
    redo: bool,
    flags: dict[str, Any],
) -> RunFolder:
    """The run folder, with its data made."""
    from distill.stages.pipeline import make_data

    run = planned(workflow, rules, out, config, flags)
    _require_teacher(run)
    with locked(run.path, create=True), terminal.watching() as watcher:
        begun = RunFolder.create(run.path, workflow, run.config, anew=redo)
        make_data(begun, watcher)
    if entries := [entry for entry in spending(begun) if entry.tokens]:
        said = spending_line(entries, run.config.teacher)
        terminal.err.print(f"spent so far: {said}", markup=False)
    return begun


def planned(
    workflow: Workflow, rules: Path, out: Path | None, config: Path | None, flags: dict[str, Any]
) -> RunFolder:
    """The run that the settings name, with nothing of it written."""
    settings = Config.load(_settings_file(config, rules.parent), _sections(flags))
    if settings.teacher.kind == "grammar" and flags.get("teacher__kind") is None:
        from distill.teachers.grammar.teacher import LIMITS

        terminal.err.print(f"note: no teacher was named. {LIMITS}", markup=False)
    return RunFolder.of(out or Path("runs") / workflow.name, workflow, settings)


def forecast(run: RunFolder, count: int | None) -> Forecast:
    """What the run would send; with a probe of `count` scenarios that are asked for now."""
    from distill.stages import forecast as forecasts
    from distill.stages.session import TeacherSession

    settings = run.config.teacher
    if count is None:
        there = run.path / layout.REPLIES
        with ReplyStore(there if there.exists() else Path(":memory:")) as replies:
            return forecasts.forecast(run, named_teacher(settings), replies)
    _require_teacher(run)
    with locked(run.path, create=True), terminal.watching() as watcher:
        begun = RunFolder.create(run.path, run.workflow, run.config)
        watcher.begins("probe")
        with TeacherSession(begun, watcher.notice) as session:
            measured = forecasts.probe(begun, session, count, watcher.progress)
            return forecasts.forecast(begun, session.teacher, session.replies, measured)


def _require_teacher(run: RunFolder) -> None:
    """A teacher or a budget that cannot be is said before anything of a run is written."""
    make_teacher(run.config.teacher)
    Budget.of(run.config.teacher, spending(run))


def spending(run: RunFolder) -> Sequence[LedgerEntry]:
    """What the run has spent so far, by stage."""
    path = run.path / layout.REPLIES
    if not path.exists():
        return ()
    with ReplyStore(path) as replies:
        return replies.entries()


def go_on(
    path: Path, stage: Stage, config: Path | None, redo: bool, flags: dict[str, Any]
) -> RunFolder:
    """Run a stage of a run that has its data."""
    from distill.stages import pipeline

    with locked(path), terminal.watching() as watcher:
        run = reopen(path, config, flags)
        if redo:
            pipeline.redo(run, stage)
        pipeline.run_stages(run, watcher, stage)
    return run


def evaluated(run: RunFolder) -> list[str]:
    """The data sets that the stage evaluate has scored, gold first."""
    counts = run.manifest.stages["evaluate"].counts
    return [name for name in ("gold", "test") if name in counts]


def reopen(path: Path, config: Path | None, flags: dict[str, Any]) -> RunFolder:
    """The run at `path` as it was made, but for --config's [train] and [evaluate] and for flags."""
    run = RunFolder.open(path)
    tables = {name: getattr(run.config, name).model_dump() for name in Config.model_fields}
    if config:
        given = Config.load(config)
        tables |= {"train": given.train.model_dump(), "evaluate": given.evaluate.model_dump()}
    for section, values in _sections(flags).items():
        tables[section] |= {key: value for key, value in values.items() if value is not None}
    return run.with_config(Config.load(None, tables))


def _sections(flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Flags named section__setting, as tables."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        section, _, key = name.partition("__")
        sections.setdefault(section, {})[key] = value
    return sections


def _settings_file(given: Path | None, beside: Path) -> Path | None:
    """--config, or distill.toml beside the rules, or distill.toml here."""
    if given:
        return given
    candidates = [beside / "distill.toml", Path("distill.toml")]
    return next((path for path in candidates if path.is_file()), None)


def show_scores(folder: Path, datasets: Sequence[str], as_json: bool) -> None:
    from distill.cli.tables import scores_table
    from distill.evaluate.arms import read_scores
    from distill.evaluate.tables import scores_json

    found = {name: read_scores(folder, name) for name in datasets}
    if as_json:
        objects = [scores_json(name, arms) for name, arms in found.items()]
        terminal.print_json(objects[0] if len(objects) == 1 else objects)
    else:
        for name, arms in found.items():
            terminal.out.print(scores_table(arms, name))


def next_is(command: str) -> None:
    terminal.err.print(f"next: {command}", markup=False)
