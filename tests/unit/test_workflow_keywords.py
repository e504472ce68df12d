"""Arguments are held to JSON Schema in bounded time, and numbers exactly."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from distill.errors import WorkflowError
from distill.records import Json
from distill.workflow.keywords import WholeValidator
from distill.workflow.model import Tool
from distill.workflow.patterns import MAX_SECONDS, is_searchable, occurs
from distill.workflow.schema import schema_of
from distill.workflow.strict import drop_nulls
from distill.workflow.tools import read_tools

SLOW = "^(a|aa)+$"
TEXT = "a" * 40 + "!"
ENDLESS = ("^(a+)+$", SLOW, r"^(\w+\s?)*$", "(x+x+)+y")


def tool(properties: Json, **keywords: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, **keywords}
    return Tool(name="t", description="A tool.", parameters=parameters)


NESTED: dict[str, Json] = {
    "pattern": {"type": "string", "pattern": SLOW},
    "negated": {"not": {"pattern": SLOW}},
    "condition": {"if": {"pattern": SLOW}, "then": True},
    "name": {"propertyNames": {"pattern": SLOW}},
    "member": {"patternProperties": {SLOW: {}}},
    "closed": {"patternProperties": {SLOW: {}}, "additionalProperties": False},
    "branch": {"anyOf": [{"patternProperties": {SLOW: {}}}, {"minProperties": 3}]},
    "unevaluated": {"unevaluatedProperties": {}, "patternProperties": {SLOW: {}}},
    "beside": {"not": {"unevaluatedProperties": False, "$ref": "#/$defs/slow"}},
    "dialect": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": SLOW},
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("partial", [False, True])
def test_a_pattern_that_backtracks_for_ever_rejects_the_value(kind: str, partial: bool) -> None:
    one = tool({"x": NESTED[kind]}, **{"$defs": {"slow": {"patternProperties": {SLOW: {}}}}})
    is_text = kind in ("pattern", "negated", "condition", "dialect")
    arguments: Json = {"x": TEXT if is_text else {TEXT: "y", "z": None}}
    began = time.process_time()
    (error, *_) = schema_of(one).errors(arguments, partial=partial)
    assert f"takes too long to match '{SLOW}'" in error.message
    assert drop_nulls(one, arguments) == arguments
    assert schema_of(one).accepts_name(TEXT) is False
    assert time.process_time() - began < 2 * MAX_SECONDS


def test_a_name_that_a_pattern_cannot_tell_is_left_to_the_call() -> None:
    one = tool({}, patternProperties={SLOW: {}})
    assert schema_of(one).accepts_name(TEXT)
    assert schema_of(one).errors({TEXT: 1})


@pytest.mark.parametrize("pattern", ENDLESS)
def test_every_search_ends(pattern: str) -> None:
    began = time.process_time()
    schema_of(tool({"x": {"pattern": pattern}})).errors({"x": "a b " * 20 + "x" * 50 + "a" * 40})
    assert time.process_time() - began < 2 * MAX_SECONDS


UNREADABLE = ("([", "a{99999999999999999999}", "(" * 5000, "a**", "[b-a]")


@pytest.mark.parametrize("pattern", UNREADABLE)
@pytest.mark.parametrize("key", ["pattern", "patternProperties"])
def test_a_pattern_that_cannot_be_read_is_one_message(
    tmp_path: Path, key: str, pattern: str
) -> None:
    node: Json = {"pattern": pattern} if key == "pattern" else {key: {pattern: {}}}
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([tool({"x": node}).openai()]))
    with pytest.raises(WorkflowError) as caught:
        read_tools(path)
    (problem,) = caught.value.problems
    assert problem.place == f"{path}:1"
    assert f"has an invalid JSON Schema at properties.x.{key}: '{pattern[:50]}" in problem.cause


PIECES = st.sampled_from(
    [
        *"ab1{}()*+?|^$.-,&/_e ",
        *("[ab]", "[^a]", "[a&&b]", "[a--b]", "{2}", "{1,}", "{,2}", "{e<=1}"),
        *("(?:", "(?=", "(?!", "(?i)", "(?P<n>", "(?P=n)"),
        *(r"\d", r"\w", r"\b", r"\.", r"\{", r"\Z"),
    ]
)


@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
@pytest.mark.filterwarnings("ignore:Possible set:FutureWarning")
@given(st.lists(PIECES, max_size=7).map("".join), st.text("ab1{}-,&e ", max_size=6))
def test_a_pattern_finds_what_python_finds(pattern: str, text: str) -> None:
    try:
        expected = re.search(pattern, text)
    except re.error:
        return
    assert is_searchable(pattern)
    assert occurs(pattern, text) == (expected is not None)


NAMES = st.sampled_from(["a", "b", "ab"])
LEAVES = st.sampled_from([True, False, {}, {"type": "string"}, {"const": 1}])
VALUES = st.recursive(
    st.sampled_from(["x", 1, 0.5]), lambda inner: st.dictionaries(NAMES, inner, max_size=3)
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "patternProperties": st.dictionaries(
                st.sampled_from(["^a", "b$", "^b$", "a|b"]), inner, max_size=2
            ),
            "additionalProperties": inner,
            "unevaluatedProperties": inner,
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
            "$ref": st.just("#/$defs/other"),
            **dict.fromkeys(("if", "then", "else", "not"), inner),
            **dict.fromkeys(("allOf", "anyOf", "oneOf"), st.lists(inner, min_size=1, max_size=2)),
        },
    ),
    max_leaves=6,
)
OTHERS = st.sampled_from(
    [
        {"properties": {"a": {}}},
        {"patternProperties": {"b$": {}}, "unevaluatedProperties": {"type": "string"}},
        {"additionalProperties": {"type": "string"}},
    ]
)


@given(NODES, OTHERS, VALUES)
def test_the_verdict_is_that_of_json_schema(node: Any, other: Json, value: Any) -> None:
    schema = {"allOf": [node], "$defs": {"other": other}}
    assert WholeValidator(schema).is_valid(value) == Draft202012Validator(schema).is_valid(value)


@given(st.integers(-(10**6), 10**6), st.integers(0, 6), st.integers(1, 999), st.integers(0, 6))
def test_multiples_are_those_of_the_written_numbers(
    digits: int, places: int, divisor: int, divided: int
) -> None:
    number, step = Decimal(digits).scaleb(-places), Decimal(divisor).scaleb(-divided)
    schema = json.loads(f'{{"multipleOf": {step:f}}}')
    assert WholeValidator(schema).is_valid(json.loads(f"{number:f}")) == (number % step == 0)


def test_prices_are_multiples_of_a_cent() -> None:
    found = schema_of(tool({"x": {"multipleOf": 0.01}})).errors
    assert not any(found({"x": cents / 100}) for cents in range(10_000))
    assert found({"x": 19.995})
    assert not found({"x": 10**4000})
    assert not found({"x": "text"})
