"""Rows in the forms of other vendors' chat APIs: one conversation, read alike from each."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DistillError
from distill.records import Case
from distill.workflow.cases import cases_of_rows
from distill.workflow.model import Tool

Row = dict[str, Any]
TEXT = {"type": "string"}
TOOLS = tuple(
    Tool(
        name=name,
        description="Find.",
        parameters={"type": "object", "properties": {"id": TEXT, "zone": TEXT}, "required": ["id"]},
    )
    for name in ("find", "track")
)
FIND, TRACK, LAST = {"id": "A-1"}, {"id": "A-2", "zone": "eu"}, {"id": "A-3"}


def read(row: Any) -> Case:
    (case,) = cases_of_rows([row], tools=TOOLS)
    return case


def refused(row: Any) -> tuple[str, str]:
    with pytest.raises(DistillError) as caught:
        read(row)
    ((_, cause, hint),) = caught.value.problems
    return cause, hint


def openai() -> Row:
    def call(identity: str, name: str, arguments: Row) -> Row:
        return {"id": identity, "function": {"name": name, "arguments": json.dumps(arguments)}}

    return {
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Where are A-1 and A-2?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [call("1", "find", FIND), call("2", "track", TRACK)],
            },
            {"role": "tool", "tool_call_id": "1", "content": "lost"},
            {"role": "tool", "tool_call_id": "2", "content": "found"},
            {"role": "user", "content": "And A-3?"},
            {"role": "assistant", "tool_calls": [call("3", "find", LAST)]},
        ],
    }


def anthropic() -> Row:
    def call(identity: str, name: str, arguments: Row) -> Row:
        return {"type": "tool_use", "id": identity, "name": name, "input": arguments}

    def result(identity: str, content: Any) -> Row:
        return {"type": "tool_result", "tool_use_id": identity, "content": content}

    return {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Where are A-1 and A-2?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Two.", "signature": "x"},
                    {"type": "text", "text": "I look."},
                    call("1", "find", FIND),
                    call("2", "track", TRACK),
                ],
            },
            {
                "role": "user",
                "content": [
                    result("1", "lost"),
                    result("2", [{"type": "text", "text": "found"}]),
                    {"type": "text", "text": "And A-3?"},
                ],
            },
            {"role": "assistant", "content": [call("3", "find", LAST)], "stop_reason": "tool_use"},
        ],
    }


def bedrock() -> Row:
    def call(identity: str, name: str, arguments: Row) -> Row:
        return {"toolUse": {"toolUseId": identity, "name": name, "input": arguments}}

    def result(identity: str, text: str) -> Row:
        return {"toolResult": {"toolUseId": identity, "content": [{"text": text}]}}

    return {
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "Where are A-1 and A-2?"}]},
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "Two."}}},
                    {"text": "I look."},
                    call("1", "find", FIND),
                    call("2", "track", TRACK),
                ],
            },
            {"role": "user", "content": [result("1", "lost"), result("2", "found")]},
            {"role": "user", "content": [{"text": "And A-3?"}]},
            {"role": "assistant", "content": [call("3", "find", LAST)]},
        ],
    }


def gemini() -> Row:
    def call(name: str, arguments: Row) -> Row:
        return {"functionCall": {"name": name, "args": arguments}}

    def result(name: str, text: str) -> Row:
        return {"functionResponse": {"name": name, "response": text}}

    return {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Where are A-1 and A-2?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Two.", "thought": True},
                    {"text": "I look."},
                    call("find", FIND),
                    call("track", TRACK),
                ],
            },
            {"role": "user", "parts": [result("find", "lost"), result("track", "found")]},
            {"role": "user", "parts": [{"text": "And A-3?"}]},
            {"role": "model", "parts": [call("find", LAST)]},
        ],
    }


def responses() -> Row:
    def call(identity: str, name: str, arguments: Row) -> Row:
        text = json.dumps(arguments)
        return {"type": "function_call", "call_id": identity, "name": name, "arguments": text}

    def result(identity: str, output: str) -> Row:
        return {"type": "function_call_output", "call_id": identity, "output": output}

    said = {"type": "output_text", "text": "I look."}
    return {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "Where are A-1 and A-2?"},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [said]},
            call("1", "find", FIND),
            call("2", "track", TRACK),
            result("1", "lost"),
            result("2", "found"),
            {"role": "user", "content": [{"type": "input_text", "text": "And A-3?"}]},
        ],
        "output": [{"type": "reasoning", "summary": []}, call("3", "find", LAST)],
    }


def langchain(form: str = "plain") -> Row:
    def call(identity: str, name: str, arguments: Row) -> Row:
        return {"id": identity, "name": name, "args": arguments, "type": "tool_call"}

    names = {"human": "HumanMessage", "ai": "AIMessage", "system": "SystemMessage"}

    def message(kind: str, **data: Any) -> Row:
        if form == "data":
            return {"type": kind, "data": {"type": kind, **data}}
        if form == "constructor":
            path = ["langchain", "schema", "messages", names.get(kind, "ToolMessage")]
            return {"lc": 1, "type": "constructor", "id": path, "kwargs": data}
        return {"type": kind, **data}

    two = [call("1", "find", FIND), call("2", "track", TRACK)]
    parts = [{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "1", "name": "find"}]
    other = {"function": {"name": "find", "arguments": json.dumps(LAST)}}
    return {
        "messages": [
            message("system", content="Be brief."),
            message("human", content="Where are A-1 and A-2?", additional_kwargs={}),
            message("ai", content=parts, tool_calls=two, invalid_tool_calls=[], id="run-1"),
            message("tool", content="lost", tool_call_id="1", status="success"),
            message("tool", content="found", tool_call_id="2", name="track"),
            message("human", content="And A-3?"),
            message("ai", content="", tool_calls=[], additional_kwargs={"tool_calls": [other]}),
        ]
    }


VENDORS: dict[str, Row] = {
    "anthropic": anthropic(),
    "bedrock": bedrock(),
    "gemini": gemini(),
    "responses": responses(),
    "langchain": langchain(),
    "langchain's data": langchain("data"),
    "langchain's constructors": langchain("constructor"),
}


@pytest.mark.parametrize("row", VENDORS.values(), ids=VENDORS)
def test_one_conversation_is_read_alike_from_every_vendor(row: Row) -> None:
    expected = read(openai())
    assert [call.arguments for call in expected.calls] == [LAST]
    assert [message.role for message in expected.messages] == [
        *("system", "user", "assistant", "tool", "tool", "user")
    ]
    assert read(row).id == expected.id
    assert read(json.loads(json.dumps(row))).messages == expected.messages


def test_a_logged_response_is_read() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "find", "arguments": '{"id": "A-1"}'}
    row = {"input": "Where is A-1?", "output": [call, {**call, "name": "track"}]}
    case = read(row)
    assert [(each.name, each.arguments) for each in case.calls] == [("find", FIND), ("track", FIND)]
    assert case.conversation.last_user == "Where is A-1?"


USER = {"role": "user", "content": "Where is A-1?"}
USE = {"type": "tool_use", "id": "1", "name": "find", "input": FIND}
REFUSED: list[tuple[Row, str]] = [
    ({"messages": [{"role": "user", "content": [USE]}]}, "message of the user with a tool call"),
    ({"messages": [USER, {"role": "assistant", "content": [{**USE, "name": "fnd"}]}]},
     'unknown tool "fnd"'),
    ({"messages": [USER, {"role": "assistant", "content": [{**USE, "input": [1]}]}]},
     "no JSON object"),
    ({"messages": [USER, {"role": "assistant", "content": [{**USE, "input": {}}]}]},
     'leaves out "id"'),
    ({"messages": [USER, {"role": "assistant", "content": [USE, {"type": "image"}]}]}, "not text"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "9"}]},
                   {"role": "assistant", "content": [USE]}]}, "answers no call"),
    ({"input": [USER, {"type": "web_search_call", "id": "x"}]}, 'of type "web_search_call"'),
    ({"messages": [{"type": "human", "content": "x"}, {"type": "ai", "content": "",
                   "invalid_tool_calls": [{"name": "find"}]}]}, "invalid_tool_calls"),
    ({"messages": [{"type": "robot", "content": "x"}]}, 'of type "robot"'),
    ({"system": [{"cachePoint": {}}], "messages": [USER]}, "system that is not text"),
    ({"contents": [{"role": "user", "parts": [{"text": "x"}]}]}, "does not end with"),
    ({"input": "x", "output": "y"}, "no user message"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "cause"), REFUSED)
def test_what_is_wrong_in_a_vendors_row_is_told(row: Row, cause: str) -> None:
    assert cause in refused(row)[0]


@given(st.data())
def test_any_value_in_a_vendors_row_is_a_case_or_an_error(data: st.DataObject) -> None:
    row = json.loads(json.dumps(data.draw(st.sampled_from([*VENDORS.values()]))))
    at: Any = row
    while True:
        key = data.draw(st.sampled_from([*at] if isinstance(at, dict) else range(len(at))))
        if not at[key] or not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            break
        at = at[key]
    other = st.sampled_from([None, 3, "x", "[3]", [], {}, [3], [{}], {"type": "tool"}])
    at[key] = data.draw(other)
    if data.draw(st.booleans()) and isinstance(at, dict):
        at[data.draw(st.sampled_from(["role", "type", "content", "parts", "tool_calls"]))] = 3
    with contextlib.suppress(DistillError):
        read(row)
