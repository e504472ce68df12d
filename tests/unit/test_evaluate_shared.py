"""A prefix that is read once, and drafts, change nothing of what is said."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluate_decode import VOCABULARY, alone, tiny

from distill.sharing.decode import Completion, greedy_completions, greedy_decode
from distill.sharing.reading import PromptRow, prefill, supports_prefix_sharing

STOPS = list(range(0, VOCABULARY, 9))
KINDS = ("gemma3", "gemma3-wide", "qwen3", "llama", "mistral", "bert", "minilm")
USER, MODEL = 57, 58


@pytest.fixture(autouse=True, scope="module")
def _however_few_they_are() -> Iterator[None]:
    """Prompts share what they can, also where that does not pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.sharing.groups.PASS_OVERHEAD", 0)
        yield


@cache
def model_of(kind: str) -> Any:
    return tiny(kind)


def prompts(kind: str) -> list[list[int]]:
    """Two prefixes, one beyond the small window and one within, a prompt of its own, twins."""
    draw = random.Random(7)
    words = range(3, 57)
    one, two = draw.choices(words, k=20), draw.choices(words, k=5)
    made = [one + draw.choices(words, k=n) for n in (1, 2, 9, 4, 4)]
    made += [two + draw.choices(words, k=n) for n in (3, 1, 12)]
    made += [draw.choices(words, k=7), made[2], one[:15], [5]]
    if kind == "minilm":
        made = [turned(prompt, draw) for prompt in made]
    return made


def turned(prompt: list[int], draw: random.Random) -> list[int]:
    """The prompt as turns: its prefix, the user's words and the head of an answer."""
    cut = draw.randrange(len(prompt))
    return [*prompt[:cut], USER, *prompt[cut:], MODEL]


def bidirectional_start_ids(kind: str) -> tuple[int, ...]:
    return (USER,) if kind == "minilm" else ()


@cache
def expected(kind: str) -> list[list[int]]:
    return [alone(model_of(kind), prompt, STOPS, 12) for prompt in prompts(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_prefix_changes_nothing(kind: str) -> None:
    model = model_of(kind)
    assert supports_prefix_sharing(model)
    assert greedy_decode(
        model, prompts(kind), STOPS, 12, bidirectional_start_ids=bidirectional_start_ids(kind)
    ) == expected(kind)
    assert len({len(said) for said in expected(kind)}) > 2
    passes = list(
        prefill(
            model,
            [PromptRow(at, p) for at, p in enumerate(prompts(kind))],
            99,
            bidirectional_start_ids(kind),
        )
    )
    assert any(one.prefix for one in passes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_nor_does_the_number_of_rows_in_a_batch(kind: str, batch_size: int) -> None:
    asked = prompts(kind)
    max_new_tokens = [12] * len(asked)
    found = dict(
        greedy_completions(
            model_of(kind),
            asked,
            STOPS,
            max_new_tokens,
            bidirectional_start_ids=bidirectional_start_ids(kind),
            batch_size=batch_size,
        )
    )
    assert [found[at].ids for at in range(len(asked))] == expected(kind)


@st.composite
def drafts(draw: st.DrawFn, kind: str) -> list[list[int]]:
    """For each prompt what is said, cut off, gone on with, or wrong at some place; or anything."""
    made = []
    for said in expected(kind):
        draft = said[: draw(st.integers(0, len(said)))]
        if draw(st.booleans()):
            draft = draft + draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=8))
        elif draft and draw(st.booleans()):
            draft[draw(st.integers(0, len(draft) - 1))] = draw(st.integers(0, VOCABULARY - 1))
        made.append(draft)
    return made


@pytest.mark.parametrize("kind", ["gemma3", "llama", "minilm"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_drafts_change_no_answer(kind: str, data: st.DataObject) -> None:
    asked = prompts(kind)
    max_new_tokens = data.draw(
        st.lists(st.integers(1, 12), min_size=len(asked), max_size=len(asked))
    )
    found = dict(
        greedy_completions(
            model_of(kind),
            asked,
            STOPS,
            max_new_tokens,
            drafts=data.draw(drafts(kind)),
            bidirectional_start_ids=bidirectional_start_ids(kind),
            batch_size=data.draw(st.integers(1, 13)),
        )
    )
    assert [found[at].ids for at in range(len(asked))] == [
        said[:room] for said, room in zip(expected(kind), max_new_tokens, strict=True)
    ]


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_a_model_whose_past_cannot_be_shared_says_the_same(
    kind: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.sharing.decode.supports_prefix_sharing", lambda _: False)
    asked = prompts(kind)
    # The longest prompts have less room than the others.
    max_new_tokens = [min(12, 30 - len(prompt)) for prompt in asked]
    found = dict(
        greedy_completions(
            model_of(kind),
            asked,
            STOPS,
            max_new_tokens,
            drafts=expected(kind),
            batch_size=batch_size,
        )
    )
    said = [one[:room] for one, room in zip(expected(kind), max_new_tokens, strict=True)]
    assert found == {at: Completion(ids) for at, ids in enumerate(said)}
    assert min(max_new_tokens) < 12


def test_no_prompts_no_answers() -> None:
    assert greedy_decode(model_of("llama"), [], STOPS, 12) == []
