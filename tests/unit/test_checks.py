"""Every reason is given by a candidate that deserves it, and nothing good is rejected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_data import WORKFLOW, calls, candidate, rule, scenario, search

from distill.config import DataConfig
from distill.data.checks import CHECKS, argument_problem, validate
from distill.data.grounding import content_words, is_grounded, stem
from distill.errors import WorkflowError
from distill.records import Candidate, Message, Reason, Rejection, Target, ToolCall
from distill.workflow.model import CallSpec, Tool, Workflow

DATA = DataConfig(max_prompt_chars=200)


def judged(item: Candidate) -> Rejection | None:
    kept, rejected = validate([item], WORKFLOW, DATA)
    assert len(kept) + len(rejected) == 1
    return rejected[0] if rejected else None


def booking(**arguments: Any) -> Target:
    return Target(kind="call", calls=(ToolCall(name="book", arguments=arguments),))


def book(prompt: str, **arguments: Any) -> Candidate:
    return candidate(prompt, booking(unit="hours", **arguments), rule="rooms")


def say(kind: str, reply: str) -> Target:
    return Target(kind=kind, reply=reply)


def without_user() -> Candidate:
    said = (Message(role="system", content="Be kind."),)
    return Candidate.of(scenario(), said, search("leave"), "grammar")


def twice() -> Target:
    return Target(kind="call", calls=(*search("leave").calls, *search("leave").calls))


REJECTED = [
    (Reason.EMPTY_PROMPT, candidate(" \n\u200b\u2028"), "no visible character"),
    (Reason.EMPTY_PROMPT, without_user(), "no turn of the user"),
    (Reason.PROMPT_TOO_LONG, candidate("leave " * 50), "300 characters, the limit is 200"),
    (Reason.BAD_CHARACTERS, candidate("leave\0"), "U+0000 at character 6 of turn 1"),
    (Reason.BAD_CHARACTERS, candidate("leave", search("lea\ufffdve")), "U+FFFD at character 4"),
    (Reason.BAD_CHARACTERS, candidate("x\r", say("ask", "Which?"), rule="vague"), "U+000D"),
    (Reason.BAD_CHARACTERS, candidate("x", say("ask", "\x1b"), rule="vague"), "the reply"),
    (Reason.EMPTY_REPLY, candidate("that one", say("ask", " "), rule="vague"), "to ask"),
    (Reason.EMPTY_REPLY, candidate("hello", say("answer", ""), rule="chat"), "to answer"),
    (Reason.EMPTY_REPLY, candidate("pay me", say("refuse", "\n"), rule="pay"), "to refuse"),
    (
        Reason.UNKNOWN_TOOL,
        candidate("leave", Target(kind="call", calls=(ToolCall(name="serch"),))),
        "the workflow has no tool serch",
    ),
    (Reason.UNKNOWN_TOOL, candidate("leave", tools=("book",)), "does not offer search"),
    (
        Reason.WRONG_TARGET,
        Candidate.of(
            scenario(target="refuse"), candidate("leave").messages, search("leave"), "grammar"
        ),
        "call where refuse was asked for",
    ),
    (Reason.WRONG_TARGET, candidate("room", booking(room="room")), "calls book where the rule"),
    (Reason.WRONG_TARGET, candidate("leave", twice()), "search, search where the rule calls"),
    (Reason.WRONG_TARGET, candidate("leave", search("leave"), rule="both"), "search, book"),
    (Reason.WRONG_TARGET, candidate("red", booking(room="red"), rule="rooms"), "unit is missing"),
    (
        Reason.WRONG_TARGET,
        candidate("red", booking(room="red", unit="days"), rule="rooms"),
        'unit is "days", the rule says "hours"',
    ),
    (Reason.INVALID_ARGUMENTS, book("the red room"), "arguments: 'room' is a required property"),
    (Reason.INVALID_ARGUMENTS, book("red", room=5), "room: 5 is not of type 'string'"),
    (Reason.INVALID_ARGUMENTS, book("red", room="red", colour="red"), "'colour' was unexpected"),
    (Reason.INVALID_ARGUMENTS, book("red", room="red", seats=True), "seats: True is not"),
    (Reason.INVALID_ARGUMENTS, book("red", room="red", size="huge"), "size: 'huge' is not one"),
    (Reason.INVALID_ARGUMENTS, book("red", room="red", tags=["red", 1]), "tags[1]: 1 is not"),
    (Reason.INVALID_ARGUMENTS, book("red", room="red", extra={"a": 1}), "extra: unexpected"),
    (Reason.INVALID_ARGUMENTS, book("red", room="red", extra={"floor": ""}), "extra.floor: ''"),
    (Reason.UNGROUNDED_ARGUMENT, candidate("leave", search("stock price")), '"stock price" was'),
    (Reason.UNGROUNDED_ARGUMENT, candidate("leave", search("")), 'query: "" was not said'),
    (Reason.UNGROUNDED_ARGUMENT, candidate("leave", search("{topic}")), "{topic}"),
    (Reason.UNGROUNDED_ARGUMENT, candidate("order 4711", search("order 4712")), "4712"),
    (Reason.UNGROUNDED_ARGUMENT, book("the red room", room="red", seats=4), "seats: 4 was"),
    (Reason.UNGROUNDED_ARGUMENT, book("red", room="red", tags=["red", "blue"]), "tags[1]"),
    (
        Reason.UNGROUNDED_ARGUMENT,
        candidate("How much leave do I get?", search("vacation allowance")),
        "vacation allowance",
    ),
]


@pytest.mark.parametrize(("reason", "item", "detail"), REJECTED)
def test_rejects(reason: Reason, item: Candidate, detail: str) -> None:
    rejection = judged(item)
    assert rejection is not None
    assert (rejection.stage, rejection.reason, rejection.item) == ("validate", reason, item)
    assert detail in rejection.detail


def test_every_check_and_every_reason_of_the_stage_is_triggered() -> None:
    elsewhere = {
        Reason.EXACT_DUPLICATE,
        Reason.NEAR_DUPLICATE,
        Reason.IN_GOLD,
        Reason.OVER_QUOTA,
        Reason.UNRENDERABLE,
        Reason.TOO_LONG_FOR_STUDENT,
    }
    assert {reason for reason, _, _ in REJECTED} == set(Reason) - elsewhere
    given = {
        check.__name__
        for _, item, _ in REJECTED
        if (check := next((c for c in CHECKS if c(item, WORKFLOW, DATA)), None))
    }
    assert given == {check.__name__ for check in CHECKS}


ACCEPTED = [
    candidate("What is the leave policy?", search("leave policy")),
    candidate("What is the limit for travel meals?", search("travel meal limit policy")),
    candidate("How do I configure the VPN?", search("VPN configuration")),
    candidate("guest Wi-Fi password 4th floor", search("guest wifi password fourth floor 4")),
    candidate("Café in MÜNCHEN", search("cafe München")),
    candidate("東京の明日の天気は？", search("東京の天気")),
    candidate("ما هو الطقس في القاهرة", search("الطقس القاهرة")),
    candidate("the leave\r\npolicy\tplease\u2028now 👩‍👩‍👧", search("leave policy 👩‍👩‍👧")),
    candidate("How much PTO do I get?", search("vacation allowance")),
    candidate("sick leave", search("handbook sick"), rule="site"),
    candidate("1 and 2", Target(kind="ask", reply="Which one?"), rule="vague"),
    candidate("hello", Target(kind="answer", reply="Hi."), rule="chat"),
    candidate("pay me", Target(kind="refuse", reply="No."), rule="pay"),
    book("the red room for two", room="red", seats=2, quiet=True, size="large"),
    book("red, 1,200 seats", room="red", seats=1200, tags=[], notes={}),
    book("red, third floor", room="red", extra={"floor": 3}, notes={"anything": "red"}),
]


@pytest.mark.parametrize("item", ACCEPTED)
def test_accepts(item: Candidate) -> None:
    assert judged(item) is None


@given(st.lists(st.sampled_from([*ACCEPTED, *(item for _, item, _ in REJECTED)])), st.randoms())
def test_order_of_candidates_does_not_matter(items: list[Candidate], random: Any) -> None:
    shuffled = random.sample(items, len(items))
    assert repr(validate(items, WORKFLOW, DATA)) == repr(validate(shuffled, WORKFLOW, DATA))


@given(st.text(max_size=40))
def test_any_text_is_kept_whole_or_rejected(text: str) -> None:
    item = candidate(text)
    kept, rejected = validate([item], WORKFLOW, DATA)
    assert [e.conversation.last_user for e in kept] + [
        r.item.conversation.last_user for r in rejected
    ] == [text]


def schema_problem(schema: dict[str, Any], **arguments: Any) -> str | None:
    tool = Tool(name="t", description="", parameters=schema)
    return argument_problem(ToolCall(name="t", arguments=arguments), tool)


def test_arguments_that_the_schema_allows_explicitly_are_not_unexpected() -> None:
    named = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert "unexpected" in str(schema_problem(named, b=1))
    assert schema_problem({**named, "additionalProperties": True}, b=1) is None
    assert schema_problem({**named, "additionalProperties": {"type": "integer"}}, b=1) is None
    assert "unexpected" in str(schema_problem({"type": "object"}, b=1))
    composed = {"allOf": [{"properties": {"a": {}}}, {"$ref": "#/$defs/b"}]}
    composed["$defs"] = {"b": {"properties": {"b": {}}}}  # type: ignore[assignment]
    assert schema_problem(composed, a=1, b=1) is None
    assert "'c' was unexpected" in str(schema_problem(composed, a=1, c=1))


def test_a_schema_that_refers_to_nothing_is_the_workflows_error() -> None:
    remote = {"properties": {"a": {"$ref": "http://127.0.0.1:9/nowhere.json"}}}
    with pytest.raises(WorkflowError, match="which is not in its schema"):
        schema_problem(remote, a=1)


def test_values_that_a_referenced_schema_names_need_not_be_said() -> None:
    schema = {
        "type": "object",
        "properties": {"when": {"anyOf": [{"$ref": "#/$defs/when"}, {"type": "null"}]}},
        "$defs": {"when": {"enum": ["soon", "later"], "items": {"$ref": "#/$defs/when"}}},
    }
    tool = Tool(name="search", description="", parameters=schema)
    anyhow = rule("docs", calls(CallSpec(tool="search")))
    workflow = Workflow(name="w", title="w", prose="", rules=(anyhow,), tools=(tool,))
    target = Target(kind="call", calls=(ToolCall(name="search", arguments={"when": "later"}),))
    kept, _ = validate([candidate("do it", target)], workflow, DATA)
    assert len(kept) == 1


SAID = [
    (5, "five of them"),
    (5, "the 5th"),
    (25, "twenty-five"),
    (206, "two hundred and six"),
    (3200, "three thousand two hundred"),
    (24, "two dozen eggs"),
    (1200, "1,200 euros"),
    (1200, "1.200 Euro"),
    (1200.5, "1,200.50"),
    (3000, "3k"),
    (2_000_000, "2 million"),
    (0.2, "20%"),
    (20, "20%"),
    (-5, "-5 degrees"),
    (7, "٧"),
    ("C++", "I like c++"),
    ("😀", "hi 😀"),
    ("2 tickets", "two tickets"),
    (None, ""),
    (False, ""),
]
UNSAID = [
    (6, "five"),
    (2, "twenty"),
    (0.5, "5"),
    (120, "1,200"),
    ("", "anything"),
    ("cat", "concatenate"),
    ("Tokyo Osaka Kyoto", "Tokyo"),
    ("!!", "what?"),
]


@pytest.mark.parametrize(("value", "text"), SAID)
def test_grounded(value: Any, text: str) -> None:
    assert is_grounded(value, text)


@pytest.mark.parametrize(("value", "text"), UNSAID)
def test_not_grounded(value: Any, text: str) -> None:
    assert not is_grounded(value, text)


@given(st.text())
def test_what_is_said_word_for_word_is_grounded(text: str) -> None:
    assert is_grounded(text, f"please: {text} now") or not text.strip()


@given(st.integers(-(10**30), 10**30))
def test_every_integer_is_grounded_in_its_digits(number: int) -> None:
    assert is_grounded(number, f"it is {number}.")
    assert is_grounded(number, f"it is {number:,}")


def test_words_meet_across_endings() -> None:
    pairs = [
        ("policies", "policy"),
        ("configure", "configuration"),
        ("reimbursed", "reimbursement"),
        ("planning", "plan"),
        ("install", "installing"),
        ("managers", "management"),
        ("processes", "process"),
    ]
    for one, other in pairs:
        assert stem(one) == stem(other)
    assert content_words("What is the leave?") == content_words("LEAVE")
