"""Scores as JSON, arms in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Mapping

from distill.evaluate.score import Scores
from distill.records import Json

ARMS = ("base", "tuned", "teacher", "majority", "tfidf", "minilm")
"""The order in which arms are shown; unknown ones follow."""


def scores_json(data: str, arms: Mapping[str, Scores]) -> Json:
    """What `distill eval --json` prints: {"data": ..., "arms": {"base": {...}, ...}}."""
    return {
        "data": data,
        "arms": {arm: arms[arm].model_dump(mode="json") for arm in sorted_arms(arms)},
    }


def sorted_arms(arms: Mapping[str, Scores]) -> list[str]:
    """The arms' names in the order in which they are shown."""
    return sorted(arms, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))
