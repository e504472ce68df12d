"""The flow: STAGES, one after the other, each reading files that an earlier one wrote.

A stage's work is a room of its own; here stand only the order, what each stage reads, writes and
depends on, and the loop that asks again for what was sieved out.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distill import balance, checks, dedup, plan, split
from distill.errors import AlteredRunError, GateError, RunError, StaleRunError
from distill.files import write_text
from distill.generate import generate
from distill.records import Candidate, Cell, Example, Failure, Json, Rejection, Scenario, Sifted
from distill.run.folder import RunFolder
from distill.run.manifest import StageStatus
from distill.run.replies import ReplyStore
from distill.run.stage import Context, Stage, Watcher, run_stage, stage_status
from distill.split import StageCount
from distill.teachers.make import make_teacher

# The share asked for above the quotas in the first round, as most of it is sieved out again.
RESERVE = 0.25


def _plan(context: Context) -> Json:
    run = context.run
    planned = plan.scenarios(run.workflow, run.config.data, context.asked)
    context.write("1-plan/scenarios.jsonl", planned)
    return {"scenarios": len(planned)}


def _generate(context: Context) -> Json:
    run, scenarios = context.run, context.read("1-plan/scenarios.jsonl", Scenario)
    teacher = make_teacher(run.config.teacher, notice=context.watcher.notice)

    async def ask() -> tuple[list[Candidate], list[Failure]]:
        try:
            return await generate(
                scenarios,
                run.workflow,
                teacher,
                replies,
                run.config.teacher,
                progress=context.watcher.progress,
            )
        finally:
            await teacher.close()

    with ReplyStore(run.path / "2-generate" / "replies.sqlite") as replies:
        candidates, failures = asyncio.run(ask())
    context.write("2-generate/candidates.jsonl", candidates)
    context.write("2-generate/failures.jsonl", failures)
    return {"in": len(scenarios), "candidates": len(candidates), "failures": len(failures)}


def _validate(context: Context) -> Json:
    candidates = context.read("2-generate/candidates.jsonl", Candidate)
    sifted = checks.validate(candidates, context.run.workflow, context.run.config.data)
    return _sieved(context, "3-validate", sifted)


def _dedup(context: Context) -> Json:
    run, examples = context.run, context.read("3-validate/examples.jsonl", Example)
    return _sieved(context, "4-dedup", dedup.dedup(examples, run.workflow.gold, run.config.data))


def _balance(context: Context) -> Json:
    run, examples = context.run, context.read("4-dedup/examples.jsonl", Example)
    quotas = plan.quotas(run.workflow, run.config.data.target)
    return _sieved(context, "5-balance", balance.balance(examples, quotas, run.config.data.seed))


def _split(context: Context) -> Json:
    run, examples = context.run, context.read("5-balance/examples.jsonl", Example)
    splits = split.split(examples, run.config.data)
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    for name, part in parts.items():
        context.write(f"6-split/{name}.jsonl", part)
    for note in splits.notes:
        context.watcher.notice(note)
    card = split.dataset_card(run.workflow, splits, run.config, _funnel(context))
    write_text(run.path / "6-split" / "README.md", card)
    return {name: len(part) for name, part in parts.items()}


def _funnel(context: Context) -> list[StageCount]:
    """What went into each stage up to the split, and what came out."""
    candidates = context.read("2-generate/candidates.jsonl", Candidate)
    failures = context.read("2-generate/failures.jsonl", Failure)
    counts = [StageCount.of("generate", len(candidates), failures)]
    for stage in DATA_STAGES[2:5]:
        kept, rejected = stage.writes
        counts.append(
            StageCount.of(
                stage.name,
                len(context.read(kept, Example)),
                context.read(rejected, Rejection),
            )
        )
    return counts


def _sieved(context: Context, folder: str, sifted: Sifted[Example]) -> Json:
    """Write what a sieve kept and rejected, and count it."""
    context.write(f"{folder}/examples.jsonl", sifted.kept)
    context.write(f"{folder}/rejected.jsonl", sifted.rejected)
    reasons = Counter(rejection.reason.value for rejection in sifted.rejected)
    return {
        "in": len(sifted.kept) + len(sifted.rejected),
        "kept": len(sifted.kept),
        "rejected": dict(sorted(reasons.items())),
    }


def _train(context: Context) -> Json:
    from distill.train.stage import run_training

    return run_training(context.run, context.watcher.progress, context.watcher.notice)


def _evaluate(context: Context) -> Json:
    from distill.evaluate.stage import run_evaluation

    return run_evaluation(context.run, context.watcher.progress)


def _report(context: Context) -> Json:
    from distill.report import write_report

    return write_report(context.run.path)


def _sieve_files(folder: str) -> tuple[str, ...]:
    return (f"{folder}/examples.jsonl", f"{folder}/rejected.jsonl")


SPLITS = ("6-split/train.jsonl", "6-split/dev.jsonl", "6-split/test.jsonl")
DATA = ("workflow", "data", "teacher", "prompts")

STAGES: tuple[Stage, ...] = (
    Stage("plan", "1-plan", DATA, (), ("1-plan/scenarios.jsonl",), _plan),
    Stage(
        "generate",
        "2-generate",
        DATA,
        ("1-plan/scenarios.jsonl",),
        ("2-generate/candidates.jsonl", "2-generate/failures.jsonl"),
        _generate,
    ),
    Stage(
        "validate",
        "3-validate",
        DATA,
        ("2-generate/candidates.jsonl",),
        _sieve_files("3-validate"),
        _validate,
    ),
    Stage(
        "dedup",
        "4-dedup",
        DATA,
        ("3-validate/examples.jsonl",),
        _sieve_files("4-dedup"),
        _dedup,
    ),
    Stage(
        "balance",
        "5-balance",
        DATA,
        ("4-dedup/examples.jsonl",),
        _sieve_files("5-balance"),
        _balance,
    ),
    Stage(
        "split",
        "6-split",
        DATA,
        ("5-balance/examples.jsonl",),
        (*SPLITS, "6-split/README.md"),
        _split,
    ),
    Stage("train", "7-train", ("train",), SPLITS[:2], ("7-train/adapter",), _train),
    Stage(
        "evaluate",
        "8-evaluate",
        ("train", "evaluate"),
        (*SPLITS, "7-train/adapter"),
        ("8-evaluate/test", "8-evaluate/gold"),
        _evaluate,
    ),
    Stage("report", ".", (), ("8-evaluate",), ("report.md", "report.json"), _report),
)
NAMES = tuple(stage.name for stage in STAGES)
DATA_STAGES = STAGES[:6]


def make_data(run: RunFolder, watcher: Watcher) -> None:
    """Everything up to the split: plan, ask, sieve, and ask again for what is missing.

    The stages of a round are all repeated until the quotas are met, as they are cheap and the
    teacher's replies are kept: what a killed run leaves behind can then never depend on where it
    was killed. Raises GateError when the quotas cannot be met; the data that there is stays.
    """
    if _ready(run, DATA_STAGES):
        return
    quotas = plan.quotas(run.workflow, run.config.data.target)
    context = Context(run, watcher, {c: math.ceil(n * (1 + RESERVE)) for c, n in quotas.items()})
    for _ in range(run.config.data.max_rounds):
        for stage in DATA_STAGES[:5]:
            _run(stage, context)
        kept = context.read("5-balance/examples.jsonl", Example)
        short = balance.deficits(kept, quotas)
        if not short:
            break
        context = replace(context, asked=_ask_more(context.asked, quotas, short))
    _run(DATA_STAGES[5], context)
    if short:
        raise _short_of(quotas, short, run)


def run_from(run: RunFolder, watcher: Watcher, first: str, last: str) -> None:
    """Run the stages from `first` to `last` that are not done yet.

    Raises RunError when an earlier stage is missing, AlteredRunError or StaleRunError when a
    finished one no longer is what it was.
    """
    wanted = STAGES[NAMES.index(first) : NAMES.index(last) + 1]
    for before in STAGES[: NAMES.index(first)]:
        if not _ready(run, [before]):
            raise RunError(
                f"the stage {before.name} has not run yet",
                place=run.path,
                hint=_way_to(before.name, run.path),
            )
    for stage in wanted:
        if not _ready(run, [stage]):
            _run(stage, Context(run, watcher))


def make_report(run: RunFolder, watcher: Watcher) -> None:
    """The report on what the run holds so far, however far it is."""
    require_unaltered(run)
    _run(STAGES[-1], Context(run, watcher))


def redo(run: RunFolder, first: str) -> None:
    """Forget the stages from `first` on, and a training's checkpoints with them."""
    run.forget(NAMES[NAMES.index(first) :])
    if first == "train":
        shutil.rmtree(run.path / "7-train" / "checkpoints", ignore_errors=True)


