"""What a report holds: report.json is this record, report.md is made from it and nothing else."""

from __future__ import annotations

from distill.evaluate.score import Scores
from distill.records import Json, Outcome, Record, StageCount, TargetKind


class TeacherNote(Record):
    """Who wrote the data, and what that teacher cannot do."""

    name: str
    limits: str


class CellCount(Record):
    """What became of one cell of the plan: asked = failed + rejected + over_quota + accepted."""

    rule: str
    target: TargetKind
    quota: int
    asked: int
    failed: int
    rejected: int
    over_quota: int
    accepted: int


class RejectionExample(Record):
    """One rejected item, to show what a reason means here."""

    stage: str
    reason: str
    detail: str
    prompt: str


class Funnel(Record):
    """How the plan became data: by stage, by cell, and one example of each rejection."""

    stages: tuple[StageCount, ...] = ()
    cells: tuple[CellCount, ...] = ()
    examples: tuple[RejectionExample, ...] = ()


class LossPoint(Record):
    """One row of the training log; losses are nats per token, weighted as the student has it."""

    step: int
    epoch: float
    train_loss: float | None = None
    dev_loss: float | None = None


class Training(Record):
    """How the student was tuned."""

    student: str
    steps: int
    seconds: float
    best_dev_loss: float | None
    """Of the adapter that was kept; None without dev rows."""
    curve: tuple[LossPoint, ...] = ()
    rejected: dict[str, int] = {}
    """Rows that the student could not be trained on, by reason."""


class Comparison(Record):
    """The tuned student against another arm on the rows of one data set."""

    dataset: str
    arm: str
    better: int
    """Rows on which only the tuned student named the right tool."""
    worse: int
    """Rows on which only the other arm did."""
    p: float
    """Exact McNemar, two-sided: how likely so uneven a split is if neither were better."""


class WorstCase(Record):
    """A case that the tuned student got wrong."""

    dataset: str
    rule: str | None
    prompt: str
    expected: str
    raw: str
    outcome: Outcome
    wrong_arguments: bool
    """Whether only the arguments are wrong."""


class Report(Record):
    """Everything that a run has to show; what it has not done yet is named in `missing`."""

    title: str
    workflow: str
    fingerprint: str
    """Of the workflow: rules, tools and gold."""
    distill: str
    """The version that made the run."""
    settings: Json = {}
    """By stage, the settings that its result follows from."""
    teacher: TeacherNote
    funnel: Funnel = Funnel()
    splits: dict[str, int] = {}
    training: Training | None = None
    evaluations: dict[str, dict[str, Scores]] = {}
    """Scores by data set and arm; gold first, then test, then files."""
    comparisons: tuple[Comparison, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    missing: tuple[str, ...] = ()
    """Stages that have not run."""
