"""The commands for a student: trained, evaluated, asked, exported, compared."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from distill import commands, terminal
from distill.options import (
    PATH,
    config_option,
    json_option,
    options,
    redo_option,
    run_argument,
    setting,
    sharing_options,
    threads_option,
    vllm_options,
)
from distill.run.folder import locked
from distill.workflow import read_cases


@click.command()
@run_argument
@options(
    setting("train", "student"),
    setting("train", "seed"),
    setting("train", "epochs"),
    threads_option,
    setting("train", "learning_rate"),
    setting("train", "batch_size"),
    setting("train", "declarations"),
    setting("train", "tuning"),
    setting("train", "attention"),
    setting("train", "gradient_checkpointing"),
    sharing_options,
)
@config_option
@redo_option
def train(run: Path, config: Path | None, redo: bool, **flags: Any) -> None:
    """LoRA-tune a student on RUN's training split.

    Settings are those that RUN was made with; --config and flags change them, and are recorded.
    """
    commands.go_on(run, "train", "train", config, redo, flags)
    terminal.out.print(str(run / "7-train" / "adapter"), markup=False)
    commands.next_is(f"distill eval {shlex.quote(str(run))}")


@click.command(name="eval")
@run_argument
@click.option("--data", type=PATH, help="Evaluate on this JSON Lines file instead.")
@threads_option
@options(setting("evaluate", "backend"), vllm_options)
@json_option
@config_option
@redo_option
def evaluate(
    run: Path,
    data: Path | None,
    as_json: bool,
    config: Path | None,
    redo: bool,
    **flags: Any,
) -> None:
    """Score base, tuned and baselines on the test split and on gold, or on a file."""
    if data is None:
        made = commands.go_on(run, "evaluate", "evaluate", config, redo, flags)
        scored = commands.evaluated(made)
    else:
        from distill.evaluate.stage import evaluate_file

        with locked(run), terminal.TerminalWatcher() as watcher:
            made = commands.reopen(run, config, flags)
            cases = read_cases(data, tools=made.workflow.tools)
            watcher.begins("evaluate")
            scored = [evaluate_file(made, data, cases, watcher.progress, watcher.notice)]
    commands.show_scores(run, scored, as_json)


@click.command()
@run_argument
@click.argument("text")
@threads_option
@json_option
def route(run: Path, text: str, as_json: bool, **flags: Any) -> None:
    """Route one request with RUN's tuned student."""
    from distill.evaluate.stage import route as ask

    parsed, raw = ask(commands.reopen(run, None, flags), text)
    if as_json:
        calls = [call.model_dump() for call in parsed.calls]
        terminal.print_json(
            {"calls": calls, "reply": parsed.reply, "malformed": parsed.malformed, "raw": raw}
        )
    elif parsed.calls:
        for call in parsed.calls:
            terminal.out.print(f"{call.name} {_arguments(call.arguments)}", markup=False)
    else:
        terminal.out.print(raw if parsed.malformed else parsed.reply, markup=False)


def _arguments(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False)


COMMANDS = (train, evaluate, route)
