"""Baselines learn the joint label, write no arguments and never change their minds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from distill.cli.tables import scores_table
from distill.evaluate.baselines import Majority, MiniLM, Tfidf, label_of, user_text
from distill.evaluate.score import cases_of, score
from distill.evaluate.tables import scores_json, sorted_arms
from distill.records import Candidate, Example, Message, Outcome, Scenario, Target, ToolCall


def example(text: str, target: Target) -> Example:
    scenario = Scenario.of(
        rule="r", target=target.kind, tools=("a", "b"), style="s", topic=text, seed=0
    )
    messages = (Message(role="user", content=text),)
    return Example.promote(Candidate.of(scenario, messages, target, "t"))


def calls(*names: str) -> Target:
    return Target(kind="call", calls=tuple(ToolCall(name=name) for name in names))


LABELS = {
    "holiday policy": calls("docs"),
    "weather forecast": calls("web"),
    "compare policy with forecast": calls("web", "docs"),
    "pizza, please!": Target(kind="refuse", reply="No."),
    "👍": Target(kind="ask", reply="Which?"),
}
THINGS = ("today", "tomorrow", "in Lisbon", "for me", "again", "quickly")
EXAMPLES = [example(f"{text} {thing}", t) for text, t in LABELS.items() for thing in THINGS]
EXAMPLES += [example("holiday policy now", calls("docs"))]
CASES = cases_of([example(f"{text} next week", target) for text, target in LABELS.items()])


def letters(texts: Sequence[str]) -> Any:
    """An encoder that is real and small: how often each letter occurs, length one."""
    import numpy as np

    found = np.array([[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz👍"] for text in texts])
    found[:, -1] *= 20
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_labels_join_tools_and_kinds() -> None:
    assert label_of(calls("b", "a")) == label_of(calls("a", "b")) == ("call", "a", "b")
    assert label_of(calls("ask")) != label_of(Target(kind="ask"))


def test_the_whole_of_what_the_user_said_is_read() -> None:
    roles = ("user", "assistant", "user")
    messages = [Message(role=r, content=t) for r, t in zip(roles, "xyz", strict=True)]  # type: ignore[arg-type]
    assert user_text(messages) == "x\nz"


def test_majority() -> None:
    made = Majority(EXAMPLES).predict(CASES)
    assert [p.calls for p in made] == [(ToolCall(name="docs"),)] * len(CASES)
    assert score(made).tool_accuracy == pytest.approx(1 / 5)
    assert [p.outcome for p in made][3:] == [Outcome.OVER_CALL] * 2


def test_a_tie_does_not_depend_on_the_order_of_rows() -> None:
    tied = EXAMPLES[:12]
    assert Majority(tied).label == Majority(tied[::-1]).label == ("call", "docs")


@pytest.mark.parametrize("kind", ["tfidf", "minilm"])
def test_classifiers_learn_and_are_deterministic(kind: str) -> None:
    def fitted(rows: Sequence[Example]) -> Tfidf | MiniLM:
        return Tfidf(rows) if kind == "tfidf" else MiniLM(rows, letters)

    made = fitted(EXAMPLES).predict(CASES)
    assert [p.tool_correct for p in made] == [True] * len(CASES)
    assert [p.arm for p in made] == [kind] * len(CASES)
    assert fitted(EXAMPLES).predict(CASES) == made
    shuffled = random.Random(1).sample(EXAMPLES, len(EXAMPLES))
    assert fitted(shuffled).predict(CASES) == made
    assert fitted(EXAMPLES).predict(()) == []
    scores = score(made)
    unwritten = (scores.malformed_rate, scores.full_call_accuracy, scores.argument_f1)
    assert (*unwritten, scores.grounding_f1) == (None, None, None, None)


def test_a_single_label_needs_no_regression() -> None:
    one = [row for row in EXAMPLES if row.target.kind == "ask"]
    made = Tfidf(one).predict(CASES)
    assert [p.calls for p in made] == [()] * len(CASES)
    assert made[4].tool_correct


def test_tables_and_objects_show_arms_from_base_to_baselines() -> None:
    from io import StringIO

    from rich.console import Console

    arms = {
        "tfidf": score(Tfidf(EXAMPLES).predict(CASES)),
        "other": score([]),
        "majority": score(Majority(EXAMPLES).predict(CASES)),
    }
    assert sorted_arms({**arms, "tuned": score([]), "base": score([])}) == [
        *("base", "tuned", "majority", "tfidf", "other")
    ]
    shown = scores_json("gold", arms)
    assert shown["data"] == "gold"
    assert list(shown["arms"]) == ["majority", "tfidf", "other"]  # type: ignore[arg-type]
    majority: Any = shown["arms"]["majority"]  # type: ignore[index, call-overload]
    keys = ("n", "tool_accuracy", "full_call_accuracy", "malformed_rate", "argument_f1")
    assert [majority[key] for key in (*keys, "grounding_f1")] == [5, 0.2, None, None, None, None]
    assert majority["tool_interval"] == pytest.approx([0.036, 0.624], abs=1e-3)
    out = StringIO()
    Console(file=out, width=160).print(scores_table(arms, "gold"))
    assert "20.0 [3.6, 62.4]" in out.getvalue()
    assert out.getvalue().index("majority") < out.getvalue().index("tfidf")
