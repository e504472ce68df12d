"""The commands for a workflow and its data: started, checked, forecast, generated, looked at."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from distill import api
from distill.cli import shared, terminal
from distill.cli.options import (
    PATH,
    config_option,
    data_options,
    json_option,
    redo_option,
    run_argument,
    setting,
    workflow_options,
)
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.workflow import explain, explanation_page, lint, scaffold
from distill.workflow.own_rows import own_rows_line


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
def init(folder: Path) -> None:
    """Write a small commented workflow to start from into DIR."""
    for path in scaffold(folder):
        terminal.out.print(str(path), markup=False)
    shared.suggest_next(f"distill check --rules {shlex.quote(str(folder / 'rules.md'))}")


@click.command()
@workflow_options
@setting("data", "rows")
@click.option("--explain", "explained", is_flag=True, help="Show each rule as distill reads it.")
@json_option
def check(
    rules: Path,
    tools: Path | None,
    gold: Path | None,
    no_python: bool,
    data__rows: Path | None,
    explained: bool,
    as_json: bool,
) -> None:
    """Read a workflow, report every error with its line, and advise on what is thin."""
    workflow = shared.load_workflow(rules, tools, gold, no_python)
    workflow = shared.with_configured_rows(workflow, data__rows)
    advice = lint(workflow)
    readings = explain(workflow) if explained else []
    if as_json:
        explanation = {"prose": workflow.prose, "explanation": readings} if explained else {}
        terminal.print_json(
            {
                "workflow": workflow.name,
                "fingerprint": workflow.fingerprint,
                "rules": [rule.id for rule in workflow.rules],
                "tools": [tool.name for tool in workflow.tools],
                "gold": len(workflow.gold),
                "rows": len(workflow.rows),
                "advice": [problem._asdict() for problem in advice],
                **explanation,
            }
        )
        return
    if explained and workflow.prose:
        terminal.out.print(f"prose: {workflow.prose}\n", markup=False, highlight=False)
    for reading in readings:
        for line in explanation_page(reading):
            terminal.out.print(line, markup=False, highlight=False)
        terminal.out.print()
    for problem in advice:
        terminal.out.print(f"advice: {problem}", markup=False)
    own = f", {own_rows_line(workflow)}" if workflow.rows else ""
    terminal.out.print(
        f"{workflow.title}: {len(workflow.rules)} rules, {len(workflow.tools)} tools, "
        f"{len(workflow.gold)} gold cases{own}; no errors",
        markup=False,
    )


@click.command()
@workflow_options
@data_options
@click.option(
    "--probe",
    type=click.IntRange(min=1),
    metavar="N",
    help="Ask for N scenarios and measure; their replies are kept for the run.",
)
@config_option
@json_option
def plan(
    rules: Path,
    tools: Path | None,
    gold: Path | None,
    no_python: bool,
    out: Path | None,
    probe: int | None,
    config: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Forecast the requests, tokens, money and time of gen; only --probe spends any."""
    from distill.cli.tables import forecast_notes, forecast_table

    workflow = shared.load_workflow(rules, tools, gold, no_python)
    settings = shared.tables_of(flags)
    run = api.planned_run(workflow, out, config, settings)
    if note := api.teacher_note(run, settings):
        terminal.err.print(f"note: {note}", markup=False)
    found = shared.forecast(run, probe)
    if as_json:
        terminal.print_json(found.model_dump(mode="json"))
    else:
        terminal.out.print(forecast_table(run, found))
        for line in forecast_notes(run, found):
            terminal.out.print(line, markup=False)


@click.command()
@workflow_options
@data_options
@config_option
@redo_option
def gen(
    rules: Path,
    tools: Path | None,
    gold: Path | None,
    no_python: bool,
    out: Path | None,
    config: Path | None,
    redo: bool,
    **flags: Any,
) -> None:
    """Generate, validate, deduplicate, balance and split training data."""
    workflow = shared.load_workflow(rules, tools, gold, no_python)
    made = shared.generate(workflow, out, config, redo, flags)
    path = api.run_path(made.workflow, out)
    terminal.out.print(str(path / layout.SPLIT), markup=False)
    shared.suggest_next(f"distill train {shlex.quote(str(path))}")


@click.command()
@run_argument
@json_option
def report(run: Path, as_json: bool) -> None:
    """Write RUN/report.md and RUN/report.json from what RUN holds so far.

    Where RUN cannot be written, the report is printed instead.
    """
    from distill.report import collect, render
    from distill.stages.pipeline import make_report, require_current

    with locked(run, reading=True), terminal.watching() as watcher:
        opened, kept = RunFolder.open(run), os.access(run, os.W_OK)
        if kept:
            make_report(opened, watcher)
        else:
            require_current(opened)
            watcher.notice(f"{run} cannot be written: its report is shown, and not kept")
    if as_json:
        terminal.print_json(collect(run).model_dump(mode="json"))
    elif kept:
        terminal.out.print(str(run / layout.REPORT_PAGE), markup=False)
    else:
        terminal.out.print(render(collect(run)), markup=False, end="")


@click.command()
@run_argument
@json_option
def status(run: Path, as_json: bool) -> None:
    """Say for each stage of RUN how it stands, what is owed, and what was spent."""
    from distill.ledger.prices import SPENDING_COLUMNS, spending_rows
    from distill.stages.pipeline import status as stages

    opened = RunFolder.open(run)
    states = stages(opened)
    if not as_json:
        terminal.out.print(terminal.table(str(run), ["stage", "state", "detail"], states))
    spent = api.spending(opened)
    if as_json:
        terminal.print_json(
            {
                "stages": [state._asdict() for state in states],
                "spent": [entry.model_dump() for entry in spent],
            }
        )
    elif spent:
        rows = spending_rows(spent, opened.settings.config.teacher)
        terminal.out.print(terminal.table("spent", SPENDING_COLUMNS, rows))


@click.command()
@run_argument
@click.option("--rejected", is_flag=True, help="What was rejected, with the reason.")
@click.option("--rule", help="Only this rule.")
@click.option("-n", "count", type=click.IntRange(min=1), default=10, show_default=True)
@json_option
def show(run: Path, rejected: bool, rule: str | None, count: int, as_json: bool) -> None:
    """Show examples of RUN, or what was rejected and why."""
    from distill.run.browse import browse
    from distill.stages.pipeline import require_unaltered

    opened = RunFolder.open(run)
    require_unaltered(opened)
    rows = browse(opened, rejected=rejected, rule=rule, count=count)
    if as_json:
        terminal.print_json([row._asdict() for row in rows])
        return
    columns = ["rule", "user", "target", "why" if rejected else "split"]
    terminal.out.print(terminal.table("", columns, rows))


COMMANDS = (init, check, plan, gen, report, status, show)
