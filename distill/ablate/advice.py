"""Which way of declaring tools to take: what is paired on the same rows, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from distill.ablate.model import Contest, Declarations, Measure, ModeResult
from distill.evaluate.statistics import mcnemar
from distill.records import Prediction
from distill.report.verdict import SURE

FEW = 100
"""Rows below which two shares that differ by ten points may well be equally good."""
Predictions = Mapping[str, Sequence[Prediction]]
"""What one student said, by data set; every student to the same cases in the same order."""


class Advice(NamedTuple):
    """The way to take, and one line that says why."""

    choice: Declarations | None
    line: str


def contests(said: Mapping[Declarations, Predictions]) -> Iterator[Contest]:
    """Every pair of ways, the longer prompt first, by data set and measure.

    `said` is in the order of MODES. Rows without a measure, as the arguments of a gold case that
    names none, are left out.
    """
    for longer, shorter in combinations(said, 2):
        for dataset in said[longer]:
            pairs = list(zip(said[longer][dataset], said[shorter][dataset], strict=True))
            yield _contest(
                dataset,
                "right tool",
                (longer, shorter),
                [(one.tool_correct, other.tool_correct) for one, other in pairs],
            )
            known = [
                (one.full_correct, other.full_correct)
                for one, other in pairs
                if one.full_correct is not None and other.full_correct is not None
            ]
            if known:
                yield _contest(dataset, "full call", (longer, shorter), known)


def recommend(modes: Sequence[ModeResult], found: Sequence[Contest]) -> Advice:
    """The shortest prompt that is nowhere shown to do worse than a longer one.

    `modes` are those that were trained, in the order of MODES; at least one. A difference that
    these rows do not establish (McNemar, p >= 0.05) counts as none: a shorter prompt is cheaper on
    every request, so the longer one has to show what it is paid for. Students that learned nothing
    are no reason to choose.
    """
    if not any(scores.tool_accuracy for mode in modes for scores in mode.scores.values()):
        return Advice(None, "no student found a right tool: train longer, or on more data, first")
    lost = {mode.declarations: _lost(mode.declarations, found) for mode in modes}
    chosen = next(mode for mode in reversed(modes) if not lost[mode.declarations])
    name = chosen.declarations
    if len(modes) == 1:
        return Advice(name, f"{name} is the only way that was trained: there is nothing to compare")
    tokens = next(iter(chosen.prompt_tokens.values())).mean
    said = [f"take {name}: {tokens:.0f} tokens a prompt", *_over_longer(name, found)]
    said += [_over_shorter(lost[one]) for one in lost if lost[one]]
    rows = max(scores.n for scores in chosen.scores.values())
    if rows < FEW:
        said.append(f"{rows} rows show large differences only")
    return Advice(name, "; ".join(said))


def _contest(
    dataset: str,
    measure: Measure,
    names: tuple[Declarations, Declarations],
    right: Sequence[tuple[bool, bool]],
) -> Contest:
    return Contest(
        dataset=dataset,
        measure=measure,
        longer=names[0],
        shorter=names[1],
        only_longer=sum(one and not other for one, other in right),
        only_shorter=sum(other and not one for one, other in right),
        p=mcnemar([one for one, _ in right], [other for _, other in right]),
    )


def _lost(name: Declarations, found: Sequence[Contest]) -> list[Contest]:
    """The contests that establish that a longer prompt does better than this one."""
    return [
        contest
        for contest in found
        if contest.shorter == name
        and contest.p < SURE
        and contest.only_longer > contest.only_shorter
    ]


def _over_longer(name: Declarations, found: Sequence[Contest]) -> Iterator[str]:
    """Why no longer prompt is taken, where there is one."""
    rivals = [contest for contest in found if contest.shorter == name]
    ahead = [contest.p for contest in rivals if contest.only_longer > contest.only_shorter]
    if ahead:
        yield f"no longer one is shown to do better (McNemar p = {_p(min(ahead))} at least)"
    elif rivals:
        yield "no longer one does better"


def _over_shorter(lost: Sequence[Contest]) -> str:
    """Why a shorter prompt is not taken: the clearest of the contests that it lost."""
    worst = min(lost, key=lambda contest: contest.p)
    return (
        f"{worst.dataset} shows {worst.shorter} to do worse than {worst.longer}: {worst.measure} "
        f"in {worst.only_shorter} rows where {worst.longer} fails, the reverse in "
        f"{worst.only_longer} (McNemar p = {_p(worst.p)})"
    )


def _p(p: float) -> str:
    return "0.001" if p < 0.001 else f"{p:.3f}"
