"""What a stage's counts look like on a line."""

from __future__ import annotations

import pytest

from distill.records import Json
from distill.stages.watcher import summary


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({"in": 5, "kept": 3}, "in 5, kept 3"),
        ({"rejected": {"over_quota": 2, "in_gold": 3}}, "rejected 5 (over_quota 2, in_gold 3)"),
        ({"rejected": {}}, "rejected 0"),
        ({"gold": {"base": 0.0, "tuned": 0.8123}}, "gold (base 0, tuned 0.812)"),
        ({"best_dev_loss": None, "student": "embedded"}, "best_dev_loss None, student embedded"),
    ],
)
def test_a_summary_shows_every_count(counts: Json, shown: str) -> None:
    assert summary(counts) == shown
