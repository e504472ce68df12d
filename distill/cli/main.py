"""The command line: parse, one call, echo. Nobody imports it."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import Any

import click

from distill import api
from distill.cli import data, shared, student, terminal
from distill.cli.options import (
    config_option,
    data_options,
    options,
    redo_option,
    setting,
    sharing_options,
    threads_option,
    workflow_options,
)
from distill.errors import DistillError, InputFileError, UsageError, WriteError
from distill.run import layout
from distill.run.folder import locked
from distill.train import processes
from distill.version import __version__
from distill.workflow.problems import visible


class Commands(click.Group):
    """The commands; an error of theirs names the flag by which a setting was given."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            flags = {p.name: p.opts[0] for p in command.params} if command else {}
            raise UsageError.of(
                problem._replace(place=flags.get(problem.place.replace(".", "__"), problem.place))
                for problem in error.problems
            ) from None


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
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
        processes.require_single_process(context.invoked_subcommand or "")


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
    no_python: bool,
    out: Path | None,
    config: Path | None,
    redo: bool,
    **flags: Any,
) -> None:
    """All of it: generate, train, evaluate, report."""
    from distill.evaluate.constrained import require_constrainable
    from distill.stages.evaluate import scored
    from distill.stages.pipeline import STUDENT, run_stages

    workflow = shared.load_workflow(rules, tools, gold, no_python)
    made = shared.generate(workflow, out, config, redo, flags)
    require_constrainable(made.folder.config)
    with locked(made.path), terminal.watching() as watcher:
        run_stages(made.folder, watcher, *STUDENT)
    shared.show_scores(made.path, scored(made.folder), as_json=False)
    path = api.run_path(workflow, out)
    terminal.out.print(f"report: {path / layout.REPORT_PAGE}", markup=False)


for command in (*data.COMMANDS, *student.COMMANDS):
    cli.add_command(command)


def _failure(error: OSError) -> DistillError:
    """For what no room has said better: only some errors tell that a write was refused."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    if full or error.filename is None:
        return WriteError.from_os(error, error.filename or "the output")
    cause = f"cannot be used: {error.strerror}"
    return InputFileError(cause, place=error.filename, hint="check its permissions and kind")


def _show(error: DistillError) -> int:
    """The exit code of an error that has been shown."""
    terminal.err.print(f"error: {error}", style="red", markup=False)
    processes.report_to_launcher(visible(str(error)))
    return error.exit_code


def main() -> None:
    """The entry point: every error that a user can meet becomes a message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A place without UTF-8 is shown escapes.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        if processes.is_main_process():
            said = io.StringIO()
            error.show(said)
            sys.stderr.write(visible(said.getvalue()))
        processes.report_to_launcher(visible(error.format_message()))
        code = UsageError.exit_code if isinstance(error, click.UsageError) else 1
    except DistillError as error:
        code = _show(error)
    except (KeyboardInterrupt, click.Abort):
        terminal.err.print("interrupted; the same command goes on from here", markup=False)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        code = _show(_failure(error))
    sys.exit(code)


if __name__ == "__main__":
    main()
