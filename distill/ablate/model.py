"""The record of an ablation, stored as ablation.json."""

from __future__ import annotations

from typing import Literal

from distill.errors import UsageError
from distill.evaluate.score import Scores
from distill.records import Record

Declarations = Literal["full", "names", "none"]
MODES: tuple[Declarations, ...] = ("full", "names", "none")
"""The modes of declaring tools, the longest prompt first."""
Measure = Literal["right tool", "full call"]


def parse_modes(text: str) -> tuple[Declarations, ...]:
    """The modes in a comma-separated list, in the order of MODES. Raises UsageError for others."""
    names = {name.strip() for name in text.split(",")}
    if unknown := names - {*MODES}:
        raise UsageError(
            f"there is no mode {min(unknown)!r}", place="--modes", hint=f"modes: {', '.join(MODES)}"
        )
    return tuple(mode for mode in MODES if mode in names)


class PromptTokens(Record):
    """The lengths of a data set's prompts, in the student's tokens."""

    mean: float
    max: int


class ModeResult(Record):
    """One mode of declaring the tools: the lengths of its prompts, and the student's scores."""

    declarations: Declarations
    prompt_tokens: dict[str, PromptTokens] = {}
    """By data set; empty if the tools cannot be declared in this mode."""
    problem: str = ""
    """Why no student was trained in this mode; empty if one was."""
    trained: int = 0
    """Training rows that fit the student's context."""
    rejected: int = 0
    """Training rows that do not fit."""
    seconds: float | None = None
    """Duration of the training; of its last part, if it was interrupted."""
    scores: dict[str, Scores] = {}
    """The tuned student's scores by data set."""


class Contest(Record):
    """A paired test of two modes on the same rows, by one measure."""

    dataset: str
    measure: Measure
    longer: Declarations
    shorter: Declarations
    only_longer: int
    """Rows that only the student with the longer prompt got right."""
    only_shorter: int
    p: float
    """McNemar's exact two-sided test: the probability of so uneven a split by chance."""


class Ablation(Record):
    """The modes that were tried on one run, and which of them to take."""

    student: str
    modes: tuple[ModeResult, ...]
    contests: tuple[Contest, ...]
    choice: Declarations | None
    """The shortest prompt that is on no data set significantly worse than a longer one.

    None if no student learned anything.
    """
    advice: str
    """The choice and its reason, in one line."""
