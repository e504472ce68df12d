"""Running the flow: a round of data until the quotas are met, then stage after stage.

What each stage does stands in its own module; here stand only what runs when, what is refused,
and the loop that asks again for what was rejected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import NamedTuple

from distill.data.balance import deficits
from distill.data.plan import open_quotas
from distill.errors import AlteredRunError, GateError, RunError, StaleRunError
from distill.files import iter_records, read_records
from distill.records import Cell, Example, Failure, Rejection
from distill.run import layout
from distill.run.folder import RunFolder
from distill.run.manifest import StageStatus
from distill.stages import (
    FLOW,
    balance,
    dedup,
    evaluate,
    gate,
    generate,
    plan,
    report,
    split,
    train,
    validate,
)
from distill.stages.session import TeacherSession
from distill.stages.stage import Context, Stage, run_stage, stage_status
from distill.stages.watcher import Watcher
from distill.train.checkpoints import remove_checkpoints

# The share asked for above the quotas in the first round, as most of it is rejected again.
RESERVE = 0.25
GIVEN_UP_AFTER = 20
"""Scenarios of a cell without one example: 20 hold none in 5% of cases where 1 in 7 passes."""

ROUND = (plan.STAGE, generate.STAGE, validate.STAGE, dedup.STAGE, balance.STAGE)
"""What is repeated until the quotas are met."""
DATA = (*ROUND, split.STAGE)
STUDENT = (train.STAGE, evaluate.STAGE, report.STAGE)


def make_data(run: RunFolder, watcher: Watcher) -> None:
    """Everything up to the split: gate, plan, ask, sieve, and ask again for what is missing.

    The stages of a round are all repeated until the quotas are met, as they are cheap and the
    teacher's replies are kept: what a killed run leaves behind can then never depend on where it
    was killed. Raises GateError when the teacher routes too badly to write, or when the quotas
    cannot be met; the data that there is stays, and what the teacher owes is asked for next time.
    Also raises GateError when nothing was generated and none of the team's own rows is kept.
    """
    if not _ready(run, DATA) or (_missing(run).short and _owed(run)):
        with TeacherSession(run, watcher.notice) as session:
            context = Context(run, watcher, session=session)
            _pass_gate(context)
            _rounds(context)
        _run(split.STAGE, context)
        if note := own_rows_note(run):
            watcher.notice(note)
    found = _missing(run)
    if found.short:
        raise _short_of(found.wanted, found.short, run)
    if not found.kept:
        raise GateError(
            f"no example was accepted: {own_rows_note(run)}",
            place=run.path,
            hint="correct the rows, or have some generated with --target",
        )


def _pass_gate(context: Context) -> None:
    """Route gold with the teacher, unless that was done; raises GateError when it routes badly."""
    from distill.evaluate.gate import read_gate, require_gate

    run = context.run
    if not gate.is_due(run):
        return
    if stage_status(gate.STAGE, run).state != "done":
        _run(gate.STAGE, context)
    require_gate(read_gate(run), run.config.teacher.gate, run.path)


def _rounds(context: Context) -> None:
    """Ask and sieve until the quotas are met, or nothing more can be asked for."""
    run = context.run
    requested = first_round(run)
    for _ in range(run.config.data.max_rounds):
        for stage in ROUND:
            _run(stage, replace(context, requested=requested))
        found = _missing(run)
        before, requested = requested, ask_more(requested, found.wanted, found.short)
        if requested == before:
            break


def first_round(run: RunFolder) -> dict[Cell, int]:
    """Scenarios of each cell that are asked for at first: what own rows leave, and a reserve."""
    wanted = open_quotas(run.workflow, run.config.data.target, run.workflow.rows)
    return {cell: math.ceil(count * (1 + RESERVE)) for cell, count in wanted.items()}


class _Missing(NamedTuple):
    wanted: dict[Cell, int]
    """Of each cell, the examples to generate beside the own rows that were kept."""
    short: dict[Cell, int]
    kept: int


def _missing(run: RunFolder) -> _Missing:
    kept = read_records(run.path / layout.EXAMPLES["balance"], Example)
    own = [example for example in kept if example.is_own]
    wanted = open_quotas(run.workflow, run.config.data.target, own)
    generated = (example for example in kept if not example.is_own)
    return _Missing(wanted, deficits(generated, wanted), len(kept))


def own_rows_note(run: RunFolder) -> str:
    """How many of the team's own rows were kept, and why the others were not; empty without any."""
    rows = len(run.workflow.rows)
    lost = [
        each
        for path in layout.REJECTED.values()
        for each in iter_records(run.path / path, Rejection)
        if each.item.is_own
    ]
    if not rows or not lost:
        return f"all {rows} own rows were kept" if rows else ""
    reasons = Counter(each.reason.replace("_", " ") for each in lost)
    counts = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
    return (
        f"{rows - len(lost)} of {rows} own rows were kept; of the others: {counts}, as "
        f"{lost[0].told}; {_why(run)}"
    )


def _owed(run: RunFolder) -> bool:
    """Whether the teacher failed at scenarios that it may yet write."""
    return any(iter_records(run.path / layout.FAILURES, Failure))


def run_stages(run: RunFolder, watcher: Watcher, *wanted: Stage) -> bool:
    """Run those of `wanted` that are not done yet; they follow each other in the flow.

    Returns whether there was anything to do.

    Raises RunError when an earlier stage is missing, AlteredRunError or StaleRunError when a
    finished one no longer is what it was.
    """
    require_before(run, wanted[0])
    worked = False
    for stage in wanted:
        if not _ready(run, [stage]):
            _run(stage, Context(run, watcher))
            worked = True
    return worked