def status(run: RunFolder) -> list[StageStatus]:
    """Where each stage stands; what was made from an altered or stale stage is stale."""
    states: list[StageStatus] = []
    for stage in STAGES:
        state = stage_status(stage, run)
        broken = next((s for s in states if s.state in ("altered", "stale")), None)
        if state.state == "done" and broken:
            state = StageStatus(stage.name, "stale", f"{broken.stage} is {broken.state}")
        states.append(state)
    return states


def require_unaltered(run: RunFolder) -> None:
    """Raise AlteredRunError when a finished stage's file is not what it wrote, reports aside."""
    for stage in STAGES[:-1]:
        state = stage_status(stage, run)
        if state.state == "altered":
            raise _altered(state, run)


def _run(stage: Stage, context: Context) -> None:
    """Do a stage's work and remember it; what came after it is forgotten first."""
    context.run.forget(NAMES[NAMES.index(stage.name) :])
    run_stage(stage, context)


def _ready(run: RunFolder, stages: Sequence[Stage]) -> bool:
    """Whether all of `stages` are done; a stale or altered one is an error."""
    found = [stage_status(stage, run) for stage in stages]
    for state in found:
        if state.state == "altered":
            raise _altered(state, run)
        if state.state == "stale":
            raise StaleRunError(
                f"the stage {state.stage} was made with something else: {state.detail}",
                place=run.path,
                hint=f"use the same settings, or make it again: "
                f"{_way_to(state.stage, run.path)} --redo",
            )
    return all(state.state == "done" for state in found)


