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
    length. A group of n rows that share P tokens and end by M computes P + n (M - P) of them.
    Rows that begin alike stand side by side in lexicographic order. Of all partitions into runs of
    that order, this is the one that costs least, found by dynamic programming: O(n²) in the rows.
    A group that stands inside another one, or rows of one length that share nothing, are not runs:
    what they would spare beyond that is little.
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


def _common(one: bytes, other: bytes) -> int:
    """How many tokens two rows share at their beginning."""
    shortest = min(len(one), len(other)) // _WIDTH
    ends = range(_WIDTH, _WIDTH * shortest + 1, _WIDTH)
    return bisect_left(ends, True, key=lambda end: one[:end] != other[:end])
