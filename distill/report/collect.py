"""Collects the Report of a run folder from the files of its finished stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from distill.config import TeacherConfig
from distill.data.plan import open_quotas
from distill.evaluate.score import Scores, score
from distill.evaluate.statistics import mcnemar
from distill.files import json_lines, read_records
from distill.records import (
    Candidate,
    Cell,
    Example,
    Failure,
    Prediction,
    Reason,
    Rejection,
    Scenario,
    StageCount,
    canonical_json,
)
from distill.report.model import (
    CellCount,
    Comparison,
    Funnel,
    LossPoint,
    RejectionExample,
    Report,
    TeacherNote,
    Training,
    WorstCase,
)
from distill.run import layout
from distill.run.folder import RunFolder
from distill.run.manifest import StageEntry

STAGES = ("plan", "generate", "validate", "dedup", "balance", "split", "train", "evaluate")
STAGE_DATASETS = ("gold", "test")
"""The data sets of the stage evaluate; others are files, scored on request."""
MAX_WORST_CASES = 10


def collect(path: Path) -> Report:
    """The report of the run at `path`.

    Only outputs of finished stages are read: those of an interrupted stage are not counted.
    """
    run = RunFolder.open(path)
    done = run.manifest.stages
    predictions = _predictions(path / layout.EVALUATE, done)
    splits = _splits(path) if "split" in done else {}
    return Report(
        title=run.workflow.title,
        workflow=run.workflow.name,
        fingerprint=run.workflow.fingerprint,
        distill=run.settings.distill,
        settings={name: done[name].settings for name in STAGES if name in done},
        teacher=_teacher(run.config.teacher) if run.config.data.target else NO_TEACHER,
        funnel=_funnel(run, done),
        splits={name: len(rows) for name, rows in splits.items()},
        own={name: sum(r.is_own for r in rows) for name, rows in splits.items()}
        if run.workflow.rows
        else {},
        training=_training(path, done["train"]) if "train" in done else None,
        evaluations={name: _scores(arms) for name, arms in predictions.items()},
        comparisons=tuple(_comparisons(predictions)),
        worst=tuple(_worst(predictions))[:MAX_WORST_CASES],
        missing=tuple(stage for stage in STAGES if stage not in done),
    )


NO_TEACHER = TeacherNote(name="none", limits="Every row is one of the team's own.")


def _teacher(settings: TeacherConfig) -> TeacherNote:
    if settings.kind == "grammar":
        from distill.teachers.grammar.teacher import LIMITS

        return TeacherNote(name="grammar", limits=LIMITS)
    limits = (
        "Its labels follow the plan; how faithfully its texts do has only been checked by rule."
    )
    return TeacherNote(name=f"{settings.kind}:{settings.model}", limits=limits)


def _funnel(run: RunFolder, done: dict[str, StageEntry]) -> Funnel:
    if "plan" not in done:
        return Funnel()
    scenarios = read_records(run.path / layout.SCENARIOS, Scenario)
    stages = [StageCount.of("plan", len(scenarios), [])]
    failures: list[Failure] = []
    rejections: list[Rejection] = []
    accepted: list[Example] = []
    if "generate" in done:
        failures = read_records(run.path / layout.FAILURES, Failure)
        written = read_records(run.path / layout.CANDIDATES, Candidate)
        own = sum(candidate.is_own for candidate in written)
        stages.append(StageCount.of("generate", len(written) - own, failures))
        stages += [StageCount.of("own rows", own, [])] * bool(own)
    for stage in layout.SIEVES:
        if stage in done:
            accepted = read_records(run.path / layout.EXAMPLES[stage], Example)
            rejected = read_records(run.path / layout.REJECTED[stage], Rejection)
            stages.append(StageCount.of(stage, len(accepted), rejected))
            rejections += rejected
    final = accepted if "balance" in done else []
    return Funnel(
        stages=tuple(stages),
        cells=tuple(_cells(run, scenarios, failures, rejections, final)),
        examples=tuple(_first_of_each_reason(rejections)),
    )


def _cells(
    run: RunFolder,
    scenarios: Iterable[Scenario],
    failures: Iterable[Failure],
    rejections: Sequence[Rejection],
    accepted: Iterable[Example],
) -> Iterator[CellCount]:
    accepted, own = list(accepted), _by_cell(run.workflow.rows)
    kept_own = [row for row in accepted if row.is_own] if accepted else run.workflow.rows
    wanted = open_quotas(run.workflow, run.config.data.target, kept_own)
    quotas = Counter(wanted) + _by_cell(kept_own)
    asked = Counter(scenario.cell for scenario in scenarios)
    failed = Counter(failure.scenario.cell for failure in failures)
    over = _by_cell(r.item for r in rejections if r.reason is Reason.OVER_QUOTA)
    rejected = _by_cell(r.item for r in rejections if r.reason is not Reason.OVER_QUOTA)
    kept = _by_cell(accepted)
    for cell in dict.fromkeys([*wanted, *sorted({*asked, *own})]):
        yield CellCount(
            rule=cell.rule,
            target=cell.target,
            quota=quotas[cell],
            asked=asked[cell],
            failed=failed[cell],
            rejected=rejected[cell],
            over_quota=over[cell],
            accepted=kept[cell],
            own=own[cell],
        )


def _by_cell(items: Iterable[Candidate]) -> Counter[Cell]:
    return Counter(item.scenario.cell for item in items)


def _first_of_each_reason(rejections: Iterable[Rejection]) -> Iterator[RejectionExample]:
    seen = set()
    for rejection in rejections:
        if (rejection.stage, rejection.reason) not in seen:
            seen.add((rejection.stage, rejection.reason))
            yield RejectionExample(
                stage=rejection.stage,
                reason=rejection.reason,
                detail=rejection.told,
                prompt=rejection.item.conversation.last_user,
            )


def _splits(path: Path) -> dict[str, list[Example]]:
    return {name: read_records(path / file, Example) for name, file in layout.SPLITS.items()}


def _training(path: Path, entry: StageEntry) -> Training:
    rejected = StageCount.of("train", 0, read_records(path / layout.UNTRAINABLE, Rejection))
    log = [row for _, row in json_lines(path / layout.METRICS)]
    curve = [
        LossPoint(
            step=row["step"],
            epoch=row["epoch"],
            train_loss=row.get("loss"),
            dev_loss=row.get("eval_loss"),
            dev_accuracy=row.get("eval_decision_accuracy"),
        )
        for row in log
        if "loss" in row or "eval_loss" in row
    ]
    return Training(
        student=str(entry.counts.get("student")),
        steps=max((point.step for point in curve), default=0),
        seconds=entry.seconds,
        best_dev_loss=_number(entry.counts.get("best_dev_loss")),
        best_dev_accuracy=_number(entry.counts.get("best_dev_accuracy")),
        curve=tuple(curve),
        rejected=rejected.dropped,
    )


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None


Predictions = dict[str, dict[str, list[Prediction]]]


def _predictions(folder: Path, done: Container[str]) -> Predictions:
    """Predictions by data set and arm: gold, then test, then files by name."""
    found: Predictions = {}
    for path in sorted(folder.glob("*/*.jsonl")) if "train" in done else ():
        if path.parent.name in STAGE_DATASETS and "evaluate" not in done:
            continue
        found.setdefault(path.parent.name, {})[path.stem] = read_records(path, Prediction)
    names = sorted(found, key=lambda name: (name not in STAGE_DATASETS, name))
    return {name: found[name] for name in names}


def _scores(arms: Mapping[str, Sequence[Prediction]]) -> dict[str, Scores]:
    return {arm: score(predictions) for arm, predictions in arms.items()}


def _comparisons(predictions: Predictions) -> Iterator[Comparison]:
    """The tuned student against each other arm that predicted exactly the same cases."""
    for dataset, arms in predictions.items():
        tuned = {p.case: p.tool_correct for p in arms.get("tuned", [])}
        for arm, rows in arms.items():
            other = {p.case: p.tool_correct for p in rows}
            if arm == "tuned" or not tuned or other.keys() != tuned.keys():
                continue
            better, worse, p = mcnemar([*tuned.values()], [other[case] for case in tuned])
            yield Comparison(dataset=dataset, arm=arm, better=better, worse=worse, p=p)


def _worst(predictions: Predictions) -> Iterator[WorstCase]:
    """The tuned student's errors: gold first, wrong tools before wrong arguments."""
    for dataset, arms in predictions.items():
        wrong = [p for p in arms.get("tuned", []) if not p.tool_correct or p.full_correct is False]
        for p in sorted(wrong, key=lambda p: (p.tool_correct, p.malformed is not True, p.case)):
            calls = (
                call.name
                if call.arguments is None
                else f"{call.name} {canonical_json(call.arguments)}"
                for call in p.expected
            )
            yield WorstCase(
                dataset=dataset,
                rule=p.rule,
                prompt=p.prompt,
                expected="; ".join(calls) or p.kind,
                raw=p.raw,
                outcome=p.outcome,
                wrong_arguments=p.tool_correct,
            )
