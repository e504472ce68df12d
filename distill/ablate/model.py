"""What an ablation holds: ablation.json is this record, table and advice are made from it."""

from __future__ import annotations

from typing import Literal

from distill.errors import UsageError
from distill.evaluate.score import Scores
from distill.records import Record

Declarations = Literal["full", "names", "none"]
MODES: tuple[Declarations, ...] = ("full", "names", "none")
"""The ways of declaring tools, the longest prompt first."""
Measure = Literal["right tool", "full call"]


def parse_modes(text: str) -> tuple[Declarations, ...]:
    """The modes in a list with commas, in order. Raises UsageError for another word."""
    words = {word.strip() for word in text.split(",")}
    if other := words - {*MODES}:
        raise UsageError(
            f"there is no mode {min(other)!r}", place="--modes", hint=f"modes: {', '.join(MODES)}"
        )
    return tuple(mode for mode in MODES if mode in words)


class PromptTokens(Record):
    """How long the prompts of a data set are, in the student's own tokens."""

    mean: float
    max: int


class ModeResult(Record):
    """One way of declaring the tools: what its prompts cost, and what the student learned."""

    declarations: Declarations
    prompt_tokens: dict[str, PromptTokens] = {}
    """By data set; empty where the tools cannot be shown at all."""
    problem: str = ""
    """Why no student was trained this way."""
    trained: int = 0
    """Training rows that fit the student."""
    rejected: int = 0
    """Training rows that do not."""
    seconds: float | None = None
    """Of the training; of its last part, if it was interrupted."""
    scores: dict[str, Scores] = {}
    """Of the tuned student, by data set."""


class Contest(Record):
    """Two ways on the same rows, by one measure."""

    dataset: str
    measure: Measure
    longer: Declarations
    shorter: Declarations
    only_longer: int
    """Rows that only the student with the longer prompt got right."""
    only_shorter: int
    p: float
    """Exact McNemar, two-sided: how likely so uneven a split is if neither were better."""


class Ablation(Record):
    """The ways that were tried on one run, and which of them to take."""

    student: str
    modes: tuple[ModeResult, ...]
    contests: tuple[Contest, ...]
    choice: Declarations | None
    """The shortest prompt that no data set shows to do worse than a longer one.

    None where no student learned anything.
    """
    advice: str
    """The choice and its reason, in one line."""
