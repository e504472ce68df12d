"""What several commands share: making data, forecasting, showing scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import api
from distill.cli import terminal
from distill.config import Config
from distill.ledger.prices import spending_line
from distill.ledger.replies import ReplyStore
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.sources import found_file
from distill.teachers.make import offline_teacher
from distill.workflow.load import load_workflow as read_workflow
from distill.workflow.model import Workflow
from distill.workflow.own_rows import with_rows

if TYPE_CHECKING:
    from distill.stages.forecast import Forecast


def load_workflow(rules: Path, tools: Path | None, gold: Path | None, no_python: bool) -> Workflow:
    """The workflow of the flags; stderr says before a tools.py is executed."""
    return read_workflow(
        rules,
        tools=tools,
        gold=gold,
        python=not no_python,
        notice=lambda text: terminal.err.print(f"note: {text}", markup=False),
    )


def with_configured_rows(workflow: Workflow, rows: Path | None) -> Workflow:
    """The workflow with the own rows of the flag, or of the distill.toml that gen would take."""
    found = found_file(workflow.sources[:1])
    beneath = Config.load(found) if found is not None and rows is None else Config()
    path = beneath.data.rows if rows is None else rows
    return workflow if path is None else with_rows(workflow, path)


def generate(
    workflow: Workflow, out: Path | None, config: Path | None, redo: bool, flags: dict[str, Any]
) -> api.Run:
    """The run, with its data made."""
    with terminal.watching() as watcher:
        made = api.make_data(
            workflow, out, **tables_of(flags), config=config, redo=redo, progress=watcher
        )
    if entries := [entry for entry in api.spending(made.folder) if entry.tokens]:
        said = spending_line(entries, made.config.teacher)
        terminal.err.print(f"spent so far: {said}", markup=False)
    return made


def forecast(run: RunFolder, count: int | None) -> Forecast:
    """What the run would send; with a probe of `count` scenarios that are asked for now."""
    from distill.stages import forecast as forecasts
    from distill.stages.session import TeacherSession

    settings = run.config.teacher
    if count is None:
        there = run.path / layout.REPLIES
        with ReplyStore(there if there.exists() else Path(":memory:")) as replies:
            return forecasts.forecast(run, offline_teacher(settings), replies)
    api.require_teacher(run)
    with locked(run.path, create=True), terminal.watching() as watcher:
        begun = RunFolder.create(run.path, run.workflow, run.config)
        watcher.begins("probe")
        with TeacherSession(begun, watcher.notice) as session:
            measured = forecasts.probe(begun, session, count, watcher.progress)
            return forecasts.forecast(begun, session.teacher, session.replies, measured)


def tables_of(flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Flags named section__setting, as tables."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        section, _, key = name.partition("__")
        sections.setdefault(section, {})[key] = value
    return sections


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


def suggest_next(command: str) -> None:
    terminal.err.print(f"next: {command}", markup=False)
