"""Verdicts and scores: every outcome, every None, and the published formulas."""

from __future__ import annotations

import re
import string
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.evaluate.overlap import STOP_WORDS, argument_f1, content_words, grounding_f1, squad_f1
from distill.evaluate.score import Calibration, Share, cases_of, judge, judge_label, score
from distill.evaluate.statistics import Interval, calibration_error, mcnemar, wilson
from distill.records import (
    TARGET_KINDS,
    Candidate,
    Case,
    Example,
    ExpectedCall,
    Message,
    Outcome,
    Scenario,
    Target,
    TargetKind,
    ToolCall,
)
from distill.render import Parsed
from distill.workflow.model import Tool

ASKED = "What is the limit for travel meals in Lisbon?"


def case(*calls: ExpectedCall, kind: TargetKind = "call", rule: str | None = "r") -> Case:
    messages = (Message(role="user", content=ASKED),)
    return Case(id="c", messages=messages, kind=kind, calls=calls, rule=rule)


def expects(name: str, **arguments: object) -> ExpectedCall:
    return ExpectedCall(name=name, arguments=arguments or None)  # type: ignore[arg-type]


def said(*calls: tuple[str, dict[str, object]], reply: str = "") -> Parsed:
    made = (ToolCall(name=name, arguments=arguments) for name, arguments in calls)  # type: ignore[arg-type]
    return Parsed(tuple(made), reply)


A, B, C = ("a", {"q": "x"}), ("b", {"q": "y"}), ("c", {})
BROKEN = Parsed(malformed=True, detail="why")
ONE, TWO = case(expects("a", q="x")), case(expects("a", q="x"), expects("b", q="y"))

OUTCOMES = [
    (ONE, said(A), Outcome.RIGHT),
    (ONE, said(("a", {})), Outcome.RIGHT),
    (ONE, said(A, B), Outcome.EXTRA),
    (ONE, said(A, A), Outcome.EXTRA),
    (ONE, said(B), Outcome.WRONG),
    (ONE, said(B, C), Outcome.WRONG),
    (ONE, said(reply="Which?"), Outcome.MISSING),
    (ONE, said(), Outcome.MISSING),
    (ONE, BROKEN, Outcome.MALFORMED),
    (TWO, said(B, A), Outcome.RIGHT),
    (TWO, said(A), Outcome.MISSING),
    (TWO, said(A, C), Outcome.WRONG),
    (TWO, said(A, B, C), Outcome.EXTRA),
    (TWO, said(A, A), Outcome.WRONG),
    *((case(kind=kind), said(reply="Hi"), Outcome.RIGHT_WORDS) for kind in TARGET_KINDS[1:]),
    *((case(kind=kind), said(A), Outcome.OVER_CALL) for kind in TARGET_KINDS[1:]),
    *((case(kind=kind), BROKEN, Outcome.MALFORMED) for kind in TARGET_KINDS[1:]),
]


@pytest.mark.parametrize(("asked", "parsed", "outcome"), OUTCOMES)
def test_outcomes(asked: Case, parsed: Parsed, outcome: Outcome) -> None:
    made = judge(asked, parsed, "tuned", "raw")
    assert made.outcome == outcome
    assert made.tool_correct == (outcome in (Outcome.RIGHT, Outcome.RIGHT_WORDS))
    assert made.malformed == parsed.malformed
    assert (made.arm, made.raw, made.detail) == ("tuned", "raw", parsed.detail)
    if not parsed.malformed:
        labelled = judge_label(asked, [call.name for call in parsed.calls], "tfidf")
        assert (labelled.outcome, labelled.tool_correct) == (outcome, made.tool_correct)
        scored = (labelled.malformed, labelled.full_correct, labelled.argument_f1)
        assert (*scored, labelled.grounding_f1) == (None, None, None, None)


def test_every_outcome_is_triggered() -> None:
    assert {outcome for _, _, outcome in OUTCOMES} == set(Outcome)


