"""Which declarations to take: paired tests of the students, and the recommendation from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from distill.ablate.model import Contest, Declarations, Measure, ModeResult
from distill.evaluate.statistics import mcnemar
from distill.records import Prediction
from distill.report.verdict import SIGNIFICANCE

MIN_ROWS = 100
"""With fewer rows, shares that differ by ten points are often not significantly different."""
Predictions = Mapping[str, Sequence[Prediction]]
"""One student's predictions by data set; all students have the same cases in the same order."""


class Advice(NamedTuple):
    """The declarations to take, and the reason in one line."""

    choice: Declarations | None
    line: str


def contests(predictions: Mapping[Declarations, Predictions]) -> Iterator[Contest]:
    """A paired test of every two modes, the longer prompt first, by data set and measure.

    `predictions` is in the order of MODES. Rows without a value, such as the full call of a gold
    case without arguments, are left out.
    """
    for longer, shorter in combinations(predictions, 2):
        for dataset in predictions[longer]:
            rows = predictions[longer][dataset], predictions[shorter][dataset]
            pairs = list(zip(*rows, strict=True))
            full_calls = [
                (one.full_correct, other.full_correct)
                for one, other in pairs
                if one.full_correct is not None and other.full_correct is not None
            ]
            measures: dict[Measure, list[tuple[bool, bool]]] = {
                "right tool": [(one.tool_correct, other.tool_correct) for one, other in pairs]
            }
            if full_calls:
                measures["full call"] = full_calls
            for measure, correct in measures.items():
                test = mcnemar([one for one, _ in correct], [other for _, other in correct])
                yield Contest(
                    dataset=dataset,
                    measure=measure,
                    longer=longer,
                    shorter=shorter,
                    only_longer=test.only_a,
                    only_shorter=test.only_b,
                    p=test.p,
                )


def recommend(modes: Sequence[ModeResult], found: Sequence[Contest]) -> Advice:
    """The shortest prompt that is on no data set significantly worse than a longer one.

    `modes` are those that were trained, in the order of MODES; at least one. A difference that is
    not significant (McNemar, p >= 0.05) counts as none: a shorter prompt is cheaper on every
    request, so the longer one has to prove its worth. No choice if no student learned anything.
    """
    if not any(scores.tool_accuracy for mode in modes for scores in mode.scores.values()):
        return Advice(None, "no student found a right tool: train longer, or on more data, first")
    lost = {mode.declarations: _lost(mode.declarations, found) for mode in modes}
    chosen = next(mode for mode in reversed(modes) if not lost[mode.declarations])
    name = chosen.declarations
    if len(modes) == 1:
        return Advice(name, f"{name} is the only way that was trained: there is nothing to compare")
    tokens = next(iter(chosen.prompt_tokens.values())).mean
    clauses = [f"take {name}: {tokens:.0f} tokens a prompt", *_against_longer(name, found)]
    clauses += [_against_shorter(lost[one]) for one in lost if lost[one]]
    rows = max(scores.n for scores in chosen.scores.values())
    if rows < MIN_ROWS:
        clauses.append(f"{rows} rows show large differences only")
    return Advice(name, "; ".join(clauses))


def _lost(name: Declarations, found: Sequence[Contest]) -> list[Contest]:
    """The contests in which a longer prompt does significantly better than this one."""
    return [
        contest
        for contest in found
        if contest.shorter == name
        and contest.p < SIGNIFICANCE
        and contest.only_longer > contest.only_shorter
    ]


def _against_longer(name: Declarations, found: Sequence[Contest]) -> Iterator[str]:
    """Why no longer prompt is taken, if there is one."""
    rivals = [contest for contest in found if contest.shorter == name]
    ahead = [contest.p for contest in rivals if contest.only_longer > contest.only_shorter]
    if ahead:
        yield f"no longer one is shown to do better (McNemar p = {_p_value(min(ahead))} at least)"
    elif rivals:
        yield "no longer one does better"


def _against_shorter(lost: Sequence[Contest]) -> str:
    """Why a shorter prompt is not taken: the contest that it lost with the smallest p."""
    worst = min(lost, key=lambda contest: contest.p)
    return (
        f"{worst.dataset} shows {worst.shorter} to do worse than {worst.longer}: {worst.measure} "
        f"in {worst.only_shorter} rows where {worst.longer} fails, the reverse in "
        f"{worst.only_longer} (McNemar p = {_p_value(worst.p)})"
    )


def _p_value(p: float) -> str:
    return "0.001" if p < 0.001 else f"{p:.3f}"
