"""Which rows of a batch begin alike, and are to be computed together."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

OVERHEAD = 64
"""What one more forward pass costs, in tokens: below that, sharing does not pay."""

_WIDTH = array("I").itemsize


class Group(NamedTuple):
    """Rows that share their first tokens."""

    rows: tuple[int, ...]
    """Their indices, those that end soonest first."""
    shared: int
    """How many tokens they share; 0 for rows that are computed as they are."""


def partition(rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[Group]:
    """Groups with which few tokens are computed.

    rows: the token ids of each row; limits: how long a prefix of each row may be, less than its
    length. Rows that share P tokens compute them once; rows that share nothing are one group,
    whatever they hold. Padding is not counted: what is computed at one time is of like length.
    Rows that begin alike stand side by side in lexicographic order. Of all ways to take runs of
    that order as groups, this one computes least, found by dynamic programming: O(n²) in the rows.
    A group inside another one is no run; what it would spare beyond that is little.
    """
    # As bytes, rows are compared at the speed of memory.
    keys = [array("I", row).tobytes() for row in rows]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    common = [_common(keys[one], keys[other]) for one, other in pairwise(order)]
    best: list[tuple[float, int, int]] = [(0, 0, 0)]
    for end in range(1, len(order) + 1):
        best.append(
            min(
                (best[start][0] + cost, start, shared)
                for start, cost, shared in _runs(rows, limits, order, common, end)
            )
        )
    runs = list(_traced(best, order))
    alone = [row for run, shared in runs if not shared for row in run]
    sharing = [_group(run, shared, rows) for run, shared in runs[::-1] if shared]
    return [*sharing, _group(alone, 0, rows)] if alone else sharing


def _runs(
    rows: Sequence[Sequence[int]],
    limits: Sequence[int],
    order: Sequence[int],
    common: Sequence[int],
    end: int,
) -> Iterator[tuple[int, int, int]]:
    """Each run that ends before `end`: its start, its cost in tokens, and what it shares."""
    last = order[end - 1]
    shared, tokens = limits[last], len(rows[last])
    yield end - 1, tokens, 0
    for start in range(end - 2, -1, -1):
        tokens += len(rows[order[start]])
        shared = min(shared, limits[order[start]], common[start])
        if not shared:
            return
        yield start, 2 * OVERHEAD + tokens - (end - start - 1) * shared, shared


def _traced(
    best: Sequence[tuple[float, int, int]], order: Sequence[int]
) -> Iterator[tuple[list[int], int]]:
    end = len(order)
    while end:
        _, start, shared = best[end]
        yield list(order[start:end]), shared
        end = start


def _group(members: Sequence[int], shared: int, rows: Sequence[Sequence[int]]) -> Group:
    return Group(tuple(sorted(members, key=lambda row: (len(rows[row]), row))), shared)


def _common(one: bytes, other: bytes) -> int:
    """How many tokens two rows share at their beginning."""
    shortest = min(len(one), len(other)) // _WIDTH
    ends = range(_WIDTH, _WIDTH * shortest + 1, _WIDTH)
    return bisect_left(ends, True, key=lambda end: one[:end] != other[:end])
