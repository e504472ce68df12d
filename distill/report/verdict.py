"""The report's verdict in one sentence: the tuned student's accuracy, and against other arms."""

from __future__ import annotations

from distill.evaluate.score import Scores
from distill.evaluate.tables import sorted_arms
from distill.report.model import Comparison, Report

SIGNIFICANCE = 0.05
"""The p-value below which two arms are said to differ."""
_ARM_NAMES = {
    "base": "the untuned student",
    "majority": "always the commonest tool",
    "teacher": "the teacher, with the rules before it",
}


def verdict(report: Report) -> str:
    """The tuned student's tool accuracy on the first data set with it, and the other arms'."""
    dataset = next((name for name, arms in report.evaluations.items() if "tuned" in arms), None)
    if dataset is None:
        return "Nothing can be said yet about what the student learned: it has not been evaluated."
    arms = report.evaluations[dataset]
    tuned = arms["tuned"]
    if not tuned.n or tuned.tool_accuracy is None:
        return f"Nothing can be said about what the student learned: {dataset} has no rows."
    known = {"gold": "gold prompts", "test": "held-out prompts of the teacher's own"}
    rows = known.get(dataset, f"prompts of {dataset}")
    if dataset == "test" and report.own.get("test"):
        rows = "held-out prompts"
    low, high = tuned.tool_interval
    result = (
        f"On {tuned.n} {rows} the tuned student finds the right tool in "
        f"{100 * tuned.tool_accuracy:.1f}% (95% interval {100 * low:.1f} to {100 * high:.1f})"
    )
    comparisons = {c.arm: c for c in report.comparisons if c.dataset == dataset}
    clauses = [_clause(arm, arms[arm], comparisons.get(arm)) for arm in _other_arms(arms)]
    return f"{result}{''.join(f'; {clause}' for clause in clauses)}."


def _other_arms(arms: dict[str, Scores]) -> list[str]:
    """The base student, the best of the baselines, and the teacher."""
    rest = [arm for arm in sorted_arms(arms) if arm not in ("base", "tuned", "teacher")]
    best = sorted(rest, key=lambda arm: -(arms[arm].tool_accuracy or 0.0))[:1]
    return [arm for arm in ("base", *best, "teacher") if arm in arms]


def _clause(arm: str, scores: Scores, comparison: Comparison | None) -> str:
    low, high = scores.tool_interval
    name = _ARM_NAMES.get(arm, f"the baseline {arm}")
    result = (
        f"{name}: {100 * (scores.tool_accuracy or 0):.1f}% ({100 * low:.1f} to {100 * high:.1f})"
    )
    if comparison is None:
        return result
    if comparison.p >= SIGNIFICANCE:
        return f"{result}, a difference that these rows do not establish"
    verb = "beats" if comparison.better > comparison.worse else "falls short of"
    return f"{result}, which it {verb}"
