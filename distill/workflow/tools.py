"""Tools from a JSON file of OpenAI function schemas, or from a Python file of functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from distill.errors import WorkflowError
from distill.files import parse_json, read_text
from distill.records import Json
from distill.workflow.model import Tool, ToolDefinition
from distill.workflow.problems import Problems, did_you_mean
from distill.workflow.schema import ArgumentsSchema

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
NO_ARGUMENTS: Json = {"type": "object", "properties": {}}
EXAMPLE = '{"name": "…", "description": "…", "parameters": {"type": "object", "properties": {}}}'


def read_tools(path: Path) -> tuple[Tool, ...]:
    """The tools in a .json or .py file.

    Raises InputFileError for a file that cannot be read, WorkflowError with every problem found,
    MissingExtraError for a .py file where transformers is not installed.
    """
    problems = Problems(path)
    if path.suffix == ".py":
        from distill.workflow.functions import read_functions

        found = read_functions(path, problems)
    else:
        found = list(_json_tools(path))
    tools = make_tools(found, problems)
    if problems.found:
        raise WorkflowError.of(problems.found)
    return tools


def make_tools(found: list[ToolDefinition], problems: Problems) -> tuple[Tool, ...]:
    """The tools that are right; each that is not adds to `problems`."""
    tools: dict[str, Tool] = {}
    first: dict[str, int] = {}
    for raw in found:
        tool = _make_tool(raw, problems)
        if tool is None:
            continue
        if tool.name in tools:
            problems.add(
                raw.line,
                f'tool "{tool.name}" is defined twice, first at line {first[tool.name]}',
                "remove one, or give it another name",
            )
        tools.setdefault(tool.name, tool)
        first.setdefault(tool.name, raw.line)
    return tuple(tools.values())


def _json_tools(path: Path) -> Iterator[ToolDefinition]:
    text = read_text(path)
    value = parse_json(text, path)
    if isinstance(value, dict) and "tools" in value:
        value = value["tools"]
        opening = re.search(r'"tools"\s*:\s*\[', text)
    else:
        opening = re.match(r"\s*\[", text)
    if not isinstance(value, list) or not value:
        raise WorkflowError(
            "holds no list of tools" if not isinstance(value, list) else "its list is empty",
            place=f"{path}:1",
            hint=f"write a list of function schemas: [{EXAMPLE}]",
        )
    lines = _element_lines(text, opening.end()) if opening else []
    for number, schema in enumerate(value):
        yield ToolDefinition(schema, lines[number] if number < len(lines) else 1)


def _element_lines(text: str, position: int) -> list[int]:
    """The line of each element of the JSON array whose first element follows `position`."""
    decoder = json.JSONDecoder()
    separator = re.compile(r"[\s,]*")
    lines: list[int] = []
    while True:
        start = separator.match(text, position)
        position = start.end() if start else position
        if text[position : position + 1] in ("]", ""):
            return lines
        lines.append(text.count("\n", 0, position) + 1)
        _, position = decoder.raw_decode(text, position)


def _make_tool(raw: ToolDefinition, problems: Problems) -> Tool | None:
    schema = raw.schema
    if isinstance(schema, dict) and isinstance(schema.get("function"), dict):
        schema = schema["function"]
    if not isinstance(schema, dict) or "name" not in schema:
        problems.add(raw.line, "is not a function schema: it has no name", f"write {EXAMPLE}")
        return None
    name = schema["name"]
    faults = list(_faults(schema))
    for cause, hint in faults:
        problems.add(raw.line, f"tool {json.dumps(name, ensure_ascii=False)} {cause}", hint)
    if faults:
        return None
    parameters = schema.get("parameters") or NO_ARGUMENTS
    return Tool(name=name, description=schema["description"].strip(), parameters=parameters)


def _faults(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with one function schema, as predicates with ways out."""
    name, description = schema["name"], schema.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield (
            "has a name that chat APIs do not take",
            "use up to 64 letters, digits, _, . and -, starting with a letter or _",
        )
    if not isinstance(description, str) or not description.strip():
        yield "has no description", "say in one sentence what it does: models choose by it"
    parameters = schema.get("parameters")
    if parameters is None or parameters == {}:
        return
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        yield (
            'has parameters that are not a JSON Schema of type "object"',
            'write {"type": "object", "properties": {…}, "required": […]}',
        )
        return
    yield from _schema_faults(parameters)


def _schema_faults(parameters: Json) -> Iterator[tuple[str, str]]:
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        where = error.json_path.removeprefix("$").lstrip(".") or "parameters"
        yield (
            f"has an invalid JSON Schema at {where}: {error.message}",
            "correct it; see https://json-schema.org/understanding-json-schema",
        )
        return
    compiled = ArgumentsSchema(parameters)
    if compiled.reference_faults:
        yield from compiled.reference_faults
        return
    for missing in compiled.required:
        if missing not in compiled.properties:
            hint = did_you_mean(missing, compiled.properties, "properties")
            yield f'requires "{missing}", which is not among its properties', hint
