"""The commands for a student: trained, evaluated, asked, exported, compared."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill import api, strict_json
from distill.cli import shared, terminal
from distill.cli.options import (
    PATH,
    config_option,
    constrained_option,
    json_option,
    options,
    redo_option,
    run_argument,
    setting,
    sharing_options,
    threads_option,
    vllm_options,
)
from distill.run import layout
from distill.run.folder import locked
from distill.stages.train import STAGE as TRAIN
from distill.train import processes
from distill.workflow import read_cases

if TYPE_CHECKING:
    from distill.evaluate.confidence import Confidence


@click.command()
@run_argument
@options(
    setting("train", "student"),
    setting("train", "seed"),
    setting("train", "epochs"),
    threads_option,
    setting("train", "learning_rate"),
    setting("train", "batch_size"),
    setting("train", "decision_weight"),
    setting("train", "declarations"),
    setting("train", "tuning"),
    setting("train", "precision"),
    setting("train", "attention"),
    setting("train", "gradient_checkpointing"),
    sharing_options,
)
@config_option
@redo_option
def train(run: Path, config: Path | None, redo: bool, **flags: Any) -> None:
    """Tune a student on RUN's training split.

    Settings are those that RUN was made with; --config and flags change them, and are recorded.
    `accelerate launch -m distill train RUN` and torchrun share the work among processes.
    """
    if not processes.is_main_process():
        processes.run_as_worker(lambda: _join(run))
    with processes.main_process_scope(), terminal.watching() as watcher:
        api.run_stage_of(
            run,
            TRAIN,
            shared.tables_of(flags),
            config=config,
            redo=redo,
            progress=watcher,
        )
    terminal.out.print(str(run / layout.ADAPTER), markup=False)
    shared.suggest_next(f"distill eval {shlex.quote(str(run))}")


def _join(run: Path) -> None:
    from distill.stages.train import join_training

    join_training(run)


@click.command(name="eval")
@run_argument
@click.option("--data", type=PATH, help="Evaluate on this JSON Lines file instead.")
@threads_option
@options(constrained_option, setting("evaluate", "backend"), vllm_options)
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
    with terminal.watching() as watcher:
        scored = api.score(
            run, data, shared.tables_of(flags), config=config, redo=redo, progress=watcher
        )
    shared.show_scores(run, scored, as_json)


@click.command()
@run_argument
@click.argument("text")
@threads_option
@constrained_option
@json_option
def route(run: Path, text: str, as_json: bool, **flags: Any) -> None:
    """Route one request with RUN's tuned student.

    A request that the student cannot be asked, as it is longer than its context, is malformed.
    """
    from distill.evaluate.route import Router
    from distill.stages.pipeline import require_trained

    opened = api.reopened_run(run, None, shared.tables_of(flags))
    require_trained(opened)
    answer = Router(opened, partial(terminal.err.print, markup=False)).route(text)
    sure = answer.probabilities
    if as_json:
        shown: Any = {"calls": [call.model_dump() for call in answer.calls], "reply": answer.reply}
        shown |= {"malformed": answer.malformed, "repaired": answer.repaired}
        shown |= {"detail": answer.detail, "raw": answer.raw}
        shown["confidence"] = answer.confidence
        shown["tools"] = sure.tools if sure else None
        terminal.print_json(shown)
        return
    for call in answer.calls:
        terminal.out.print(f"{call.name} {_arguments(call.arguments)}", markup=False)
    if not answer.calls:
        terminal.out.print(answer.raw if answer.malformed else answer.reply, markup=False)
    if answer.malformed:
        terminal.err.print(f"malformed: {answer.detail}", style="red", markup=False)
    if answer.repaired and not answer.malformed:
        terminal.err.print(answer.detail, markup=False)
    if sure:
        # Beside the answer, for who reads it; programs read --json.
        terminal.err.print(
            f"confidence {_percent(answer.confidence)}; {_shares(sure)}", markup=False
        )


def _shares(sure: Confidence) -> str:
    likely = sorted({**sure.tools, "words": sure.no_call}.items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {_percent(p)}" for name, p in likely[:3])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _arguments(arguments: Any) -> str:
    return strict_json.encode(arguments)


@click.command()
@run_argument
@click.option("--modes", default="full,names,none", show_default=True, help="What to try.")
@click.option("--data", type=PATH, help="Score on this JSON Lines file instead.")
@options(
    setting("train", "student"),
    setting("train", "seed"),
    setting("train", "epochs"),
    threads_option,
    setting("train", "learning_rate"),
    setting("train", "batch_size"),
    setting("train", "tuning"),
    setting("train", "attention"),
    setting("train", "gradient_checkpointing"),
    sharing_options,
)
@json_option
@config_option
@redo_option
def ablate(
    run: Path,
    modes: str,
    data: Path | None,
    as_json: bool,
    config: Path | None,
    redo: bool,
    **flags: Any,
) -> None:
    """Train a student for each way of declaring tools; accuracy against prompt tokens.

    The prompt shows the tools in full, by name, or not at all (full, names, none). Students stand
    in RUN/ablate, RUN itself stays as it is.
    """
    from distill import ablate as ablation
    from distill.cli.tables import ablation_table
    from distill.stages.evaluate import dataset_name

    wanted = ablation.parse_modes(modes)
    with locked(run), terminal.watching() as watcher:
        made = api.reopened_run(run, config, shared.tables_of(flags))
        datasets = None
        if data is not None:
            cases = read_cases(data, tools=made.workflow.tools, rules=made.workflow.rules)
            datasets = {dataset_name(data): cases}
        found = ablation.ablate(made, wanted, watcher, data=datasets, redo=redo)
    if as_json:
        terminal.print_json(found.model_dump(mode="json"))
        return
    terminal.out.print(ablation_table(found))
    terminal.out.print(found.advice, markup=False)
    if found.choice is None:
        return
    given = {"config": config, **{name.partition("__")[2]: flags[name] for name in flags}}
    words = ["distill", "train", str(run), "--declarations", found.choice]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    shared.suggest_next(shlex.join([*words, "--redo"]))


@click.command()
@run_argument
@click.option(
    "--format",
    "formats",
    type=click.Choice(("hf", "gguf", "ollama")),
    multiple=True,
    default=("hf",),
    show_default=True,
    help="In what form; may be given several times.",
)
@click.option("--out", type=PATH, help="Where the exports go. [default: RUN/export]")
@click.option(
    "--quantization",
    type=click.Choice(("f32", "f16", "bf16", "q8_0")),
    default="f16",
    show_default=True,
    help="How gguf and ollama store weights.",
)
@threads_option
@json_option
@redo_option
def export(
    run: Path,
    formats: tuple[str, ...],
    out: Path | None,
    quantization: str,
    as_json: bool,
    redo: bool,
    **flags: Any,
) -> None:
    """Write RUN's tuned student as transformers, llama.cpp or Ollama load it.

    Each export is loaded again and asked 20 prompts; where it answers otherwise than the student
    did, that is said.
    """
    from distill.export.export import export as write

    with locked(run, reading=True), terminal.watching() as watcher:
        watcher.begins("export")
        made = write(
            api.reopened_run(run, None, shared.tables_of(flags)),
            formats,
            out=out,
            quantization=quantization,
            redo=redo,
            progress=watcher.progress,
            notice=watcher.notice,
        )
    if as_json:
        terminal.print_json([one.as_json() for one in made])
    for one in made:
        if not as_json:
            state = "written" if one.made else "up to date"
            same = f"{one.parity.same} of {one.parity.of} answers as the student's"
            terminal.out.print(f"{one.folder}: {state}, {same}", markup=False)
        if not one.parity.exact:
            terminal.err.print(
                f"{one.format} answers otherwise: {one.parity.difference}",
                style="bold yellow",
                markup=False,
            )
        for note in one.notes:
            terminal.err.print(f"note: {one.format}: {note}", markup=False)


@click.command()
@run_argument
@click.argument("repository", metavar="OWNER/NAME")
@click.option(
    "--format",
    "format_",
    type=click.Choice(("hf", "gguf", "adapter")),
    default="hf",
    show_default=True,
    help="What is published.",
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--dry-run", is_flag=True, help="List the files and their sizes; send nothing.")
@threads_option
@json_option
def push(
    run: Path,
    repository: str,
    format_: str,
    private: bool,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Publish RUN's tuned student as OWNER/NAME at the model hub, exported first if need be."""
    from distill.export.push import push as publish

    with locked(run, reading=True), terminal.watching() as watcher:
        watcher.begins("push")
        done = publish(
            api.reopened_run(run, None, shared.tables_of(flags)),
            repository,
            format=format_,
            private=private,
            dry_run=dry_run,
            notice=watcher.notice,
        )
    if as_json:
        files = [file._asdict() for file in done.files]
        terminal.print_json({"repository": repository, "url": done.url, "files": files})
        return
    rows = [(file.name, f"{file.size:,}") for file in done.files]
    title = f"{repository}: {'would be sent' if dry_run else 'sent'}"
    terminal.out.print(terminal.table(title, ["file", "bytes"], rows))
    if done.url:
        terminal.out.print(done.url, markup=False)


COMMANDS = (train, evaluate, route, ablate, export, push)
