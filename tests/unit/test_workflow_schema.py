"""One definition of a valid call: whoever reads a call gives the same verdict on it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from kit import office
from stage_data import calls, rule, scenario

from distill.asking.ask import MalformedReplyError
from distill.asking.writing import read_reply
from distill.data.checks import argument_problem
from distill.errors import WorkflowError
from distill.records import Json, ToolCall
from distill.teachers.base import WriteTask
from distill.workflow.cases import read_cases
from distill.workflow.model import CallSpec, Tool, Workflow
from distill.workflow.schema import ArgumentsSchema, json_equal, schema_of
from distill.workflow.strict import drop_nulls, strict_call_schema
from distill.workflow.tools import read_tools
from distill.workflow.values import argument_errors

ADDRESS: Json = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "zip": {"type": "string"}},
    "required": ["street"],
}


def tool(properties: Json, **keywords: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, **keywords}
    return Tool(name="t", description="A tool.", parameters=parameters)


def workflow_of(one: Tool) -> Workflow:
    return Workflow(
        name="w",
        title="W",
        prose="",
        rules=(rule("docs", calls(CallSpec(tool="t"))),),
        tools=(one,),
    )


def taken_as_gold(one: Tool, arguments: Json, folder: Path) -> bool:
    row = {"user_content": "hello", "tool_name": "t", "tool_arguments": arguments}
    (folder / "gold.jsonl").write_text(json.dumps(row) + "\n")
    try:
        read_cases(folder / "gold.jsonl", tools=[one])
    except WorkflowError:
        return False
    return True


def taken_from_a_teacher(one: Tool, arguments: Json) -> bool:
    workflow = workflow_of(one)
    task = WriteTask(scenario(tools=("t",)), workflow.rules[0], workflow)
    reply = {"user": "hello", "calls": [{"name": "t", "arguments": arguments}]}
    try:
        read_reply(json.dumps(reply), task, "kit")
    except MalformedReplyError:
        return False
    return True


def verdicts(one: Tool, arguments: Json, folder: Path) -> set[bool]:
    return {
        taken_as_gold(one, arguments, folder),
        taken_from_a_teacher(one, arguments),
        argument_problem(ToolCall(name="t", arguments=arguments), one) is None,
        not argument_errors(one, arguments),
    }


NESTED = tool({"to": ADDRESS})
REFERRED = tool(
    {"to": {"$ref": "#/$defs/a~1b"}, "by": {"$ref": "#/$defs/p%20q"}, "at": {"$ref": "#day"}},
    **{
        "$defs": {
            "a/b": {"enum": ["home", "work"]},
            "p q": {"const": "van"},
            "day": {"$anchor": "day", "type": "string"},
        }
    },
)
EXTENDED = tool(
    {
        "to": {
            "allOf": [{"$ref": "#/$defs/address"}],
            "properties": {"floor": {"type": "integer"}},
        }
    },
    **{"$defs": {"address": ADDRESS}},
)
EITHER = tool(
    {
        "who": {
            "anyOf": [
                {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
                {"type": "object", "properties": {"mail": {"type": "string"}}},
            ]
        }
    }
)

PARTED = tool({}, allOf=[{"properties": {"a": {"properties": {name: {}}}}} for name in "pq"])
OPEN_OR_NAMED = tool(
    {"o": {"anyOf": [{"properties": {"p": {"type": "integer"}}}, {"type": "object"}]}}
)
CLOSED_BESIDE = tool(
    {
        "o": {
            "properties": {"p": {}, "q": {}},
            "anyOf": [{"required": ["p"]}, {"required": ["q"]}],
        }
    }
)
TREE = tool({"name": {}, "child": {"$ref": "#", "properties": {"leaf": {"type": "boolean"}}}})
CONDITIONAL = tool(
    {"kind": {"enum": ["letter", "parcel"]}},
    **{
        "if": {"properties": {"kind": {"const": "parcel"}}},
        "then": {"properties": {"weight": {"type": "integer"}}},
    },
)

CASES: list[tuple[Tool, Json, bool]] = [
    (NESTED, {"to": {"street": "Main"}}, True),
    (NESTED, {"to": {"street": "Main", "city": "Ghent"}}, False),
    (NESTED, {"to": {"zip": "9000"}}, False),
    (NESTED, {"form": {}}, False),
    (tool({"to": {**ADDRESS, "additionalProperties": {}}}), {"to": {"street": "", "x": 1}}, True),
    (tool({"to": {**ADDRESS, "additionalProperties": True}}), {"to": {"street": "", "x": 1}}, True),
    (tool({"a": {}}, additionalProperties={}), {"b": 1}, True),
    (tool({"a": {}}, additionalProperties=True), {"b": 1}, True),
    (tool({"a": {}}, additionalProperties={"type": "string"}), {"b": 1}, False),
    (tool({"a": {}}, additionalProperties={"type": "string"}), {"b": "x"}, True),
    (tool({"a": {}}, additionalProperties=False), {"b": 1}, False),
    (tool({"a": {}}, unevaluatedProperties=True), {"b": 1}, True),
    (tool({}), {"b": 1}, False),
    (tool({}, patternProperties={"^x_": {"type": "integer"}}), {"x_1": 1}, True),
    (tool({}, patternProperties={"^x_": {"type": "integer"}}), {"x_1": "1"}, False),
    (tool({}, patternProperties={"^x_": {"type": "integer"}}), {"y": 1}, False),
    (tool({"o": {"type": "object"}}), {"o": {"anything": 1}}, True),
    (tool({"l": {"type": "array", "items": ADDRESS}}), {"l": [{"street": "a", "x": 1}]}, False),
    (tool({"l": {"prefixItems": [ADDRESS]}}), {"l": [{"street": "a", "x": 1}]}, False),
    (REFERRED, {"to": "home", "by": "van", "at": "Monday"}, True),
    (REFERRED, {"to": "elsewhere"}, False),
    (REFERRED, {"by": "car"}, False),
    (REFERRED, {"at": 1}, False),
    (EXTENDED, {"to": {"street": "Main", "floor": 2}}, True),
    (EXTENDED, {"to": {"street": "Main", "city": "Ghent"}}, False),
    (EXTENDED, {"to": {"floor": 2}}, False),
    (EITHER, {"who": {"id": 1}}, True),
    (EITHER, {"who": {"mail": "a@b.c"}}, True),
    (EITHER, {"who": {"id": 1, "mail": "a@b.c"}}, True),
    (EITHER, {"who": {"id": 1, "name": "Ana"}}, False),
    (tool({"a": {}}, allOf=[{"properties": {"b": {"type": "integer"}}}]), {"a": 1, "b": 2}, True),
    (tool({"a": {}}, allOf=[{"properties": {"b": {"type": "integer"}}}]), {"b": "2"}, False),
    (tool({"a": {}}, allOf=[{"properties": {"b": {"type": "integer"}}}]), {"c": 2}, False),
    (PARTED, {"a": {"p": 1, "q": 1}}, True),
    (PARTED, {"a": {"p": 1, "r": 1}}, False),
    (OPEN_OR_NAMED, {"o": {"p": 1}}, True),
    (OPEN_OR_NAMED, {"o": {"anything": 1}}, True),
    (OPEN_OR_NAMED, {"o": {"p": "x"}}, True),
    (CLOSED_BESIDE, {"o": {"p": 1}}, True),
    (CLOSED_BESIDE, {"o": {"p": 1, "r": 1}}, False),
    (TREE, {"name": "a", "child": {"name": "b", "leaf": True}}, True),
    (TREE, {"name": "a", "child": {"name": "b", "leaf": True, "x": 1}}, False),
    (TREE, {"name": "a", "leaf": True}, False),
    (tool({"a": {}}, dependentSchemas={"a": {"properties": {"b": {}}}}), {"a": 1, "b": 1}, True),
    (tool({"a": {}}, dependentSchemas={"a": {"properties": {"b": {}}}}), {"b": 1}, False),
    (CONDITIONAL, {"kind": "parcel", "weight": 2}, True),
    (CONDITIONAL, {"kind": "letter", "weight": 2}, False),
    (tool({"a": {}}, **{"$schema": "http://json-schema.org/draft-07/schema#"}), {"a": 1}, True),
]


@pytest.mark.parametrize(("one", "arguments", "valid"), CASES)
def test_everybody_gives_the_right_verdict(
    one: Tool, arguments: Json, valid: bool, tmp_path: Path
) -> None:
    assert verdicts(one, arguments, tmp_path) == {valid}


SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 0},
        {"type": "boolean"},
        {"enum": ["a", "b"]},
        {"$ref": "#/$defs/address"},
    ]
)
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.sampled_from(["a", "x", 0, -1, True, None, 1.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def made(properties: Json, required: list[str], more: Json) -> Json:
        needed = [name for name in required if name in properties]
        return {"type": "object", "properties": properties, "required": needed, **more}

    further = st.sampled_from(
        [
            {},
            {},
            {"additionalProperties": False},
            {"additionalProperties": {}},
            {"additionalProperties": {"type": "integer"}},
            {"allOf": [{"properties": {"c": {"type": "string"}}}]},
            {"anyOf": [{"properties": {"b": {}}, "required": ["b"]}, {"required": ["a"]}]},
            {"anyOf": [{"properties": {"b": {"type": "string"}}}, {"type": "object"}]},
            {"allOf": [{"properties": {n: {"properties": {n: {}}}}} for n in "ab"]},
            {"$ref": "#/$defs/address"},
            {"patternProperties": {"^[bc]$": {"type": "integer"}}},
            {"minProperties": 1},
        ]
    )
    properties = st.dictionaries(NAMES, inner, max_size=3)
    return st.builds(made, properties, st.lists(NAMES, max_size=1, unique=True), further)


SCHEMAS = objects(
    st.recursive(
        SCALARS,
        lambda inner: objects(inner) | inner.map(lambda item: {"type": "array", "items": item}),
        max_leaves=4,
    )
).map(lambda schema: {**schema, "$defs": {"address": ADDRESS}})


@given(SCHEMAS, st.dictionaries(NAMES, VALUES, max_size=3))
def test_everybody_gives_one_verdict(schema: Json, arguments: Json) -> None:
    import tempfile

    one = Tool(name="t", description="A tool.", parameters=schema)
    # Of a teacher's reply, nulls of optional arguments are dropped before it is judged.
    arguments = drop_nulls(one, arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = verdicts(one, arguments, Path(folder))
    assert len(found) == 1
    if found == {True}:  # never laxer than JSON Schema
        assert Draft202012Validator(schema).is_valid(arguments), (
            "it is never laxer than JSON Schema"
        )


@given(SCHEMAS, st.dictionaries(NAMES, VALUES, max_size=3))
def test_a_valid_call_is_still_valid_when_a_reply_holds_it(schema: Json, arguments: Json) -> None:
    one = Tool(name="t", description="A tool.", parameters=schema)
    dropped = drop_nulls(one, arguments)
    assert drop_nulls(one, dropped) == dropped
    if not schema_of(one).errors(arguments):
        assert not schema_of(one).errors(dropped)


@given(SCHEMAS, st.dictionaries(NAMES, VALUES, max_size=3))
def test_a_name_is_accepted_or_every_call_with_it_is_not(schema: Json, arguments: Json) -> None:
    compiled = ArgumentsSchema(schema)
    if any(not compiled.accepts_name(name) for name in arguments):
        assert compiled.errors(arguments)


def with_nulls(schema: Json, arguments: Json) -> Json:
    """Arguments as strict mode wants them: an optional one that is left out is null."""
    properties = schema["properties"]
    assert isinstance(properties, dict)
    return {
        name: with_nulls(part, arguments[name])
        if isinstance(arguments.get(name), dict) and "properties" in part
        else arguments.get(name)
        for name, part in properties.items()
    }


PLAIN: Json = {
    "type": "object",
    "properties": {
        "a": {"type": "string"},
        "b": {"type": "integer"},
        "to": ADDRESS,
    },
    "required": ["a"],
}
GOOD = st.fixed_dictionaries(
    {"a": st.text(max_size=3)},
    optional={
        "b": st.integers(),
        "to": st.fixed_dictionaries(
            {"street": st.text(max_size=3)}, optional={"zip": st.just("9")}
        ),
    },
)


@given(GOOD)
def test_strict_mode_says_the_same_call_with_nulls(arguments: Json) -> None:
    one = Tool(name="t", description="A tool.", parameters=PLAIN)
    assert schema_of(one).errors(arguments) == []
    filled = with_nulls(PLAIN, arguments)
    strict = strict_call_schema(one, {})
    assert Draft202012Validator(strict).is_valid({"name": "t", "arguments": filled})
    assert drop_nulls(one, filled) == arguments


@pytest.mark.parametrize("one", [REFERRED, EXTENDED])
def test_references_of_strict_mode_resolve(one: Tool) -> None:
    definitions: Json = {}
    schema = {**strict_call_schema(one, definitions), "$defs": definitions}
    assert list(ArgumentsSchema(schema).reference_faults) == []


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_json_has_not_is_no_argument(value: float) -> None:
    one = tool({"n": {"type": "number"}, "l": {"type": "array"}})
    for arguments in ({"n": value}, {"l": [{"x": value}]}):
        assert "not a number that JSON has" in schema_of(one).errors(arguments)[0].message
        assert argument_problem(ToolCall.model_construct(name="t", arguments=arguments), one)


OLDER: dict[str, Any] = {
    "$recursiveRef": "#",
    "divisibleBy": 3,
    "disallow": ["string"],
    "extends": {"type": "string"},
}


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, 'refers to "#/$defs/none"'),
        ({"properties": {"a": {"$ref": "https://example.org/s"}}}, "which is not in its schema"),
        ({"properties": {"a": {"$ref": "#nowhere"}}}, "which is not in its schema"),
        ({"properties": {"a": {"$dynamicRef": "#nowhere"}}}, "which is not in its schema"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "refers to itself without end"),
        (
            {
                "properties": {"a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/x"}}}},
                "$defs": {"x": {"allOf": [{"$ref": "#/$defs/y"}]}, "y": {"$ref": "#/$defs/x"}},
            },
            "refers to itself without end",
        ),
        (
            {"properties": {"a": {"not": {"$ref": "#/properties/a"}}}},
            "refers to itself without end",
        ),
        (
            {"properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a/type/x"}}},
            "which is not in its schema",
        ),
        ({"properties": {"a": {"$ref": "#/required"}}, "required": ["a"]}, "is not a schema"),
        ({"properties": {"a": {"$ref": "#/x-own"}}, "x-own": {"type": "strng"}}, "is not a schema"),
        (
            {"properties": {"a": {"$ref": "#/x-own"}}, "x-own": {"items": {"$ref": "#/none"}}},
            'refers to "#/none"',
        ),
        *(
            ({"properties": {"a": {"items": {key: value}}}}, f'uses "{key}"')
            for key, value in OLDER.items()
        ),
        ({"additionalItems": False, "prefixItems": [{}]}, 'uses "additionalItems"'),
        ({"properties": {"a": {"$id": "a", "$ref": "#"}}}, 'has the "$id" "a" below its top'),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error_with_its_place(
    parameters: Json, cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "tools.json"
    wanted = {"name": "t", "description": "d", "parameters": {"type": "object", **parameters}}
    path.write_text(json.dumps([wanted], indent=1))
    with pytest.raises(WorkflowError, match=r"tools\.json:2") as caught:
        read_tools(path)
    assert cause in str(caught.value)


NEEDS = st.dictionaries(
    st.sampled_from("abc"),
    st.lists(st.sampled_from("abc"), unique=True)
    | st.sampled_from([False, {"required": ["b"]}, {"properties": {"c": {"type": "string"}}}]),
)


@given(NEEDS, st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", 1])), st.booleans())
def test_dependencies_hold_as_in_the_drafts_that_have_them(
    needs: Json, arguments: Json, nested: bool
) -> None:
    named: Json = {"a": {}, "b": {}, "c": {}}
    node: Json = {"properties": named, "dependencies": needs}
    one = tool({"x": node}) if nested else tool(named, dependencies=needs)
    given = {"x": arguments} if nested else arguments
    expected = Draft7Validator(one.parameters).is_valid(given)
    assert (not schema_of(one).errors(given)) == expected


def test_a_value_that_looks_like_a_reference_is_none(tmp_path: Path) -> None:
    parameters = {"type": "object", "properties": {"a": {"const": {"$ref": "#/nowhere"}}}}
    (tmp_path / "tools.json").write_text(
        json.dumps([{"name": "t", "description": "d", "parameters": parameters}])
    )
    assert read_tools(tmp_path / "tools.json")[0].parameters == parameters


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
def test_a_chain_of_optional_objects_is_read_in_bounded_time(key: str) -> None:
    link: Json = {"type": "object", "properties": {"next": {"$ref": "#/$defs/link"}}}
    chain = tool(
        {"a": {"$ref": "#/$defs/link"}}, **{"$defs": {"link": {key: [link, {"const": 1}]}}}
    )
    value: Json = {"next": None}
    for _ in range(30):
        value = {"next": value}
    dropped: Any = drop_nulls(chain, {"a": value})
    assert json.dumps(dropped).count("next") == 30
    assert schema_of(chain).errors(dropped) == []


def test_a_schema_may_refer_to_itself_below() -> None:
    tree = tool(
        {"tree": {"$ref": "#/$defs/node"}},
        **{
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {"children": {"items": {"$ref": "#/$defs/node"}}},
                }
            }
        },
    )
    schema = schema_of(tree)
    assert list(schema.reference_faults) == []
    assert schema.errors({"tree": {"children": [{"children": []}]}}) == []
    assert schema.errors({"tree": {"children": [{"kids": []}]}})


def test_partial_arguments_may_leave_out_what_is_required() -> None:
    either = tool(
        {"a": {}, "b": {}, "c": {}},
        required=["c"],
        oneOf=[{"required": ["a"]}, {"required": ["b"]}],
    )
    schema = schema_of(either)
    assert schema.errors({"c": 1})
    assert schema.errors({"c": 1}, partial=True) == []
    assert schema.errors({"d": 1}, partial=True)
    assert office.SEARCH.parameters["required"] == schema_of(office.SEARCH).required


@pytest.mark.parametrize(
    ("one", "arguments", "kept"),
    [
        (tool({"a": {"type": "string"}}), {"a": None}, {}),
        (tool({"a": {}}, required=["a"]), {"a": None}, {"a": None}),
        (tool({"a": {"type": ["string", "null"]}}, minProperties=1), {"a": None}, {"a": None}),
        (tool({"a": {}}, allOf=[{"required": ["a"]}]), {"a": None}, {"a": None}),
        (PARTED, {"a": {"p": None, "q": 1}}, {"a": {"q": 1}}),
        (EXTENDED, {"to": {"street": "x", "zip": None, "floor": None}}, {"to": {"street": "x"}}),
        (tool({}, allOf=[{"properties": {n: {}}} for n in "pq"]), {"p": None, "q": None}, {}),
        (tool({"o": {"type": "object"}}), {"o": {"a": None}}, {"o": {"a": None}}),
        (
            tool({"l": {"prefixItems": [ADDRESS]}}),
            {"l": [{"street": "x", "zip": None}]},
            {"l": [{"street": "x"}]},
        ),
    ],
)
def test_nulls_of_optional_arguments_are_dropped(one: Tool, arguments: Json, kept: Json) -> None:
    assert drop_nulls(one, arguments) == kept


@pytest.mark.parametrize("one", [PARTED, EXTENDED, TREE, CONDITIONAL, CLOSED_BESIDE])
def test_strict_mode_offers_every_name_that_the_schema_takes(one: Tool) -> None:
    definitions: Json = {}
    call: Any = strict_call_schema(one, definitions)
    assert list(call["properties"]["arguments"]["properties"]) == list(schema_of(one).properties)
    assert "additionalProperties" in json.dumps(call)


def test_what_is_nested_too_deeply_is_not_valid() -> None:
    value: Json = {}
    for _ in range(600):
        value = {"name": "a", "child": value}
    assert "nested too deeply" in schema_of(TREE).errors(value)[0].message
    assert drop_nulls(TREE, value) == value


def test_properties_are_in_the_order_of_the_schema() -> None:
    assert list(schema_of(tool({"b": {}, "a": {}})).properties) == ["b", "a"]


@given(VALUES, VALUES)
def test_equality_is_that_of_json_schema(one: Any, other: Any) -> None:
    assert json_equal(one, other) == Draft202012Validator({"const": one}).is_valid(other)
