"""Quotas are met exactly where they can be, and what is removed is removed evenly."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from stage_data import example, example_lists

from distill.data.balance import balance, deficits
from distill.records import Cell, Example, Reason, Target

CELLS = [Cell(rule, kind) for rule in ("docs", "pay") for kind in ("call", "answer", "refuse")]
quotas = st.dictionaries(st.sampled_from(CELLS), st.integers(0, 8))
seeds = st.integers(0, 5)


def by_cell(items: list[Example]) -> Counter[Cell]:
    return Counter(item.scenario.cell for item in items)


@given(example_lists, quotas, seeds)
def test_each_cell_keeps_its_quota_or_all_that_there_is(
    items: list[Example], quota: dict[Cell, int], seed: int
) -> None:
    kept, rejected = balance(items, quota, seed)
    available = by_cell(items)
    assert by_cell(kept) == Counter(
        {cell: min(quota.get(cell, 0), n) for cell, n in available.items()}
    )
    assert all((r.stage, r.reason) == ("balance", Reason.OVER_QUOTA) for r in rejected)
    short = {cell: n - available[cell] for cell, n in quota.items() if available[cell] < n}
    assert deficits(kept, quota) == short


@given(example_lists, quotas, seeds)
def test_families_of_a_cell_are_even(
    items: list[Example], quota: dict[Cell, int], seed: int
) -> None:
    kept, rejected = balance(items, quota, seed)
    chosen = Counter((e.scenario.cell, e.scenario.family) for e in kept)
    for over in rejected:
        cell, family = over.item.scenario.cell, over.item.scenario.family
        others = [n for (c, _), n in chosen.items() if c == cell]
        assert chosen[cell, family] >= max(others, default=0) - 1


@given(example_lists, quotas, seeds)
def test_twice_is_once(items: list[Example], quota: dict[Cell, int], seed: int) -> None:
    kept, _ = balance(items, quota, seed)
    assert balance(kept, quota, seed) == (kept, [])


@given(example_lists, quotas, seeds, st.randoms())
def test_order_of_examples_does_not_matter(
    items: list[Example], quota: dict[Cell, int], seed: int, random: Any
) -> None:
    shuffled = random.sample(items, len(items))
    assert balance(items, quota, seed) == balance(shuffled, quota, seed)


@given(example_lists, quotas, seeds, st.sampled_from(CELLS))
def test_a_larger_quota_only_adds(
    items: list[Example], quota: dict[Cell, int], seed: int, cell: Cell
) -> None:
    fewer = balance(items, quota, seed).kept
    more = balance(items, {**quota, cell: quota.get(cell, 0) + 1}, seed).kept
    assert Counter(e.id for e in fewer) <= Counter(e.id for e in more)


def test_styles_are_even_within_the_families() -> None:
    items = [
        example(f"{style} {topic} {n}", topic=topic, style=style, seed=n)
        for topic in "abcdef"
        for style, available in (("question", 9), ("chatty", 3), ("keywords", 3))
        for n in range(available)
    ]
    kept, _ = balance(items, {Cell("docs", "call"): 24}, 0)
    assert Counter(e.scenario.style for e in kept) == dict.fromkeys(
        ("question", "chatty", "keywords"), 8
    )
    assert set(Counter(e.scenario.family for e in kept).values()) == {4}


def test_the_seed_chooses() -> None:
    items = [example(f"prompt {n}", topic=str(n)) for n in range(50)]
    chosen = {
        tuple(e.id for e in balance(items, {Cell("docs", "call"): 5}, seed).kept)
        for seed in range(4)
    }
    assert len(chosen) == 4


def test_what_was_over_is_said() -> None:
    items = [example("a"), example("b", seed=1), example("c", Target(kind="refuse"), rule="pay")]
    rejected = balance(items, {Cell("docs", "call"): 1}, 0).rejected
    assert {r.detail for r in rejected} == {
        "docs/call has its quota of 1",
        "pay/refuse has no quota",
    }
