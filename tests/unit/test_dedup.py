"""No two kept prompts are alike, none is in gold, and the order of what comes in is no matter."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_data import case, cases, example, example_lists, likely_prompts, prompts, search

from distill.config import DataConfig
from distill.data.dedup import PromptIndex, dedup, near_duplicate_pairs, normalise, similarity
from distill.records import Case, Example, Message, Reason, Target

DATA = DataConfig(near_duplicate=0.8)
golds = st.lists(cases, max_size=5)


def only(*items: Example, gold: tuple[Case, ...] = ()) -> Any:
    kept, rejected = dedup(items, gold, DATA)
    assert (len(kept), len(rejected)) == (len(items) - 1, 1)
    return rejected[0]


@given(example_lists, golds)
def test_what_is_kept_is_no_duplicate_and_not_in_gold(
    items: list[Example], gold: list[Case]
) -> None:
    kept, _ = dedup(items, gold, DATA)
    for one, other in itertools.combinations(kept, 2):
        assert normalise(one.conversation.key) != normalise(other.conversation.key)
        assert similarity(one.conversation.key, other.conversation.key) < DATA.near_duplicate
    for one, held in itertools.product(kept, gold):
        assert similarity(one.conversation.key, held.conversation.key) < DATA.near_duplicate


@given(example_lists, golds)
def test_what_is_rejected_has_a_twin(items: list[Example], gold: list[Case]) -> None:
    kept, rejected = dedup(items, gold, DATA)
    for rejection in rejected:
        others = gold if rejection.reason is Reason.IN_GOLD else kept
        alike = [
            similarity(rejection.item.conversation.key, other.conversation.key) for other in others
        ]
        assert max(alike) >= DATA.near_duplicate


@given(example_lists, golds)
def test_twice_is_once(items: list[Example], gold: list[Case]) -> None:
    kept, _ = dedup(items, gold, DATA)
    assert dedup(kept, gold, DATA) == (kept, [])


@given(example_lists, golds, st.randoms())
def test_order_of_examples_does_not_matter(
    items: list[Example], gold: list[Case], random: Any
) -> None:
    shuffled = random.sample(items, len(items))
    assert dedup(items, gold, DATA) == dedup(shuffled, gold, DATA)


@given(st.lists(prompts, max_size=30), st.sampled_from([0.3, 0.6, 0.85, 1.0]))
def test_near_duplicate_pairs_are_those_that_comparing_all_finds(
    said: list[str], threshold: float
) -> None:
    expected = [
        (i, j)
        for j in range(len(said))
        for i in range(j)
        if similarity(said[i], said[j]) >= threshold
    ]
    assert near_duplicate_pairs(said, threshold) == expected


def test_an_exact_duplicate_names_the_first() -> None:
    a, b = example("What is the LEAVE policy?"), example("what is the leave   policy")
    first, second = sorted((a, b), key=lambda e: e.id)
    rejection = only(a, b)
    assert (rejection.reason, rejection.item) == (Reason.EXACT_DUPLICATE, second)
    assert rejection.detail.startswith(
        f'the same prompt as {first.id}: "{first.conversation.last_user[:4]}'
    )


def test_a_near_duplicate_is_named() -> None:
    one = example("Where do I find the parental leave policy for Berlin, please?", search("leave"))
    two = example("Where do I find the parental leave policy for Berlin please??!", search("leaf"))
    three = example("Where do I find our parental leave policy for Berlin, please?", search("a"))
    assert only(one, two).reason is Reason.EXACT_DUPLICATE
    rejection = only(one, three)
    assert rejection.reason is Reason.NEAR_DUPLICATE
    assert "nearly the prompt of" in rejection.detail
    assert "disagree" not in rejection.detail


@pytest.mark.parametrize(
    ("target", "disagrees"),
    [
        (search("leave"), False),
        (search("Leave"), False),
        (search("travel"), True),
        (Target(kind="refuse", reply="No."), True),
    ],
)
def test_labels_that_disagree_are_said(target: Target, disagrees: bool) -> None:
    detail = only(example("my leave?", search("leave")), example("My leave", target, seed=1)).detail
    assert ("the labels disagree" in detail) == disagrees
    assert ('search {"query":"leave"}' in detail) == disagrees


def test_replies_in_other_words_are_no_disagreement() -> None:
    items = [example("pay me", Target(kind="refuse", reply=text)) for text in ("No.", "Sorry.")]
    assert "disagree" not in only(*items).detail


@pytest.mark.parametrize("prompt", ["what s the leave policy, pls", "what is the leave policy pls"])
def test_gold_is_kept_out(prompt: str) -> None:
    gold = (case("What's the leave policy? pls", place="gold.jsonl:7"),)
    rejection = only(example(prompt), example("something else entirely"), gold=gold)
    assert rejection.reason is Reason.IN_GOLD
    assert "gold.jsonl:7" in rejection.detail
    assert "leave policy? pls" in rejection.detail


@given(st.text())
def test_normalising_twice_is_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(), st.sampled_from([" ", "  ", "\n", "?", "!", ", ", "\u2028", "…"]))
def test_blanks_punctuation_and_case_fold(text: str, mark: str) -> None:
    assert normalise(f"{mark}leave{mark}{text}") == normalise(f"LEAVE {text}{mark}")


def test_prompts_of_punctuation_alone_stay_apart() -> None:
    assert len(dedup([example("???"), example("!!!")], (), DATA).kept) == 2


def test_long_and_odd_prompts_are_indexed() -> None:
    index = PromptIndex(0.85)
    for text in ("", "a", "\ud800", "x" * 10_000, "مرحبا بالعالم", "👩‍👩‍👧" * 50):
        index.add(text)
        assert index.exact(text) is not None
        assert index.near(text) == [index.exact(text)]


@given(st.lists(likely_prompts, max_size=20))
def test_a_higher_threshold_finds_fewer(said: list[str]) -> None:
    assert set(near_duplicate_pairs(said, 0.9)) <= set(near_duplicate_pairs(said, 0.7))


def dialogue(*turns: str) -> tuple[Message, ...]:
    """Turns of the user and the assistant, in turn."""
    roles: tuple[Any, ...] = ("user", "assistant")
    return tuple(Message(role=roles[at % 2], content=text) for at, text in enumerate(turns))


RENEW = dialogue("Can you renew my parking permit?", "For another year?", "yes please")
CANCEL = dialogue("I want my gym membership gone", "Shall I cancel it today?", "yes please")


def test_conversations_that_end_alike_are_no_duplicates() -> None:
    one, other = example(RENEW), example(CANCEL)
    kept, rejected = dedup([one, other], (), DATA)
    assert (len(kept), rejected) == (2, [])
    gold = (case("yes please"), case(CANCEL))
    assert only(one, other, gold=gold).item == other
    assert dedup([example("yes please")], gold[1:], DATA).rejected == []


def test_conversations_that_are_alike_as_a_whole_are_duplicates() -> None:
    near = dialogue("Can you renew my parking permit??", "for another year?", "Yes, please!")
    other = dialogue("Can you renew my parking permits", "For another year?", "yes please")
    first = example(RENEW)
    assert only(first, example(near)).reason is Reason.EXACT_DUPLICATE
    assert only(first, example(other)).reason is Reason.NEAR_DUPLICATE


def test_a_gold_request_behind_a_system_turn_is_held_out() -> None:
    user = Message(role="user", content="how many sick days do I get")
    gold = case((Message(role="system", content="You are the help desk of a museum."), user))
    for messages in ((user,), (Message(role="system", content="Be brief."), user)):
        assert only(example(messages), gold=(gold,)).reason is Reason.IN_GOLD
