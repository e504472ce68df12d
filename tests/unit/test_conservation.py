"""In every sieve, and through all of them: in = kept + rejected, item by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_data import WORKFLOW, case, examples, scenario, search

from distill.config import DataConfig
from distill.data.balance import balance
from distill.data.checks import validate
from distill.data.dedup import dedup
from distill.records import Candidate, Cell, Example, Message, Sifted, Target

DATA = DataConfig(max_prompt_chars=60)
GOLD = (case("What is the travel budget in Berlin?"),)
QUOTAS = {Cell("docs", "call"): 2, Cell("pay", "refuse"): 1}

# Whole conversations of any kind, most of which some check rejects.
messages = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=st.text()),
    max_size=3,
).map(tuple)
wild = st.builds(
    lambda said, target, kind: Candidate.of(scenario(target=kind), said, target, "grammar"),
    messages,
    st.sampled_from([search("leave"), Target(kind="ask"), Target(kind="refuse", reply="No.")]),
    st.sampled_from(["call", "ask", "refuse"]),
)
candidates = st.lists(examples | wild, max_size=30)

SIEVES: dict[str, Callable[[Sequence[Example]], Sifted[Example]]] = {
    "validate": lambda items: validate(items, WORKFLOW, DATA),
    "dedup": lambda items: dedup(items, GOLD, DATA),
    "balance": lambda items: balance(items, QUOTAS, 0),
}


def conserved(items: Sequence[Candidate], sifted: Sifted[Example]) -> bool:
    out = [*sifted.kept, *(rejection.item for rejection in sifted.rejected)]
    return Counter(item.id for item in items) == Counter(item.id for item in out)


@pytest.mark.parametrize("stage", SIEVES)
@given(items=st.lists(examples, max_size=30))
def test_a_sieve_loses_nothing(stage: str, items: list[Example]) -> None:
    sifted = SIEVES[stage](items)
    assert conserved(items, sifted)
    assert all(r.stage == stage and r.detail for r in sifted.rejected)


@given(candidates)
def test_all_sieves_in_a_row_lose_nothing(items: list[Candidate]) -> None:
    left, rejected = list(items), []
    for sieve in SIEVES.values():
        sifted = sieve(left)  # type: ignore[arg-type]
        assert conserved(left, sifted)
        left, rejected = list(sifted.kept), [*rejected, *sifted.rejected]
    assert len(items) == len(left) + len(rejected)


@given(candidates)
def test_a_kept_item_is_what_came_in(items: list[Candidate]) -> None:
    known = {item.id: item for item in items}
    sifted = validate(items, WORKFLOW, DATA)
    assert all(dict(known[kept.id]) == dict(kept) for kept in sifted.kept)
    assert all(known[rejection.item.id] == rejection.item for rejection in sifted.rejected)