def _altered(state: StageStatus, run: RunFolder) -> AlteredRunError:
    return AlteredRunError(
        f"{state.detail} is not what the stage {state.stage} wrote",
        place=run.path,
        hint=f"restore it, or make it again: {_way_to(state.stage, run.path)} --redo",
    )


def _way_to(stage: str, path: Path) -> str:
    """The command that runs a stage."""
    if stage in {s.name for s in DATA_STAGES}:
        return f"distill gen --rules RULES --out {path}"
    command = {"train": "train", "evaluate": "eval", "report": "report"}[stage]
    return f"distill {command} {path}"


def _ask_more(
    asked: Mapping[Cell, int], quotas: Mapping[Cell, int], short: Mapping[Cell, int]
) -> dict[Cell, int]:
    """Ask again for what is missing, by the share that survived so far."""
    more = dict(asked)
    for cell, missing in short.items():
        survived = max((quotas[cell] - missing) / asked[cell], 0.05)
        more[cell] += math.ceil(missing / survived * 1.1)
    return more


def _short_of(quotas: Mapping[Cell, int], short: Mapping[Cell, int], run: RunFolder) -> GateError:
    got, wanted = sum(quotas.values()) - sum(short.values()), sum(quotas.values())
    worst = sorted(short.items(), key=lambda item: (-item[1], item[0]))[:3]
    cells = ", ".join(f"{cell} {quotas[cell] - n} of {quotas[cell]}" for cell, n in worst)
    return GateError(
        f"{got} of {wanted} examples were accepted: {cells}",
        place=run.path,
        hint="give those rules more words or examples, or lower --target; why rows were rejected: "
        f"distill show {run.path} --rejected; to train on what is there: distill train {run.path}",
    )
