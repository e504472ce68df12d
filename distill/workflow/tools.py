"""Tools from a JSON file of OpenAI function schemas, or from a Python file of functions."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonschema.exceptions import SchemaError

from distill import strict_json
from distill.errors import WorkflowError
from distill.files import parse_json, read_text
from distill.records import Json
from distill.workflow.contradictions import contradictions
from distill.workflow.declarations import EXAMPLE, declarations, function_schema
from distill.workflow.keywords import check_schema
from distill.workflow.model import Tool, ToolDefinition
from distill.workflow.problems import Problems, did_you_mean
from distill.workflow.schema import ArgumentsSchema
from distill.workflow.values import InvalidInputError

LineOf = Callable[[Sequence[str | int]], int]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
NO_ARGUMENTS: Json = {"type": "object", "properties": {}}
_SEPARATORS = re.compile(r"[\s,:]*")
_TOO_DEEP = ("has a schema that is nested too deeply", "flatten it")


def read_tools(
    path: Path,
    *,
    python: bool = True,
    notice: Callable[[str], None] = logging.getLogger(__name__).info,
) -> tuple[Tool, ...]:
    """The tools in a .json or .py file.

    python: whether a .py file may be executed; where it may not, it is refused
    notice: is told before it is
    Raises InputFileError for a file that cannot be read, WorkflowError with every problem found.
    """
    problems = Problems(path)
    if path.suffix == ".py":
        from distill.workflow.python_file import read_python

        if not python:
            raise WorkflowError(
                "is Python, which may not be executed here",
                place=f"{path}:1",
                hint="write the tools into tools.json; or read the file, and leave out --no-python "
                "(python=False in the library)",
            )
        notice(f"{path} is Python, and is executed to read the tools; --no-python refuses that")
        found = read_python(path, problems)
    else:
        found = _json_tools(path, problems)
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


def read_tool_list(
    value: Any, problems: Problems, line: LineOf = lambda _path: 0
) -> list[ToolDefinition]:
    """The tools of a list in any form of `declarations`, unchecked.

    line: the line of what is at a path within `value`
    Raises InvalidInputError where there is no list.
    """
    found = []
    for path, declared in declarations(value):
        try:
            found.append(ToolDefinition(function_schema(declared), line(path)))
        except InvalidInputError as fault:
            name = declared.get("name") if isinstance(declared, dict) else None
            problems.add(line(path), f"{_subject(name)}{fault.cause}", fault.hint)
        except RecursionError:
            problems.add(line(path), *_TOO_DEEP)
    return found


def _json_tools(path: Path, problems: Problems) -> list[ToolDefinition]:
    text = read_text(path)
    value = parse_json(text, path)
    try:
        found = read_tool_list(value, problems, partial(_line_at, text))
    except InvalidInputError as fault:
        raise WorkflowError(fault.cause, place=f"{path}:1", hint=fault.hint) from None
    if not found and not problems.found:
        hint = f"write a list of function schemas: [{EXAMPLE}]"
        raise WorkflowError("its list is empty", place=f"{path}:1", hint=hint)
    return found


def _line_at(text: str, path: Sequence[str | int]) -> int:
    """The line of the value to which keys and positions lead in a JSON text; 1 within strings."""
    position = _skipped(text, 0)
    for step in path:
        if text[position] not in "[{":
            return 1
        position = _member(text, position, step)
    return text.count("\n", 0, position) + 1


def _member(text: str, start: int, step: str | int) -> int:
    """Where the member `step` of the object or array at `start` begins."""
    decoder, position, number = json.JSONDecoder(), start + 1, 0
    while True:
        position = _skipped(text, position)
        key: str | int = number
        if text[start] == "{":
            key, position = decoder.raw_decode(text, position)
            position = _skipped(text, position)
        if key == step:
            return position
        _, position = decoder.raw_decode(text, position)
        number += 1


def _skipped(text: str, position: int) -> int:
    """The offset after blanks and separators."""
    found = _SEPARATORS.match(text, position)
    return found.end() if found else position


def _make_tool(raw: ToolDefinition, problems: Problems) -> Tool | None:
    schema = raw.schema
    try:
        faults = list(_faults(schema))
    except RecursionError:
        faults = [_TOO_DEEP]
    for cause, hint in faults:
        problems.add(raw.line, f"{_subject(schema['name'])}{cause}", hint)
    if faults:
        return None
    parameters = schema["parameters"] or NO_ARGUMENTS
    return Tool(
        name=schema["name"], description=schema["description"].strip(), parameters=parameters
    )


def _subject(name: Any) -> str:
    return "" if name is None else f"tool {strict_json.encode(name)} "


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
        check_schema(parameters)
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
    yield from contradictions(compiled)
