"""Which rows are computed together: all of them once, no prefix too long, and at the least cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from distill.sharing.groups import PASS_OVERHEAD, Group, partition

# Tokens in runs, so that prefixes are worth their overhead.
STRETCHES = st.lists(st.sampled_from([(1,) * 90, (2,) * 40, (3,), (2, 3)]), min_size=1, max_size=4)
ROWS = STRETCHES.map(lambda parts: [token for part in parts for token in part])


@st.composite
def batches(draw: st.DrawFn, most: int = 7) -> tuple[list[list[int]], list[int]]:
    rows = draw(st.lists(ROWS, min_size=1, max_size=most))
    return rows, [draw(st.integers(0, len(row) - 1)) for row in rows]


def cost(rows: Sequence[Sequence[int]], groups: Sequence[Group]) -> int:
    """Tokens that are computed, and what two passes instead of one cost besides."""
    total = 0
    for group in groups:
        own = sum(len(rows[at]) - group.prefix_length for at in group.rows)
        total += own + (2 * PASS_OVERHEAD + group.prefix_length if group.prefix_length else 0)
    return total


def shared(rows: Sequence[Sequence[int]], limits: Sequence[int], members: Sequence[int]) -> int:
    """How many tokens these rows share, within their limits, compared one by one."""
    size = 0
    most = min(limits[at] for at in members)
    while size < most and len({rows[at][size] for at in members}) == 1:
        size += 1
    return size


def runs(order: Sequence[int]) -> Iterator[list[list[int]]]:
    """Every way to cut a sequence into runs."""
    if not order:
        yield []
    for end in range(1, len(order) + 1):
        for rest in runs(order[end:]):
            yield [list(order[:end]), *rest]


@settings(max_examples=50)
@given(batches())
def test_every_row_is_in_one_group_and_shares_what_is_said(
    batch: tuple[list[list[int]], list[int]],
) -> None:
    rows, limits = batch
    groups = partition(rows, limits)
    assert sorted(at for group in groups for at in group.rows) == list(range(len(rows)))
    for group in groups:
        assert group.prefix_length <= shared(rows, limits, group.rows)
        lengths = [len(rows[at]) for at in group.rows]
        assert lengths == sorted(lengths)
    assert sum(not group.prefix_length for group in groups) <= 1


@settings(max_examples=50)
@given(batches())
def test_it_costs_no_more_than_one_group_or_none(
    batch: tuple[list[list[int]], list[int]],
) -> None:
    rows, limits = batch
    everyone = tuple(range(len(rows)))
    found = cost(rows, partition(rows, limits))
    assert found <= cost(rows, [Group(everyone, 0)])
    if len(rows) > 1:
        assert found <= cost(rows, [Group(everyone, shared(rows, limits, everyone))])


@settings(max_examples=50)
@given(batches(most=6))
def test_no_partition_into_runs_costs_less(batch: tuple[list[list[int]], list[int]]) -> None:
    rows, limits = batch
    order = sorted(range(len(rows)), key=lambda at: rows[at])
    least = min(
        sum(
            min(
                cost(rows, [Group(tuple(run), 0)]),
                cost(rows, [Group(tuple(run), shared(rows, limits, run))]),
            )
            for run in cut
        )
        for cut in runs(order)
    )
    assert cost(rows, partition(rows, limits)) <= least


def test_rows_of_two_prefixes_and_one_of_its_own() -> None:
    one, other = [1] * 400, [2] * 300
    rows = [[*one, 5], [*other, 6], [*one, 7, 8], [3, 4], [*other, 9]]
    assert partition(rows, [len(row) - 1 for row in rows]) == [
        Group((0, 2), 400),
        Group((1, 4), 300),
        Group((3,), 0),
    ]


def test_a_prefix_that_is_short_is_computed_again() -> None:
    assert partition([[1, 2], [1, 3]], [1, 1]) == [Group((0, 1), 0)]
