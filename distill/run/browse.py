"""Rows of a run for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from distill.errors import RunError, UsageError
from distill.files import read_records
from distill.records import Example, Rejection, Target, canonical_json
from distill.run import layout
from distill.run.folder import RunFolder


class Row(NamedTuple):
    """One example or rejection: `why` holds the split, or the reason."""

    rule: str
    user: str
    target: str
    why: str


def browse(run: RunFolder, *, rejected: bool, rule: str | None, count: int) -> list[Row]:
    """Up to `count` rows, spread evenly over what the run holds.

    Raises UsageError for a rule that the workflow lacks, RunError where there is nothing yet.
    """
    if rule is not None and rule not in run.workflow.by_id:
        raise UsageError(
            f'no rule "{rule}"', place="--rule", hint=f"rules: {', '.join(run.workflow.by_id)}"
        )
    rows = list(_rejected(run) if rejected else _examples(run))
    if not rows:
        raise RunError(
            "there is nothing to show yet" if not rejected else "nothing was rejected",
            place=run.path,
            hint=f"distill status {run.path} says how far the run is",
        )
    chosen = [row for row in rows if rule in (None, row.rule)]
    step = max(len(chosen) / count, 1)
    return [chosen[int(i * step)] for i in range(min(count, len(chosen)))]


def _examples(run: RunFolder) -> Iterator[Row]:
    for split, name in layout.SPLITS.items():
        path = run.path / name
        for example in read_records(path, Example) if path.exists() else ():
            why = f"{split}, {example.place}" if example.place else split
            yield Row(
                example.scenario.rule, str(example.conversation), _target(example.target), why
            )


def _rejected(run: RunFolder) -> Iterator[Row]:
    for name in layout.REJECTED.values():
        path = run.path / name
        for rejection in read_records(path, Rejection) if path.exists() else ():
            item = rejection.item
            why = f"{rejection.stage}: {rejection.reason}: {rejection.told}"
            yield Row(item.scenario.rule, str(item.conversation), _target(item.target), why)


def _target(target: Target) -> str:
    if target.kind != "call":
        return f"{target.kind}: {target.reply}"
    return "; ".join(f"{call.name} {canonical_json(call.arguments)}" for call in target.calls)