FULL = [
    (ONE, said(A), True),
    (TWO, said(B, A), True),
    (ONE, said(("a", {"q": "X"})), False),
    (ONE, said(("a", {"q": "x", "n": 1})), False),
    (ONE, said(A, A), False),
    (ONE, BROKEN, False),
    (ONE, said(), False),
    (case(expects("a", n=1)), said(("a", {"n": 1.0})), True),
    (case(expects("a", n=[{"x": 2.0}])), said(("a", {"n": [{"x": 2}]})), True),
    (case(expects("a", n=1), expects("a", n=1)), said(("a", {"n": 1}), ("a", {"n": 2})), False),
    (case(expects("a", n=1)), said(("a", {"n": True})), False),
    (case(expects("a", n={"x": [1], "y": None})), said(("a", {"n": {"y": None, "x": [1]}})), True),
    (case(ExpectedCall(name="a", arguments={})), said(("a", {})), True),
    (case(expects("a")), said(A), None),
    (case(expects("a", q="x"), expects("b")), said(A, B), None),
    (case(kind="ask"), said(reply="Which?"), None),
]


@pytest.mark.parametrize(("asked", "parsed", "correct"), FULL)
def test_full_call(asked: Case, parsed: Parsed, correct: bool | None) -> None:
    assert judge(asked, parsed, "tuned", "").full_correct is correct


LAMP = Tool(
    name="a",
    description="Switch.",
    parameters={
        "type": "object",
        "properties": {
            "q": {"type": "string"},
            "n": {"type": "integer"},
            "m": {"type": ["string", "null"]},
            "o": {"type": "object", "properties": {"x": {"type": "integer"}}},
        },
        "required": ["q", "m"],
    },
)
NULLS = [
    ({"q": "x", "m": None, "n": None}, True),
    ({"q": "x", "m": None, "o": None}, True),
    ({"q": "x", "m": None, "o": {"x": None}}, False),  # an object that gold has not
    ({"q": "x", "n": None}, False),  # the required null is missing
    ({"q": "x", "m": None, "z": None}, True),  # a name of another tool, from a table
    ({"q": "x", "m": None, "z": 1}, False),
]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("given", "correct"), NULLS)
def test_a_null_for_an_optional_argument_is_one_left_out(
    own: bool, given: dict[str, object], correct: bool
) -> None:
    asked = case(expects("a", q="x", m=None))
    tools = [LAMP.openai()]
    if own:
        asked, tools = asked.model_copy(update={"tools": tuple(tools)}), []
    made = judge(asked, said(("a", given)), "tuned", "", tools=tools)
    assert made.full_correct is correct
    assert made.argument_f1 == 1 if correct else made.argument_f1 < 1


def test_a_note_stands_where_there_is_no_detail() -> None:
    assert judge(ONE, said(A), "t", "", note="n").detail == "n"
    assert judge(ONE, BROKEN, "t", "", note="n").detail == "why"


ARGUMENTS = [
    ([expects("a", q="travel meals limit")], [("a", {"q": "limit for travel"})], 2 / 3),
    ([expects("a", q="The meals!")], [("a", {"q": "meals"})], 1.0),
    ([expects("a", q="x", n=2)], [("a", {"q": "x", "n": 2})], 1.0),
    ([expects("a", q="x", n=2)], [("a", {"q": "x", "n": 2.0})], 1.0),
    ([expects("a", q="x", n=1)], [("a", {"q": "x", "n": True})], 0.5),
    ([expects("a", q="x", n=2)], [("a", {"q": "x"})], 0.5),
    ([expects("a", q="x")], [("a", {"q": "x", "n": 2})], 0.5),
    ([expects("a", q="2")], [("a", {"q": 2})], 0.0),
    ([expects("a", q="x")], [], 0.0),
    ([expects("a", q="x")], [("b", {"q": "x"})], 0.0),
    ([expects("a", q="x")], [("a", {"q": "x"}), ("b", {"q": "y"})], 1.0),
    ([expects("a", q="x"), expects("a", q="y")], [("a", {"q": "y"}), ("a", {"q": "x"})], 1.0),
    ([expects("a", q="x"), expects("a", q="y")], [("a", {"q": "y"})], 0.5),
    ([expects("a", q="x"), ExpectedCall(name="c", arguments={})], [("a", {"q": "x"})], 1.0),
    ([ExpectedCall(name="c", arguments={})], [("c", {})], None),
]


@pytest.mark.parametrize(("expected", "calls", "value"), ARGUMENTS)
def test_argument_f1(
    expected: list[ExpectedCall], calls: list[tuple[str, dict[str, object]]], value: float | None
) -> None:
    found = argument_f1(said(*calls).calls, expected)
    assert found == (None if value is None else pytest.approx(value))


