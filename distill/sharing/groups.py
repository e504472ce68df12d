"""Which rows of a batch begin alike, and are to be computed together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

OVERHEAD = 16
"""What one more forward pass costs, in tokens: below that, sharing does not pay."""


class Group(NamedTuple):
    """Rows that share their first tokens."""

    rows: tuple[int, ...]
    """Their indices, those that end soonest first."""
    shared: int
    """How many tokens they share; 0 for rows that are computed as they are."""


def partition(rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[Group]:
    """The groups with which the fewest tokens are computed.

    rows: the token ids of each row; limits: how long a prefix of each row may be, less than its
    length. A group of n rows that share P tokens and end by M computes P + n (M - P) of them.
    Rows that begin alike stand side by side in lexicographic order, so that the best partition is
    found by dynamic programming over runs of that order: O(n²) in the rows.
    """
    order = sorted(range(len(rows)), key=lambda row: list(rows[row]))
    common = [_common(rows[one], rows[other]) for one, other in pairwise(order)]
    best: list[tuple[float, int, int]] = [(0, 0, 0)]
    for end in range(1, len(order) + 1):
        best.append(
            min(
                (best[start][0] + cost, start, shared)
                for start, cost, shared in _runs(rows, limits, order, common, end)
            )
        )
    return list(_traced(best, order, rows))[::-1]


def _runs(
    rows: Sequence[Sequence[int]],
    limits: Sequence[int],
    order: Sequence[int],
    common: Sequence[int],
    end: int,
) -> Iterator[tuple[int, int, int]]:
    """Each group that ends before `end`: its start, its cost in tokens, and what it shares."""
    last = order[end - 1]
    shared, longest = limits[last], len(rows[last])
    for start in range(end - 1, -1, -1):
        row = order[start]
        longest = max(longest, len(rows[row]))
        shared = min(shared, limits[row])
        if start < end - 1:
            shared = min(shared, common[start])
        count = end - start
        yield start, OVERHEAD + count * longest, 0
        if shared and count > 1:
            yield start, 2 * OVERHEAD + shared + count * (longest - shared), shared


def _traced(
    best: Sequence[tuple[float, int, int]], order: Sequence[int], rows: Sequence[Sequence[int]]
) -> Iterator[Group]:
    end = len(order)
    while end:
        _, start, shared = best[end]
        members = sorted(order[start:end], key=lambda row: (len(rows[row]), row))
        yield Group(tuple(members), shared)
        end = start


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows share at their beginning."""
    shortest = min(len(one), len(other))
    return bisect_left(range(1, shortest + 1), True, key=lambda n: one[:n] != other[:n])
