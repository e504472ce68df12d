"""Scores as JSON and as table cells, arms in display order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from distill.evaluate.score import Scores
from distill.evaluate.statistics import Interval
from distill.records import Json

ARMS = ("base", "tuned", "teacher", "majority", "tfidf", "minilm")
"""Display order of the arms; unknown ones follow."""


class CellFormat(NamedTuple):
    """How a table writes shares, in percent, and F1, as a fraction."""

    interval: str = "({:.1f} to {:.1f})"
    missing: str = "-"

    def percent(self, share: float | None, interval: Interval | None = None) -> str:
        """`95.0 (90.1 to 97.6)`, or `missing`."""
        if share is None:
            return self.missing
        shown = f" {self.interval.format(*(100 * bound for bound in interval))}" if interval else ""
        return f"{100 * share:.1f}{shown}"

    def score_cells(self, scores: Scores) -> tuple[str, ...]:
        """An arm's n, right tool, full call, malformed, argument F1 and grounding F1."""
        f1 = (scores.argument_f1, scores.grounding_f1)
        return (
            str(scores.n),
            self.percent(scores.tool_accuracy, scores.tool_interval),
            self.percent(scores.full_call_accuracy, scores.full_call_interval),
            self.percent(scores.malformed_rate),
            *(self.missing if value is None else f"{value:.2f}" for value in f1),
        )


def scores_json(data: str, arms: Mapping[str, Scores]) -> Json:
    """What `distill eval --json` prints: {"data": ..., "arms": {"base": {...}, ...}}."""
    shown: Json = {arm: arms[arm].model_dump(mode="json") for arm in sorted_arms(arms)}
    return {"data": data, "arms": shown}


def repaired_note(arms: Mapping[str, Scores]) -> str:
    """How many answers were decoded again under constraint, by arm; nothing where none was."""
    counts = (f"{arm} {arms[arm].repaired}" for arm in sorted_arms(arms) if arms[arm].repaired)
    listed = ", ".join(counts)
    return f"decoded again, as they were no valid call or reply: {listed}" if listed else ""


def sorted_arms(arms: Mapping[str, Scores]) -> list[str]:
    """The arms' names in display order."""
    return sorted(arms, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))