def test_argument_f1_is_scored_where_arguments_are_expected() -> None:
    assert judge(ONE, said(A), "t", "").argument_f1 == 1
    assert judge(ONE, BROKEN, "t", "").argument_f1 == 0
    assert judge(case(expects("a")), said(A), "t", "").argument_f1 is None
    assert judge(case(kind="refuse"), said(A), "t", "").argument_f1 is None


def test_many_calls_of_one_tool_are_paired_in_reasonable_time() -> None:
    wanted = [expects("a", q=str(n)) for n in range(9)]
    made = said(*(("a", {"q": str(n)}) for n in range(9)))
    assert argument_f1(made.calls, wanted) == 1
    for order in permutations(wanted[:4]):
        assert argument_f1(made.calls[:4], order) == 1


def squad_reference(prediction: str, truth: str) -> float:
    """The official evaluate-v1.1.py, for texts of which neither is empty."""

    def normalize(text: str) -> list[str]:
        text = "".join(char for char in text.lower() if char not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()).split()

    one, other = normalize(prediction), normalize(truth)
    same = sum((Counter(one) & Counter(other)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(one), same / len(other)
    return 2 * precision * recall / (precision + recall)


@given(*(st.text(st.sampled_from("abthe AN.,'-2 "), min_size=1).filter(str.strip) for _ in "xy"))
def test_token_f1_is_squads(one: str, other: str) -> None:
    found = squad_f1(one, other)
    if squad_reference(one, one):
        assert found == pytest.approx(squad_reference(one, other))
    assert found == pytest.approx(squad_f1(other, one))
    assert 0 <= found <= 1
    assert squad_f1(one, one) == 1


def test_punctuation_of_every_script_is_left_out() -> None:
    assert squad_f1("“Reise – Kosten”、", "reise kosten") == 1


def test_grounding_hears_the_whole_conversation() -> None:
    """As the check of training rows does (`distill.data.checks`)."""
    turns = (
        Message(role="user", content="Book travel to Lisbon"),
        Message(role="assistant", content="For whom?"),
        Message(role="tool", name="people", content="Ana, finance"),
        Message(role="user", content="yes"),
    )
    asked = Case(id="c", messages=turns, kind="call", calls=(expects("a", q="x"),))
    found = judge(asked, said(("a", {"q": "Lisbon travel, Ana, finance"})), "t", "")
    assert found.grounding_f1 == pytest.approx(2 * 4 / (4 + 6))
    assert found.prompt == "yes"


def test_grounding() -> None:
    assert content_words("What's the limit, for Node.js?") == ["what's", "limit", "node", "js"]
    assert not STOP_WORDS & set(content_words(" ".join(sorted(STOP_WORDS))))
    assert grounding_f1(said(("a", {"q": "limit travel meals Lisbon"})).calls, ASKED) == 1
    assert grounding_f1(said(("a", {"q": "travel policy"})).calls, ASKED) == pytest.approx(1 / 3)
    nested = said(("a", {"q": ["limit", {"x": "travel"}], "n": 3}), ("b", {"q": "meals"}))
    assert grounding_f1(nested.calls, ASKED) == pytest.approx(6 / 7)
    assert grounding_f1(said(("a", {"n": 1})).calls, ASKED) == 0
    assert judge(ONE, said(), "t", "").grounding_f1 == 0
    assert judge(ONE, BROKEN, "t", "").grounding_f1 == 0
    assert judge(case(kind="ask"), said(A), "t", "").grounding_f1 is None
    assert judge(case(expects("a")), said(A), "t", "").grounding_f1 == 0


# Computed with statsmodels' proportion_confint(method="wilson") and by hand.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (16, 20, 0.584, 0.919),
        (2, 20, 0.028, 0.301),
        (0, 10, 0.0, 0.278),
        (10, 10, 0.722, 1.0),
        (50, 100, 0.404, 0.596),
        (1, 1, 0.207, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(pair: tuple[int, int]) -> None:
    successes, n = pair
    found, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= found.low <= successes / n <= found.high <= 1
    assert found == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (0, -1)])
def test_wilson_of_nonsense(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="of"):
        wilson(successes, n)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (0, 6, 0.03125), (1, 9, 0.021484375), (10, 2, 0.03857)],
)
def test_mcnemar(only_a: int, only_b: int, p: float) -> None:
    a = [True] * only_a + [False] * only_b + [True, False]
    b = [False] * only_a + [True] * only_b + [True, False]
    found = mcnemar(a, b)
    assert found == (only_a, only_b, pytest.approx(p, abs=1e-5))
    assert mcnemar(b, a) == (only_b, only_a, found.p)