def require_before(run: RunFolder, first: Stage) -> None:
    """Raise what `run_stages` raises when a stage before `first` is not done as it should be."""
    for before in earlier(first):
        if before is not gate.STAGE and not _ready(run, [before]):
            raise RunError(
                f"the stage {before.name} has not run yet",
                place=run.path,
                hint=_way_to(before.name, run.path),
            )


def make_report(run: RunFolder, watcher: Watcher) -> None:
    """The report on what the run holds so far, however far it is; raises as `require_current`."""
    require_current(run)
    _run(report.STAGE, Context(run, watcher))


def earlier(stage: Stage) -> tuple[Stage, ...]:
    """The stages of the flow before `stage`."""
    return tuple(takewhile(lambda one: one is not stage, FLOW))


def redo(run: RunFolder, first: Stage) -> None:
    """Forget the stages from `first` on, and a training's checkpoints with them."""
    _forget_from(first, run)
    if first is train.STAGE:
        remove_checkpoints(run.path / layout.CHECKPOINTS)


def status(run: RunFolder) -> list[StageStatus]:
    """Where each stage stands; what was made from an altered or stale stage is stale."""
    states: list[StageStatus] = []
    for stage in FLOW:
        if stage is gate.STAGE and not gate.is_due(run):
            continue
        state = stage_status(stage, run)
        broken = next((s for s in states if s.state in ("altered", "stale")), None)
        if state.state == "done" and broken:
            state = StageStatus(stage.name, "stale", f"{broken.stage} is {broken.state}")
        states.append(state)
    return states


def require_unaltered(run: RunFolder, *, before: Stage = report.STAGE) -> None:
    """Raise AlteredRunError when a finished stage's file is not what it wrote."""
    for stage in earlier(before):
        state = stage_status(stage, run)
        if state.state == "altered":
            raise _altered(state, run)


def require_current(run: RunFolder, *, before: Stage = report.STAGE) -> None:
    """Raise AlteredRunError or StaleRunError unless the finished stages are what they were.

    What was asked at the gate may be of earlier rules and settings: only its files are looked at.
    """
    require_unaltered(run, before=before)
    _ready(run, (stage for stage in earlier(before) if stage is not gate.STAGE))


def require_trained(run: RunFolder) -> None:
    """Raise RunError unless the run has a student, trained on its present data and settings.

    Raises AlteredRunError or StaleRunError for one whose files, data or settings have changed.
    """
    if train.STAGE.name not in run.manifest.stages:
        raise RunError(
            "no student was trained here yet",
            place=run.path,
            hint=f"train one: {_way_to(train.STAGE.name, run.path)}",
        )
    require_current(run, before=evaluate.STAGE)


def _run(stage: Stage, context: Context) -> None:
    """Do a stage's work and remember it; what came after it is forgotten first."""
    _forget_from(stage, context.run)
    run_stage(stage, context)


def _forget_from(first: Stage, run: RunFolder) -> None:
    run.forget([stage.name for stage in dropwhile(lambda one: one is not first, FLOW)])


def _ready(run: RunFolder, stages: Iterable[Stage]) -> bool:
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
    command = {"train": "train", "evaluate": "eval", "report": "report"}.get(stage)
    return f"distill {command} {path}" if command else f"distill gen --rules RULES --out {path}"


def ask_more(
    requested: Mapping[Cell, int], wanted: Mapping[Cell, int], short: Mapping[Cell, int]
) -> dict[Cell, int]:
    """Ask again for what is missing, by the share that survived so far.

    A cell of which none survived is given up after GIVEN_UP_AFTER scenarios: more would be paid for
    and rejected. Until then the next one is taken to survive.
    """
    more = dict(requested)
    for cell, missing in short.items():
        got, asked = wanted[cell] - missing, requested[cell]
        if got:
            more[cell] += math.ceil(missing / max(got / asked, 0.05) * 1.1)
        elif asked < GIVEN_UP_AFTER:
            more[cell] = min(asked + math.ceil(missing * (asked + 1) * 1.1), 2 * GIVEN_UP_AFTER)
    return more


def _short_of(wanted: Mapping[Cell, int], short: Mapping[Cell, int], run: RunFolder) -> GateError:
    got, total = sum(wanted.values()) - sum(short.values()), sum(wanted.values())
    worst = sorted(short.items(), key=lambda item: (-item[1], item[0]))[:3]
    cells = ", ".join(f"{cell} {wanted[cell] - n} of {wanted[cell]}" for cell, n in worst)
    reasons = _reasons(run, dict(worst).keys())
    return GateError(
        f"{got} of {total} examples were accepted: {cells}{reasons}",
        place=run.path,
        hint=f"give those rules more words or examples, or lower --target; {_why(run)}; "
        f"to train on what is there: distill train {run.path}",
    )


def _why(run: RunFolder) -> str:
    return f"why rows were rejected: distill show {run.path} --rejected"


def _reasons(run: RunFolder, cells: Container[Cell]) -> str:
    """Why scenarios of these cells came to nothing, the most frequent first."""
    failed = iter_records(run.path / layout.FAILURES, Failure)
    found = Counter(str(each.reason) for each in failed if each.scenario.cell in cells)
    for path in layout.REJECTED.values():
        for each in iter_records(run.path / path, Rejection):
            if each.item.scenario.cell in cells:
                found[str(each.reason)] += 1
    counts = (f"{reason.replace('_', ' ')} {n}" for reason, n in found.most_common(3))
    return f"; of these came to nothing: {', '.join(counts)}" if found else ""
