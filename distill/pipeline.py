"""The flow: STAGES, one after the other, each reading files that an earlier one wrote.

What a stage does stands in `distill.work`; here stand only the order, what each stage reads, writes
and depends on, and the loop that asks again for what was sieved out.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distill import balance, plan, work
from distill.errors import AlteredRunError, GateError, RunError, StaleRunError
from distill.files import iter_records
from distill.records import Cell, Example, Failure
from distill.run.asking import Asking
from distill.run.folder import RunFolder
from distill.run.manifest import StageStatus
from distill.run.stage import Context, Stage, Watcher, run_stage, stage_status

# The share asked for above the quotas in the first round, as most of it is sieved out again.
RESERVE = 0.25


def _sieve_files(folder: str) -> tuple[str, ...]:
    return (f"{folder}/examples.jsonl", f"{folder}/rejected.jsonl")


SPLITS = ("6-split/train.jsonl", "6-split/dev.jsonl", "6-split/test.jsonl")
DATA = ("workflow", "data", "teacher", "prompts")

STAGES: tuple[Stage, ...] = (
    Stage(
        "gate",
        "0-gate",
        ("workflow", "teacher", "routing"),
        (),
        ("0-gate/predictions.jsonl", "0-gate/scores.json"),
        work.run_gate,
    ),
    Stage("plan", "1-plan", DATA, (), ("1-plan/scenarios.jsonl",), work.run_plan),
    Stage(
        "generate",
        "2-generate",
        DATA,
        ("1-plan/scenarios.jsonl",),
        ("2-generate/candidates.jsonl", "2-generate/failures.jsonl"),
        work.run_generate,
    ),
    Stage(
        "validate",
        "3-validate",
        DATA,
        ("2-generate/candidates.jsonl",),
        _sieve_files("3-validate"),
        work.run_validate,
    ),
    Stage(
        "dedup",
        "4-dedup",
        DATA,
        ("3-validate/examples.jsonl",),
        _sieve_files("4-dedup"),
        work.run_dedup,
    ),
    Stage(
        "balance",
        "5-balance",
        DATA,
        ("4-dedup/examples.jsonl",),
        _sieve_files("5-balance"),
        work.run_balance,
    ),
    Stage(
        "split",
        "6-split",
        DATA,
        ("5-balance/examples.jsonl",),
        (*SPLITS, "6-split/README.md"),
        work.run_split,
    ),
    Stage("train", "7-train", ("train",), SPLITS[:2], ("7-train/adapter",), work.run_train),
    Stage(
        "evaluate",
        "8-evaluate",
        ("train", "evaluate"),
        (*SPLITS, "7-train/adapter", "0-gate/predictions.jsonl"),
        ("8-evaluate/test", "8-evaluate/gold"),
        work.run_evaluate,
    ),
    Stage("report", ".", (), ("8-evaluate",), ("report.md", "report.json"), work.run_report),
)
NAMES = tuple(stage.name for stage in STAGES)
GATE, PLAN, GENERATE = STAGES[:3]
SIEVES = STAGES[3:6]
SPLIT = STAGES[6]
DATA_STAGES = (PLAN, GENERATE, *SIEVES, SPLIT)


def make_data(run: RunFolder, watcher: Watcher) -> None:
    """Everything up to the split: gate, plan, ask, sieve, and ask again for what is missing.

    The stages of a round are all repeated until the quotas are met, as they are cheap and the
    teacher's replies are kept: what a killed run leaves behind can then never depend on where it
    was killed. Raises GateError when the teacher routes too badly to write, or when the quotas
    cannot be met; the data that there is stays, and what the teacher owes is asked for next time.
    """
    quotas = plan.quotas(run.workflow, run.config.data.target)
    if _ready(run, DATA_STAGES):
        short = _short(run, quotas)
        if not short:
            return
        if not _owed(run):
            raise _short_of(quotas, short, run)
    with Asking(run, watcher.notice) as asking:
        context = Context(run, watcher, asking=asking)
        _pass_gate(context)
        short = _rounds(context, quotas)
    _run(SPLIT, context)
    if short:
        raise _short_of(quotas, short, run)


def _pass_gate(context: Context) -> None:
    """Route gold with the teacher, unless that was done; raises GateError when it routes badly."""
    from distill.evaluate.teacher import read_gate, require_gate

    run = context.run
    if not gate_is_due(run):
        return
    if stage_status(GATE, run).state != "done":
        _run(GATE, context)
    require_gate(read_gate(run), run.config.teacher.gate, run.path)


def _rounds(context: Context, quotas: Mapping[Cell, int]) -> dict[Cell, int]:
    """Ask and sieve until the quotas are met; what is missing in the end."""
    run = context.run
    asked = first_round(run)
    for _ in range(run.config.data.max_rounds):
        for stage in (PLAN, GENERATE, *SIEVES):
            _run(stage, replace(context, asked=asked))
        short = _short(run, quotas)
        if not short:
            break
        asked = ask_more(asked, quotas, short)
    return short


def first_round(run: RunFolder) -> dict[Cell, int]:
    """Scenarios of each cell that are asked for at first: the quota and a reserve."""
    quotas = plan.quotas(run.workflow, run.config.data.target)
    return {cell: math.ceil(count * (1 + RESERVE)) for cell, count in quotas.items()}


def gate_is_due(run: RunFolder) -> bool:
    """Whether the teacher has to route gold first: where there is gold, and it can route."""
    settings = run.config.teacher
    return settings.gate > 0 and settings.kind != "grammar" and bool(run.workflow.gold)


def _short(run: RunFolder, quotas: Mapping[Cell, int]) -> dict[Cell, int]:
    return balance.deficits(iter_records(run.path / "5-balance/examples.jsonl", Example), quotas)


def _owed(run: RunFolder) -> bool:
    """Whether the teacher failed at scenarios that it may yet write."""
    return any(iter_records(run.path / "2-generate" / "failures.jsonl", Failure))


def run_from(run: RunFolder, watcher: Watcher, first: str, last: str) -> None:
    """Run the stages from `first` to `last` that are not done yet.

    Raises RunError when an earlier stage is missing, AlteredRunError or StaleRunError when a
    finished one no longer is what it was.
    """
    wanted = STAGES[NAMES.index(first) : NAMES.index(last) + 1]
    require_before(run, first)
    for stage in wanted:
        if not _ready(run, [stage]):
            _run(stage, Context(run, watcher))


def require_before(run: RunFolder, first: str) -> None:
    """Raise what `run_from` raises when a stage before `first` is not done as it should be."""
    for before in STAGES[1 : NAMES.index(first)]:
        if not _ready(run, [before]):
            raise RunError(
                f"the stage {before.name} has not run yet",
                place=run.path,
                hint=_way_to(before.name, run.path),
            )


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
    for stage in STAGES if gate_is_due(run) else STAGES[1:]:
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
                hint=f"use the same settings, or make it again, with the flags that you gave: "
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
    if stage in {s.name for s in (GATE, *DATA_STAGES)}:
        return f"distill gen --rules RULES --out {path}"
    command = {"train": "train", "evaluate": "eval", "report": "report"}[stage]
    return f"distill {command} {path}"


def ask_more(
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
