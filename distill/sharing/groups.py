"""Which rows of a batch are computed together because they have a common prefix."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

PASS_OVERHEAD = 64
"""The cost of one more forward pass, in tokens: sharing fewer does not pay."""

_TOKEN_BYTES = array("I").itemsize


class Group(NamedTuple):
    """Rows with a common prefix."""

    rows: tuple[int, ...]
    """Their indices, the shortest row first."""
    prefix_length: int
    """Tokens that they share; 0 for rows that are computed whole."""


def partition(rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[Group]:
    """Group rows by common prefix so that the fewest tokens are computed.

    rows: the token ids of each row; limits: the longest prefix of each row that may be shared, less
    than its length. The prefix of a group is computed once; rows that share nothing make one group.
    Padding is not counted, as chunks hold rows of similar length. Rows with a common prefix are
    adjacent in lexicographic order. Dynamic programming finds the cheapest way to cut that order
    into groups, O(n²) in the rows. Groups are not nested: that would save little more.
    """
    # As bytes: rows are compared by memcmp.
    keys = [array("I", row).tobytes() for row in rows]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    common = [_common_prefix_length(keys[one], keys[other]) for one, other in pairwise(order)]
    # For each number of rows in order: the least cost, and the last group's start and prefix.
    best: list[tuple[float, int, int]] = [(0, 0, 0)]
    for end in range(1, len(order) + 1):
        best.append(
            min(
                (best[start][0] + cost, start, prefix_length)
                for start, cost, prefix_length in _last_groups(rows, limits, order, common, end)
            )
        )
    runs = list(_backtrack(best, order))
    unshared = [row for run, prefix_length in runs if not prefix_length for row in run]
    groups = [_group(run, length, rows) for run, length in runs[::-1] if length]
    return [*groups, _group(unshared, 0, rows)] if unshared else groups


def _last_groups(
    rows: Sequence[Sequence[int]],
    limits: Sequence[int],
    order: Sequence[int],
    common: Sequence[int],
    end: int,
) -> Iterator[tuple[int, int, int]]:
    """Each possible group that ends before `end`: its start, cost in tokens and prefix length."""
    last = order[end - 1]
    prefix_length, tokens = limits[last], len(rows[last])
    yield end - 1, tokens, 0
    for start in range(end - 2, -1, -1):
        tokens += len(rows[order[start]])
        prefix_length = min(prefix_length, limits[order[start]], common[start])
        if not prefix_length:
            return
        cost = 2 * PASS_OVERHEAD + tokens - (end - start - 1) * prefix_length
        yield start, cost, prefix_length


def _backtrack(
    best: Sequence[tuple[float, int, int]], order: Sequence[int]
) -> Iterator[tuple[list[int], int]]:
    """The rows and the prefix length of each group of the cheapest cut, last group first."""
    end = len(order)
    while end:
        _, start, prefix_length = best[end]
        yield list(order[start:end]), prefix_length
        end = start


def _group(members: Sequence[int], prefix_length: int, rows: Sequence[Sequence[int]]) -> Group:
    return Group(tuple(sorted(members, key=lambda row: (len(rows[row]), row))), prefix_length)


def _common_prefix_length(one: bytes, other: bytes) -> int:
    """In tokens, by bisection."""
    shortest = min(len(one), len(other)) // _TOKEN_BYTES
    ends = range(_TOKEN_BYTES, _TOKEN_BYTES * shortest + 1, _TOKEN_BYTES)
    return bisect_left(ends, True, key=lambda end: one[:end] != other[:end])
