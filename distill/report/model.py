"""The record of a report: report.json is this record, report.md is rendered from it alone."""

from __future__ import annotations

from distill.evaluate.score import Scores
from distill.records import Json, Outcome, Record, StageCount, TargetKind


class TeacherNote(Record):
    """The teacher that wrote the data, and its limitations."""

    name: str
    limits: str


class CellCount(Record):
    """The counts of one cell: asked + own = failed + rejected + over_quota + accepted."""

    rule: str
    """Empty for own rows that name none."""
    target: TargetKind
    quota: int
    asked: int
    failed: int
    rejected: int
    over_quota: int
    accepted: int
    own: int = 0
    """Rows of the team's own that came in."""


class RejectionExample(Record):
    """One rejected item, as an example of its reason."""

    stage: str
    reason: str
    detail: str
    prompt: str


class Funnel(Record):
    """The counts from plan to data, by stage and by cell, and an example of each rejection."""

    stages: tuple[StageCount, ...] = ()
    cells: tuple[CellCount, ...] = ()
    examples: tuple[RejectionExample, ...] = ()


class LossPoint(Record):
    """One row of the training log; losses are in nats per token, with the student's weights."""

    step: int
    epoch: float
    train_loss: float | None = None
    dev_loss: float | None = None
    dev_accuracy: float | None = None
    """The share of dev's decision tokens that are the student's first choice."""


class Training(Record):
    """How the student was tuned."""

    student: str
    steps: int
    seconds: float
    best_dev_loss: float | None
    """The dev loss of the adapter that was kept; None without dev rows."""
    best_dev_accuracy: float | None
    """Its share of dev's decision tokens that are the student's first choice."""
    curve: tuple[LossPoint, ...] = ()
    rejected: dict[str, int] = {}
    """Rows that do not fit the student, by reason."""


class Comparison(Record):
    """The tuned student against another arm on the rows of one data set."""

    dataset: str
    arm: str
    better: int
    """Rows on which only the tuned student named the right tool."""
    worse: int
    """Rows on which only the other arm did."""
    p: float
    """McNemar's exact two-sided test: the probability of so uneven a split by chance."""


class WorstCase(Record):
    """A case that the tuned student got wrong."""

    dataset: str
    rule: str | None
    prompt: str
    expected: str
    raw: str
    outcome: Outcome
    wrong_arguments: bool
    """Whether the tools are right and the arguments wrong."""


class Report(Record):
    """The results of a run so far; stages that have not run are listed in `missing`."""

    title: str
    workflow: str
    fingerprint: str
    """Of the workflow: rules, tools and gold."""
    distill: str
    """The version that made the run."""
    settings: Json = {}
    """By stage, the settings that its output depends on."""
    teacher: TeacherNote
    funnel: Funnel = Funnel()
    splits: dict[str, int] = {}
    own: dict[str, int] = {}
    """Of each split, the team's own rows; empty for a run without any."""
    training: Training | None = None
    evaluations: dict[str, dict[str, Scores]] = {}
    """Scores by data set and arm; gold first, then test, then files."""
    comparisons: tuple[Comparison, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    missing: tuple[str, ...] = ()
    """Stages that have not run."""
