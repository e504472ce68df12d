"""Tools as vendors declare them: every form keeps its schema, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DistillError
from distill.records import Json
from distill.workflow import read_cases, read_tools
from distill.workflow.model import Tool
from distill.workflow.schema import schema_of
from distill.workflow.strict import drop_nulls, strict_call_schema

PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["open", "closed"], "description": "the state"},
        "labels": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
    },
    "required": ["status"],
}
NAMED: Json = {"name": "set_status", "description": "Set it."}
OPENAI: Json = {**NAMED, "parameters": PARAMETERS}
GEMINI: Json = {
    "type": "OBJECT",
    "properties": {
        "status": {"type": "STRING", "enum": ["open", "closed"], "description": "the state"},
        "labels": {"type": "ARRAY", "items": {"type": "STRING"}, "maxItems": "3"},
    },
    "required": ["status"],
}

FORMS: dict[str, Any] = {
    "chat completions": [{"type": "function", "function": {**OPENAI, "strict": True}}],
    "responses": [{"type": "function", **OPENAI, "strict": None}],
    "legacy functions": {"functions": [OPENAI]},
    "a request": {"model": "m", "tools": [{"type": "function", "function": OPENAI}]},
    "with its return": [{"type": "function", "function": {**OPENAI, "return": {"type": "string"}}}],
    "MCP": {"tools": [{**NAMED, "inputSchema": PARAMETERS, "title": "T", "annotations": {}}]},
    "MCP with output": [{**NAMED, "inputSchema": PARAMETERS, "outputSchema": PARAMETERS}],
    "JSON-RPC": {"id": 1, "result": {"tools": [{**NAMED, "inputSchema": PARAMETERS}]}},
    "last page": {"tools": [{**NAMED, "inputSchema": PARAMETERS}], "nextCursor": None},
    "Anthropic": [{**NAMED, "input_schema": PARAMETERS, "cache_control": {"type": "ephemeral"}}],
    "Anthropic custom": [{"type": "custom", **NAMED, "input_schema": PARAMETERS}],
    "Gemini": [{"functionDeclarations": [{**NAMED, "parameters": GEMINI}]}],
    "Gemini call": {"tools": [{"function_declarations": [{**NAMED, "parameters": GEMINI}]}]},
    "Gemini alone": {"functionDeclarations": [{**NAMED, "parametersJsonSchema": PARAMETERS}]},
    "Bedrock": {
        "toolConfig": {"tools": [{"toolSpec": {**NAMED, "inputSchema": {"json": PARAMETERS}}}]}
    },
    "text": json.dumps([OPENAI]),
    "texts": [json.dumps({"type": "function", "function": OPENAI})],
    "schema as text": [{**NAMED, "parameters": json.dumps(PARAMETERS)}],
    "nulls of other rows": [
        {
            **NAMED,
            "inputSchema": None,
            "parameters": {
                **PARAMETERS,
                "items": None,
                "properties": {
                    "status": {**PARAMETERS["properties"]["status"], "items": None, "const": None},
                    "labels": {**PARAMETERS["properties"]["labels"], "enum": None, "default": None},
                    "order": None,
                    "amount": {"type": None, "items": {"type": None}},
                },
            },
        }
    ],
}  # fmt: skip


def from_file(folder: Path, value: Any) -> tuple[Tool, ...]:
    (folder / "tools.json").write_text(json.dumps(value), encoding="utf-8")
    return read_tools(folder / "tools.json")


def from_gold(folder: Path, value: Any) -> tuple[Json, ...] | None:
    row = {"user_content": "Close it", "target": "answer", "tools": value}
    (folder / "gold.jsonl").write_text(json.dumps(row), encoding="utf-8")
    return read_cases(folder / "gold.jsonl", tools=())[0].tools


@pytest.mark.parametrize("form", FORMS)
def test_every_form_keeps_its_schema(tmp_path: Path, form: str) -> None:
    (tool,) = from_file(tmp_path, FORMS[form])
    assert tool.openai()["function"] == OPENAI
    assert from_gold(tmp_path, FORMS[form]) == (tool.openai(),)


@given(st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=3, unique=True))
def test_a_list_may_mix_forms(tmp_path_factory: pytest.TempPathFactory, forms: list[str]) -> None:
    listed = [
        json.loads(json.dumps(item).replace("set_status", f"set_status_{number}"))
        for number, form in enumerate(forms)
        if isinstance(FORMS[form], list)
        for item in FORMS[form]
    ]
    if listed:
        tools = from_file(tmp_path_factory.mktemp("mixed"), listed)
        assert [tool.parameters for tool in tools] == [PARAMETERS] * len(listed)


ARGUMENTS = {"x": {"type": "string"}}
REFUSED: dict[str, tuple[Any, str]] = {
    "args": ([{**NAMED, "args": ARGUMENTS}], 'unknown key "args"'),
    "inputs": ([{**NAMED, "inputs": ARGUMENTS}], 'unknown key "inputs"'),
    "cohere": (
        [{**NAMED, "parameter_definitions": {"x": {"type": "str"}}}], '"parameter_definitions"'),
    "schema": ([{**NAMED, "schema": {"$ref": "#/x"}}], 'unknown key "schema"'),
    "list": ([{**NAMED, "arguments": [{"name": "x", "type": "str"}]}], 'unknown key "arguments"'),
    "properties": ([{**NAMED, "properties": ARGUMENTS}], 'unknown key "properties"'),
    "outside": ([{"function": NAMED, "parameters": PARAMETERS}], 'unknown key "parameters"'),
    "two schemas": (
        [{**OPENAI, "inputSchema": {"type": "object"}}], "two schemas, parameters, inputSchema"),
    "run by its vendor": (
        [{**NAMED, "type": "web_search_20250305"}], 'type "web_search_20250305" and has no schema'),
    "beside declarations": (
        [{"functionDeclarations": [OPENAI], "googleSearch": {}}], "googleSearch beside"),
    "one page": ({"tools": [OPENAI], "nextCursor": "b"}, "one page"),
    "text": ("tools", "as text that is not valid JSON"),
    "text of a tool": (["search"], "tool 1 as text that is not valid JSON"),
    "mapping": ({"tools": {"set_status": OPENAI}}, "no list of tools"),
    "kind": ([{**NAMED, "inputSchema": {"type": "STRNG"}}], 'of type "object"'),
}  # fmt: skip


@pytest.mark.parametrize("slip", REFUSED)
@pytest.mark.parametrize("read", [from_file, from_gold])
def test_what_would_lose_a_schema_is_refused(tmp_path: Path, read: Any, slip: str) -> None:
    value, cause = REFUSED[slip]
    with pytest.raises(DistillError) as caught:
        read(tmp_path, value)
    (problem,) = caught.value.problems
    assert cause in problem.cause
    assert problem.hint


def test_places_are_those_of_the_tools_in_any_form(tmp_path: Path) -> None:
    groups = [{"functionDeclarations": [OPENAI, {**NAMED, "args": ARGUMENTS}]}, OPENAI]
    text = json.dumps({"id": "]", "result": {"tools": groups}}, indent=1)
    (tmp_path / "tools.json").write_text(text, encoding="utf-8")
    with pytest.raises(DistillError) as caught:
        read_tools(tmp_path / "tools.json")
    lines = text.split("\n")
    starts = [n for n, line in enumerate(lines) if '"name": "set_status"' in line]
    assert [p.place.rpartition(":")[2] for p in caught.value.problems] == [
        str(starts[1]),
        str(starts[2]),
    ]


NULLABLE = {
    "typed": {"type": "string", "nullable": True},
    "swagger": {"type": "string", "x-nullable": True},
    "enum": {"type": "string", "enum": ["open", "closed"], "nullable": True},
    "untyped": {"enum": ["open", "closed"], "nullable": True},
    "const": {"const": "open", "nullable": True},
    "reference": {"$ref": "#/$defs/s", "nullable": True},
    "alternatives": {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
    "optional": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "types": {"type": ["string", "null"]},
}


@pytest.mark.parametrize("form", NULLABLE)
def test_what_may_be_null_takes_null(tmp_path: Path, form: str) -> None:
    properties = {"a": NULLABLE[form], "b": {"type": "array", "items": NULLABLE[form]}}
    parameters = {
        "type": "object",
        "properties": properties,
        "required": ["a"],
        "$defs": {"s": {"type": "string"}},
    }
    (tool,) = from_file(tmp_path, [{**NAMED, "parameters": parameters}])
    assert tool.parameters == parameters
    for value in (None, "open"):
        arguments = {"a": value, "b": [value]}
        assert not schema_of(tool).errors(arguments)
        assert drop_nulls(tool, arguments) == arguments
    assert schema_of(tool).errors({"a": []})
    assert drop_nulls(tool, {"a": "open", "b": None}) == {"a": "open"}
    sent = strict_call_schema(tool, {})["properties"]["arguments"]
    assert "nullable" not in json.dumps(sent)


def test_a_null_of_another_tool_says_nothing(tmp_path: Path) -> None:
    (tool,) = from_file(tmp_path, [OPENAI])
    row = {"user_content": "Close it", "tool_name": "set_status"}
    given = {"status": "closed", "labels": None, "order_id": None}
    for arguments in (given, json.dumps(given)):
        text = json.dumps({**row, "tool_arguments": arguments})
        (tmp_path / "gold.jsonl").write_text(text, encoding="utf-8")
        (case,) = read_cases(tmp_path / "gold.jsonl", tools=[tool])
        assert case.calls[0].arguments == {"status": "closed"}


def test_depth_is_told_with_its_place(tmp_path: Path) -> None:
    deep: Any = {"type": "string"}
    for _ in range(300):
        deep = {"type": "array", "items": deep}
    parameters = {"type": "object", "properties": {"a": deep}}
    for text, cause in [
        (json.dumps([{**NAMED, "parameters": parameters}]), "nested too deeply"),
        (f'[{{"name": "a", "parameters": {"[" * 20_000}', "nested too deeply"),
        (f'[{{"name": "a", "parameters": {"9" * 5_000}}}]', "too many digits"),
    ]:
        (tmp_path / "tools.json").write_text(text, encoding="utf-8")
        with pytest.raises(DistillError, match=cause) as caught:
            read_tools(tmp_path / "tools.json")
        assert "tools.json" in caught.value.problems[0].place
