"""The command line: parse, one call, echo. Nobody imports it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from distill import __version__, commands, student_commands, terminal
from distill.errors import DistillError, UsageError, WriteError
from distill.options import (
    PATH,
    config_option,
    data_options,
    json_option,
    options,
    redo_option,
    run_argument,
    setting,
    sharing_options,
    threads_option,
    workflow_options,
)
from distill.run.folder import RunFolder, locked
from distill.train import processes
from distill.workflow import lint, load_workflow, scaffold


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="distill")
@click.pass_context
def cli(context: click.Context) -> None:
    """Move a team's routing workflow, tools and rules, into a small model.

    \b
    distill init shop                    a workflow to start from
    distill check --rules shop/rules.md  what is wrong or thin in it
    distill run --rules shop/rules.md    data, training, evaluation, report
    distill route runs/shop "where is my parcel?"
    """
    if context.invoked_subcommand != "train":
        processes.require_one(context.invoked_subcommand or "")


@cli.command()
@click.argument("folder", type=PATH, metavar="DIR")
def init(folder: Path) -> None:
    """Write a small commented workflow to start from into DIR."""
    for path in scaffold(folder):
        terminal.out.print(str(path), markup=False)
    commands.next_is(f"distill check --rules {shlex.quote(str(folder / 'rules.md'))}")


@cli.command()
@workflow_options
@json_option
def check(rules: Path, tools: Path | None, gold: Path | None, as_json: bool) -> None:
    """Read a workflow, report every error with its line, and advise on what is thin."""
    workflow = load_workflow(rules, tools=tools, gold=gold)
    advice = lint(workflow)
    if as_json:
        terminal.print_json(
            {
                "workflow": workflow.name,
                "fingerprint": workflow.fingerprint,
                "rules": [rule.id for rule in workflow.rules],
                "tools": [tool.name for tool in workflow.tools],
                "gold": len(workflow.gold),
                "advice": [problem._asdict() for problem in advice],
            }
        )
        return
    for problem in advice:
        terminal.out.print(f"advice: {problem}", markup=False)
    terminal.out.print(
        f"{workflow.title}: {len(workflow.rules)} rules, {len(workflow.tools)} tools, "
        f"{len(workflow.gold)} gold cases; no errors",
        markup=False,
    )


@cli.command()
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
    out: Path | None,
    probe: int | None,
    config: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Forecast the requests, tokens, money and time of gen; only --probe spends any."""
    workflow = load_workflow(rules, tools=tools, gold=gold)
    run = commands.planned(workflow, rules, out, config, flags)
    found = commands.forecast(run, probe)
    if as_json:
        terminal.print_json(found.model_dump(mode="json"))
    else:
        commands.show_forecast(run, found)


@cli.command()
@workflow_options
@data_options
@config_option
@redo_option
def gen(
    rules: Path,
    tools: Path | None,
    gold: Path | None,
    out: Path | None,
    config: Path | None,
    redo: bool,
    **flags: Any,
) -> None:
    """Generate, validate, deduplicate, balance and split training data."""
    workflow = load_workflow(rules, tools=tools, gold=gold)
    made = commands.generate(workflow, rules, out, config, redo, flags)
    terminal.out.print(str(made.path / "6-split"), markup=False)
    commands.next_is(f"distill train {shlex.quote(str(made.path))}")


@cli.command()
@run_argument
@json_option
def report(run: Path, as_json: bool) -> None:
    """Write RUN/report.md and RUN/report.json from what RUN holds so far."""
    from distill.pipeline import make_report
    from distill.report import collect

    with locked(run), terminal.TerminalWatcher() as watcher:
        make_report(RunFolder.open(run), watcher)
    if as_json:
        terminal.print_json(collect(run).model_dump(mode="json"))
    else:
        terminal.out.print(str(run / "report.md"), markup=False)


@cli.command()
@run_argument
@json_option
def status(run: Path, as_json: bool) -> None:
    """Say for each stage of RUN how it stands, what is owed, and what was spent."""
    from distill.pipeline import status as stages
    from distill.teachers.prices import SPENDING, spending_rows

    opened = RunFolder.open(run)
    states = stages(opened)
    if not as_json:
        terminal.out.print(terminal.table(str(run), ["stage", "state", "detail"], states))
    spent = commands.spending(opened)
    if as_json:
        terminal.print_json(
            {
                "stages": [state._asdict() for state in states],
                "spent": [entry.model_dump() for entry in spent],
            }
        )
    elif spent:
        rows = spending_rows(spent, opened.config.teacher)
        terminal.out.print(terminal.table("spent", SPENDING, rows))


@cli.command()
@run_argument
@click.option("--rejected", is_flag=True, help="What was rejected, with the reason.")
@click.option("--rule", help="Only this rule.")
@click.option("-n", "count", type=click.IntRange(min=1), default=10, show_default=True)
@json_option
def show(run: Path, rejected: bool, rule: str | None, count: int, as_json: bool) -> None:
    """Show examples of RUN, or what was rejected and why."""
    from distill.pipeline import require_unaltered
    from distill.run.browse import browse

    opened = RunFolder.open(run)
    require_unaltered(opened)
    rows = browse(opened, rejected=rejected, rule=rule, count=count)
    if as_json:
        terminal.print_json([row._asdict() for row in rows])
        return
    columns = ["rule", "user", "target", "why" if rejected else "split"]
    terminal.out.print(terminal.table("", columns, rows))


@cli.command(name="run")
@workflow_options
@data_options
@options(
    setting("train", "student"),
    setting("train", "seed", "--train-seed"),
    setting("train", "epochs"),
    threads_option,
    sharing_options,
    setting("evaluate", "backend"),
)
@config_option
@redo_option
def run_all(
    rules: Path,
    tools: Path | None,
    gold: Path | None,
    out: Path | None,
    config: Path | None,
    redo: bool,
    **flags: Any,
) -> None:
    """All of it: generate, train, evaluate, report."""
    from distill.pipeline import run_from

    workflow = load_workflow(rules, tools=tools, gold=gold)
    made = commands.generate(workflow, rules, out, config, redo, flags)
    with locked(made.path), terminal.TerminalWatcher() as watcher:
        run_from(made, watcher, "train", "report")
    commands.show_scores(made.path, commands.evaluated(made), as_json=False)
    terminal.out.print(f"report: {made.path / 'report.md'}", markup=False)


for command in student_commands.COMMANDS:
    cli.add_command(command)


def main() -> None:
    """The entry point: every error that a user can meet becomes a message and an exit code."""
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        if processes.leads():
            error.show()
        code = UsageError.exit_code if isinstance(error, click.UsageError) else 1
    except DistillError as error:
        terminal.err.print(f"error: {error}", style="red", markup=False)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.err.print("interrupted; the same command goes on from here", markup=False)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        failed = WriteError.from_os(error, error.filename or "the output")
        terminal.err.print(f"error: {failed}", style="red", markup=False)
        code = failed.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
