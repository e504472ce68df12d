"""Records are frozen, closed, and named by their content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill.records import Candidate, Example, Message, Scenario, Target, ToolCall, digest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def scenario(**changes: object) -> Scenario:
    fields = {"rule": "r", "target": "call", "tools": ("t",), "style": "s", "topic": "x", "seed": 1}
    return Scenario.of(**{**fields, **changes})


@given(mapping=st.dictionaries(st.text(), json_values))
def test_a_digest_does_not_depend_on_the_order_of_keys(mapping: dict[str, object]) -> None:
    assert digest(mapping) == digest(dict(reversed(mapping.items())))


@pytest.mark.parametrize(
    "change", [{"rule": "q"}, {"style": "z"}, {"topic": "y"}, {"seed": 2}, {"tools": ()}]
)
def test_another_scenario_has_another_id(change: dict[str, object]) -> None:
    assert scenario(**change).id != scenario().id
    assert scenario().id == scenario().id


def test_a_family_is_a_rule_and_a_topic() -> None:
    assert scenario(seed=2, style="z").family == scenario().family
    assert scenario(topic="y").family != scenario().family


def test_records_are_frozen_and_closed() -> None:
    call = ToolCall(name="t")
    with pytest.raises(ValidationError):
        call.name = "u"
    with pytest.raises(ValidationError):
        ToolCall.model_validate({"name": "t", "args": {}})


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "call"},
        {"kind": "ask", "calls": (ToolCall(name="t"),)},
        {"kind": "call", "calls": (ToolCall(name="t"),), "reply": "also words"},
    ],
)
def test_a_target_is_calls_or_words(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Target.model_validate(fields)


def test_an_example_is_its_candidate() -> None:
    target = Target(kind="call", calls=(ToolCall(name="t", arguments={"q": 1}),))
    said = (Message(role="user", content="hello"),)
    candidate = Candidate.of(scenario(), said, target, "grammar")
    example = Example.promote(candidate)
    assert example.model_dump() == candidate.model_dump()
    assert example.prompt == "hello"
