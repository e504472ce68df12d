"""The one sentence: what the tuned student does, and what that shows at this size."""

from __future__ import annotations

from distill.evaluate.score import Scores
from distill.evaluate.tables import sorted_arms
from distill.report.model import Comparison, Report

SURE = 0.05
"""The p below which two arms are said to differ."""
PLAIN = {
    "base": "the untuned student",
    "majority": "always the commonest tool",
    "teacher": "the teacher, with the rules before it",
}


def verdict(report: Report) -> str:
    """How the tuned student did, on gold where there is gold, and how sure that is."""
    dataset = next((name for name, arms in report.evaluations.items() if "tuned" in arms), None)
    if dataset is None:
        return "Nothing can be said yet about what the student learned: it has not been evaluated."
    arms = report.evaluations[dataset]
    tuned = arms["tuned"]
    if not tuned.n or tuned.tool_accuracy is None:
        return f"Nothing can be said about what the student learned: {dataset} has no rows."
    low, high = tuned.tool_interval
    said = (
        f"On {tuned.n} {_rows(dataset)} the tuned student finds the right tool in "
        f"{100 * tuned.tool_accuracy:.1f}% (95% interval {100 * low:.1f} to {100 * high:.1f})"
    )
    compared = {c.arm: c for c in report.comparisons if c.dataset == dataset}
    clauses = [_clause(arm, arms[arm], compared.get(arm)) for arm in _compared_with(arms)]
    return f"{said}{''.join(f'; {clause}' for clause in clauses)}."


def _rows(dataset: str) -> str:
    known = {"gold": "gold prompts", "test": "held-out prompts of the teacher's own"}
    return known.get(dataset, f"prompts of {dataset}")


def _compared_with(arms: dict[str, Scores]) -> list[str]:
    """The base student, the best of the baselines, and the teacher."""
    rest = [arm for arm in sorted_arms(arms) if arm not in ("base", "tuned", "teacher")]
    best = sorted(rest, key=lambda arm: -(arms[arm].tool_accuracy or 0.0))[:1]
    return [arm for arm in ("base", *best, "teacher") if arm in arms]


def _clause(arm: str, scores: Scores, found: Comparison | None) -> str:
    low, high = scores.tool_interval
    name = PLAIN.get(arm, f"the baseline {arm}")
    said = f"{name}: {100 * (scores.tool_accuracy or 0):.1f}% ({100 * low:.1f} to {100 * high:.1f})"
    if found is None:
        return said
    if found.p >= SURE:
        return f"{said}, a difference that these rows do not establish"
    return f"{said}, which it {'beats' if found.better > found.worse else 'falls short of'}"