def test_mcnemar_needs_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        mcnemar([True], [True, False])


def test_scores_of_one_arm() -> None:
    rows = [
        judge(ONE, said(A), "t", ""),
        judge(ONE, said(("a", {"q": "z"})), "t", ""),
        judge(case(expects("a"), rule="other"), said(B), "t", ""),
        judge(case(kind="ask", rule=None), said(reply="Which?"), "t", ""),
        judge(ONE, BROKEN, "t", ""),
    ]
    found = score(rows)
    assert (found.n, found.tool_accuracy) == (5, 0.6)
    assert found.tool_interval == wilson(3, 5)
    assert (found.full_call_n, found.full_call_accuracy) == (3, pytest.approx(1 / 3))
    assert found.full_call_interval == wilson(1, 3)
    assert found.malformed_rate == 0.2
    assert found.argument_f1 == pytest.approx(1 / 3)
    assert found.grounding_f1 == 0
    assert list(found.outcomes) == list(Outcome)
    assert sum(found.outcomes.values()) == 5
    assert found.by_rule == {
        "other": Share(n=1, tool_accuracy=0, interval=wilson(0, 1)),
        "r": Share(n=3, tool_accuracy=2 / 3, interval=wilson(2, 3)),
    }
    assert {kind: share.n for kind, share in found.by_target.items()} == {"ask": 1, "call": 4}
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_scores_of_nothing() -> None:
    found = score([])
    assert (found.n, found.tool_accuracy, found.tool_interval) == (0, None, Interval(0, 1))
    assert found.full_call_interval is None
    assert set(found.outcomes.values()) == {0}


@given(st.permutations(range(len(OUTCOMES))))
def test_the_order_of_rows_changes_no_score(order: list[int]) -> None:
    rows = [judge(asked, parsed, "t", "") for asked, parsed, _ in OUTCOMES]
    shuffled = score([rows[at] for at in order])
    plain = score(rows)
    assert shuffled.argument_f1 == pytest.approx(plain.argument_f1)
    same = {"argument_f1": None, "grounding_f1": None}
    assert shuffled.model_copy(update=same) == plain.model_copy(update=same)


@pytest.mark.parametrize(
    ("sure", "right", "error"),
    [
        ([], [], 0.0),
        ([1.0, 1.0], [True, True], 0.0),
        ([0.9, 0.9], [False, False], 0.9),
        ([0.75] * 4, [True, True, True, False], 0.0),
        # One bin is a quarter too sure, the other a tenth too little.
        ([0.75, 0.75, 0.9, 0.9], [True, False, True, True], (0.25 + 0.1) / 2),
    ],
)
def test_calibration_error(sure: list[float], right: list[bool], error: float) -> None:
    assert calibration_error(sure, right) == pytest.approx(error)


def test_confidence_and_loss_are_scored_where_they_are_known() -> None:
    right, wrong = judge(ONE, said(A), "arm", ""), judge(ONE, said(B), "arm", "")
    rows = [
        right.model_copy(update={"confidence": 0.95, "label_nll": 0.5}),
        wrong.model_copy(update={"confidence": 0.35, "label_nll": 1.5}),
        # As sure as the second: the wrong one of the two counts among the surer.
        right.model_copy(update={"confidence": 0.35}),
        right.model_copy(update={"confidence": 0.25}),
        wrong,
    ]
    made = score(rows)
    assert made.label_loss == 1.0
    assert made.calibration is not None
    assert made.calibration.error == pytest.approx((0.05 + 0.3 + 0.75) / 4)
    error = made.calibration.error
    assert made.calibration == Calibration(n=4, error=error, surer_half=0.5, other_half=1.0)
    assert score(rows[3:]).calibration is None
    assert score(rows[3:]).label_loss is None


def test_cases_of_examples() -> None:
    scenario = Scenario.of(
        rule="meals", target="call", tools=("a",), style="question", topic="meals", seed=1
    )
    target = Target(kind="call", calls=(ToolCall(name="a", arguments={"q": "x"}),))
    messages = (Message(role="user", content=ASKED),)
    example = Example.promote(Candidate.of(scenario, messages, target, "grammar"))
    [found] = cases_of([example])
    assert (found.id, found.rule, found.conversation.last_user) == (example.id, "meals", ASKED)
    assert found.calls == (ExpectedCall(name="a", arguments={"q": "x"}),)
    assert judge(found, said(A), "t", "").full_correct
