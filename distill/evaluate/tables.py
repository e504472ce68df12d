"""Scores for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from distill.evaluate.score import Scores
from distill.evaluate.statistics import Interval
from distill.records import Json

if TYPE_CHECKING:
    from rich.table import Table

ARMS = ("base", "tuned", "teacher", "majority", "tfidf", "minilm")
"""The order in which arms are shown; unknown ones follow."""


def scores_object(data: str, arms: Mapping[str, Scores]) -> Json:
    """What `distill eval --json` prints: {"data": ..., "arms": {"base": {...}, ...}}."""
    return {"data": data, "arms": {arm: arms[arm].model_dump(mode="json") for arm in ordered(arms)}}


def table(arms: Mapping[str, Scores], title: str = "") -> Table:
    """Base, tuned, then baselines: n, shares with their intervals, F1."""
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left")
    drawn.add_column("arm")
    for heading in ("n", "right tool", "full call", "malformed", "argument F1", "grounding F1"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for arm in ordered(arms):
        drawn.add_row(arm, *_cells(arms[arm]))
    drawn.caption = "shares in percent, with 95% Wilson intervals; - where an arm has none"
    return drawn


def ordered(arms: Mapping[str, Scores]) -> list[str]:
    """The arms' names in the order in which they are shown."""
    return sorted(arms, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))


def _cells(scores: Scores) -> list[str]:
    return [
        str(scores.n),
        _share(scores.tool_accuracy, scores.tool_interval),
        _share(scores.full_call_accuracy, scores.full_call_interval),
        _share(scores.malformed_rate),
        _fraction(scores.argument_f1),
        _fraction(scores.grounding_f1),
    ]


def _share(value: float | None, interval: Interval | None = None) -> str:
    if value is None:
        return "-"
    around = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval else ""
    # The bracket is escaped, as rich reads [x] as a style.
    return f"{100 * value:.1f}{around}".replace("[", r"\[")


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
