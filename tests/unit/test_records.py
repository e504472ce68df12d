"""Records are frozen, closed, and named by their content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill.records import (
    Candidate,
    Conversation,
    Example,
    Message,
    Scenario,
    Target,
    ToolCall,
    digest,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
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
    assert example.conversation.last_user == "hello"


ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
TEXTS = st.text(max_size=8) | st.sampled_from(["", "yes", "\0", '\0[["user","yes"]]', "a\nb"])
CALLS = st.lists(
    st.builds(ToolCall, name=TEXTS, arguments=st.dictionaries(TEXTS, st.integers(), max_size=1)),
    max_size=2,
).map(tuple)
MESSAGES = st.builds(Message, role=ROLES, content=TEXTS, tool_calls=CALLS, name=st.none() | TEXTS)
CONVERSATIONS = st.lists(MESSAGES, max_size=3).map(lambda turns: Conversation(messages=turns))


@given(CONVERSATIONS, CONVERSATIONS)
def test_different_conversations_have_different_keys(
    one: Conversation, other: Conversation
) -> None:
    assert (one.key == other.key) == (one == other)


@given(st.text().filter(lambda text: not text.startswith("\0")))
def test_the_key_of_a_single_request_is_the_request(text: str) -> None:
    only = Conversation(messages=(Message(role="user", content=text),))
    assert only.key == only.last_user == only.said == str(only) == text


def test_a_conversation_says_what_users_and_tools_said() -> None:
    conversation = Conversation(
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="Where is order 6?"),
            Message(role="assistant", tool_calls=(ToolCall(name="find", arguments={"id": 6}),)),
            Message(role="tool", name="find", content="in Ghent"),
            Message(role="assistant", content="In Ghent. Anything else?"),
            Message(role="user", content="yes please"),
        )
    )
    assert conversation.last_user == "yes please"
    assert conversation.said == "Where is order 6?\nin Ghent\nyes please"
    assert str(conversation).splitlines() == [
        "system: Be brief.",
        "user: Where is order 6?",
        'assistant: find {"id":6}',
        "tool: in Ghent",
        "assistant: In Ghent. Anything else?",
        "user: yes please",
    ]
    assert Conversation(messages=conversation.messages[:1]).last_user == ""
